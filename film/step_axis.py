"""Steps along a box, each as wide as the others, and the way from there to time along the box.

Close up a column is a step however long it took, so that its words have room; from afar x is engine time. Knows
nanoseconds and units; draws nothing.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from tracereel.film.canvas import Floats
from tracereel.film.stage import Box
from tracereel.film.time_axis import TimeAxis, View

_SAMPLE = 2000
"""Most steps from which instants are found."""


@dataclass(frozen=True)
class StepView(View):
    """`columns` steps in view from the column `first` on, after a share `pulled` of the way to the view `far`.

    `ends` are the ends of all steps in nanoseconds, in order. A step's column reaches from the end of the step before.
    """

    ends: Sequence[int]
    first: float
    columns: float
    far: View
    pulled: float = 0.0

    @classmethod
    def of_steps(cls, ends: Sequence[int], first: float, columns: float, far: View, pulled: float = 0.0) -> "StepView":
        """The view; its stretch of engine time follows from its steps."""
        view = cls(far.from_ns, far.to_ns, ends, first, columns, far, pulled)
        steps = range(len(ends))
        from_step, to_step = (bisect_left(steps, edge, key=lambda i: view.share(ends[i])) for edge in (0.0, 1.0))
        from_ns = ends[from_step - 1] if from_step else far.from_ns
        return replace(view, from_ns=from_ns, to_ns=ends[to_step] if to_step < len(ends) else far.to_ns)

    def along(self, box: Box) -> "StepAxis":
        """This view from a box's left edge to its right edge."""
        return StepAxis(box.x, box.w, self)

    def instants(self, shares: Floats) -> Floats:
        """The instants in nanoseconds at these shares of the width, from a sample of steps where they are many."""
        sampled = sorted({round(i) for i in np.linspace(0, len(self.ends) - 1, _SAMPLE)})
        known = [(self.share(self.ends[i]), self.ends[i]) for i in sampled]
        beyond = (self.share(self.far.from_ns), self.far.from_ns), (self.share(self.far.to_ns), self.far.to_ns)
        at, instants = zip(beyond[0], *known, beyond[1], strict=True)
        found: Floats = np.interp(shares, at, instants)
        return found

    def share(self, t_ns: float) -> float:
        """Where an instant lies, as a share of the view's width from its left edge."""
        close = self._among_steps(t_ns)
        if not self.pulled:
            return close
        far = (t_ns - self.far.from_ns) / (self.far.to_ns - self.far.from_ns)
        return close + (far - close) * self._part

    def _among_steps(self, t_ns: float) -> float:
        ends = self.ends
        i = min(bisect_left(ends, t_ns), len(ends) - 1)
        begin = ends[i - 1] if i else self.far.from_ns
        within = min(max((t_ns - begin) / max(ends[i] - begin, 1), 0.0), 1.0)
        return (i + within - self.first) / self.columns

    @cached_property
    def _part(self) -> float:
        """How far places have moved to those of the far view: even in the scale, so that pulling back looks steady."""
        close, far = 1 / self.columns, 1 / max(len(self.ends), 2)
        if close <= far:
            return self.pulled
        scale = close * math.pow(far / close, self.pulled)
        return (close - scale) / (close - far)


@dataclass(frozen=True)
class StepAxis(TimeAxis):
    """A view of steps from `left` on, `width` units wide."""

    view: StepView

    def x(self, t_ns: float) -> float:
        """The place of an instant, beyond the edges where it is out of view."""
        return self.left + self.width * self.view.share(t_ns)

    def within(self, t_ns: float) -> float:
        """The place of an instant; one that is out of view stands at the edge."""
        return self.left + self.width * min(max(self.view.share(t_ns), 0.0), 1.0)
