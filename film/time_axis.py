"""Engine time along a box: the one place that maps instants to x. Knows nanoseconds and units; draws nothing."""

from dataclasses import dataclass

from tracereel.film.canvas import Floats
from tracereel.film.stage import Box
from tracereel.trace.analysis.queries import Run


@dataclass(frozen=True)
class View:
    """The stretch of engine time in view."""

    from_ns: float
    to_ns: float

    @classmethod
    def of_run(cls, run: Run) -> "View":
        """The whole of a run."""
        return cls(run.timeline.begin_ns, max(run.timeline.end_ns, run.timeline.begin_ns + 1))

    def towards(self, other: "View", share: float) -> "View":
        """A view on the way to another; even in the scale, so that pulling back looks steady."""
        span, goal = self.to_ns - self.from_ns, other.to_ns - other.from_ns
        wide = span * (goal / span) ** share
        # The left edge moves with the scale, not on its own: else it would overshoot.
        part = share if span == goal else (wide - span) / (goal - span)
        left = self.from_ns + (other.from_ns - self.from_ns) * part
        return View(left, left + wide)

    def shifted(self, by_ns: float) -> "View":
        """The same stretch of a run whose clock is that much ahead."""
        return View(self.from_ns + by_ns, self.to_ns + by_ns)

    def instants(self, shares: Floats) -> Floats:
        """The instants in nanoseconds at these shares of the view's width. Shapes: (n,), (n,)."""
        return self.from_ns + shares * (self.to_ns - self.from_ns)

    def along(self, box: Box) -> "TimeAxis":
        """This view from a box's left edge to its right edge."""
        return TimeAxis(box.x, box.w, self)


@dataclass(frozen=True)
class TimeAxis:
    """A view from `left` on, `width` units wide."""

    left: float
    width: float
    view: View

    def x(self, t_ns: float) -> float:
        """The place of an instant, beyond the edges where it is out of view."""
        return self.left + self.width * (t_ns - self.view.from_ns) / (self.view.to_ns - self.view.from_ns)

    def within(self, t_ns: float) -> float:
        """The place of an instant; one that is out of view stands at the edge."""
        share = (t_ns - self.view.from_ns) / (self.view.to_ns - self.view.from_ns)
        return self.left + self.width * min(max(share, 0.0), 1.0)

    def length(self, span_ns: float) -> float:
        """How wide a stretch of time is."""
        return self.width * span_ns / (self.view.to_ns - self.view.from_ns)
