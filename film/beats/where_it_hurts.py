"""Where it hurts: the worst moment of a run, found by query, shown and explained.

What the viewer should understand: averages hide what somebody felt. Beat one: every gap between two tokens of a
request, a dot at its moment, as high as it was long; most lie on one line. Beat two: the highest dot, found by asking
the trace. Beat three: close up on that very step, slots against time, and what the engine did in it that kept
everybody waiting: it read somebody's prompt, or had taken the slot away, or was itself slow.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from tracereel.film.beat import Beat, Caption
from tracereel.film.canvas import Canvas
from tracereel.film.clock import Script, ease
from tracereel.film.components.distribution import Axis
from tracereel.film.components.slot_grid import SlotGrid
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrase, figure, quote
from tracereel.film.registry import FULL_LENGTH, scene
from tracereel.film.show import Show
from tracereel.film.stage import Box
from tracereel.film.theme import (
    DIM,
    GROUND,
    PANEL,
    SMALL,
    SMALL_STRONG,
    STRONG,
    TEXT,
)
from tracereel.film.time_axis import TimeAxis, View
from tracereel.trace.analysis.latency import ITL, Latencies
from tracereel.trace.analysis.moments import worst_pause
from tracereel.trace.analysis.queries import Run
from tracereel.trace.state.columns import Ints

_SWEEP_S, _FOUND_S, _ZOOM_S, _CLOSE_S = 7.0, 2.6, 1.6, 5.0
_AROUND_STEPS = 5
_CLOSE_SLOTS = 16
_MOST_DOTS = 6000
_DOT = 8.0
_FOOT = 64.0
"""Units below the lowest dot, for the name of the median."""


@dataclass(frozen=True)
class Dots:
    """The gaps as dots: when (ns), how long (ms) and whose; of very many the longest and a sample of the rest."""

    at_ns: Ints
    value_ms: npt.NDArray[np.float64]
    request: Ints
    sampled: bool

    @classmethod
    def of(cls, gaps: Latencies) -> "Dots":
        """The dots of gaps in the order of time."""
        # Requests of one batch wait equally long for one step: of dots on one spot the last is seen.
        spots = np.stack([gaps.at_ns, np.round(gaps.value_ms * 1e6).astype(np.int64)])[:, ::-1]
        pick = np.sort(len(gaps.at_ns) - 1 - np.unique(spots, axis=1, return_index=True)[1])
        count = len(pick)
        if count > _MOST_DOTS:
            longest = np.argsort(gaps.value_ms[pick])[-_MOST_DOTS // 2 :]
            sample = np.linspace(0, count - 1, _MOST_DOTS // 2).astype(int)
            pick = pick[np.unique(np.concatenate([longest, sample]))]
        return cls(gaps.at_ns[pick], gaps.value_ms[pick], gaps.request[pick], len(pick) < count)


@scene("where_it_hurts", order=100, films=(FULL_LENGTH,))
def where_it_hurts(show: Show) -> Beat:
    """The beat of the recording of requests that come by the clock, else of the continuous run, else of any."""
    return Storyboard(show).beat()


class Storyboard:
    """The clock, the dots, the close-up."""

    def __init__(self, show: Show):
        self.stage, self.say = show.stage, show.say.say
        self.run: Run = show.run(show.recordings.preferred("online", "continuous"))
        trace, timeline = self.run.trace, self.run.timeline
        self.pause = worst_pause(trace)
        self.dots = Dots.of(Latencies.of(trace, ITL))
        sampled = self.dots.sampled
        self.axis_name = self.say("where_it_hurts.axis_sampled" if sampled else "where_it_hurts.axis")
        self.whole = View.of_run(self.run)
        self.colours = show.colours()
        self.grid = SlotGrid(self.run, show.say, self.colours)
        steps = trace.steps
        self.axis = Axis(0.0, 1.0)
        self.labels = lru_cache(maxsize=4)(self._labels)
        script = Script(timeline.begin_ns).run(round(self.whole.to_ns), _SWEEP_S)
        if self.pause is not None:
            self.axis = Axis(0.0, (self.pause.to_ns - self.pause.from_ns) / 1e6)
            first, last = max(self.pause.step - _AROUND_STEPS, 0), min(self.pause.step + 2, len(steps) - 1)
            self.close = View(int(steps.start_ns[first]), int(steps.end_ns[last]) + 1)
            self.close_slots = min(self.grid.slots, max(_CLOSE_SLOTS, self._slot() + 1))
            script.hold(_FOUND_S + _ZOOM_S + _CLOSE_S)
        else:
            script.hold(1.5)
        self.clock = script.clock()

    def _slot(self) -> int:
        """The slot of the request that waited longest."""
        assert self.pause is not None
        steps = self.run.trace.steps
        members = steps.members(self.pause.step)
        own = steps.member_request[members] == self.pause.request
        return int(steps.member_slot[members][own][0])

    def beat(self) -> Beat:
        """All of it."""
        say, run = self.say, self.run
        captions = [Caption(0.0, say("where_it_hurts.gaps"))]
        if self.pause is None:
            captions.append(Caption(_SWEEP_S, say("where_it_hurts.none")))
        else:
            who = quote(run.measure("worst_pause_request"))
            waited = figure(run.measure("worst_pause_ms"), ",.0f")
            times = figure(run.measure("worst_pause_over_median"), ",.1f")
            captions.append(Caption(_SWEEP_S, say("where_it_hurts.worst", who=who, ms=waited, times=times)))
            captions.append(Caption(_SWEEP_S + _FOUND_S, self._why(who)))
        live = self._live if self.pause is not None else None
        name = say("where_it_hurts.name")
        return Beat("where_it_hurts", name, tuple(captions), self.clock, (run,), self.paint, live)

    def _live(self, t_ns: int) -> Phrase:
        return self.say("where_it_hurts.known", n=figure(self.run.measure("latency_n", metric=ITL, t_ns=t_ns), ",d"))

    def _why(self, who: Phrase) -> Phrase:
        assert self.pause is not None
        if self.pause.cause == "prefill":
            tokens = figure(self.run.measure("worst_pause_prefill_tokens"), ",d")
            return self.say("where_it_hurts.prefill", tokens=tokens)
        return self.say(f"where_it_hurts.{self.pause.cause}", who=who)

    def paint(self, canvas: Canvas, film_s: float) -> None:
        """Draw the dots, then the close-up, at a second of film."""
        near = ease((film_s - _SWEEP_S - _FOUND_S) / _ZOOM_S) if self.pause is not None else 0.0
        now_ns = self.clock.engine_ns(film_s)
        content = self.stage.content
        if near < 1:
            with canvas.faded(1 - min(near * 2.5, 1)):
                self._dots(canvas, content, now_ns, film_s)
        if near > 0.4:
            with canvas.faded((near - 0.4) / 0.6):
                self._close_up(canvas, content)

    def _dots(self, canvas: Canvas, content: Box, now_ns: int, film_s: float) -> None:
        plot = self.plot_of(content)
        canvas.text(self.axis_name, content.x, content.y + 28, STRONG, DIM, room=content.w)
        canvas.box(*plot.sides, PANEL)
        come = ease((film_s - _SWEEP_S) / 0.5) if self.pause is not None else 0.0
        labels, covered = self.labels(plot) if come else ((), frozenset())
        shown = int(np.searchsorted(self.dots.at_ns, now_ns, side="right"))
        xs = [self.across(plot, at_ns) for at_ns in self.dots.at_ns[:shown].tolist()]
        ys = [self.height(plot, value) for value in self.dots.value_ms[:shown].tolist()]
        for i, (x, y, request) in enumerate(zip(xs, ys, self.dots.request[:shown].tolist(), strict=True)):
            # Under a label it is not seen, and shall not shine through when all of this fades.
            alpha = 1 - come if i in covered else 1.0
            canvas.disc(x, y, _DOT / 2, self.colours[request], alpha)
        if now_ns < self.whole.to_ns:
            x = self.across(plot, now_ns)
            canvas.line([(x, plot.y), (x, plot.bottom)], TEXT, 0.5)
        if self.pause is None or not come:
            return
        y = self._median_height(plot)
        canvas.line([(plot.x, y), (plot.right, y)], TEXT, come, thickness=3, dashes=(10, 10))
        canvas.disc(*self._worst(plot), 18 + 30 * (1 - come), TEXT, come, outline=4)
        for label in labels:
            canvas.card(*label.ground.sides, GROUND, come, radius=8)
            canvas.text(label.phrase, label.x, label.y, STRONG, TEXT, come)

    def _labels(self, plot: Box) -> tuple[tuple["_Label", ...], frozenset[int]]:
        """What most of the waits are like, below the dots there; the longest; and which dots lie under the two."""
        xs = np.array([self.across(plot, at_ns) for at_ns in self.dots.at_ns.tolist()])
        ys = np.array([self.height(plot, value) for value in self.dots.value_ms.tolist()])
        median = self.run.measure("latency_percentile_ms", metric=ITL, percentile=50)
        phrase = self.say("where_it_hurts.median", ms=figure(median, ",.0f"))
        x = plot.right - 22 - width(phrase.text, STRONG)
        lowest = ys[xs > x - 20].max(initial=self._median_height(plot))
        below = _Label(phrase, x, min(float(lowest) + 50, plot.bottom - 14))
        phrase = self.say("where_it_hurts.ms", value=figure(self.run.measure("worst_pause_ms"), ",.0f"))
        x, y = self._worst(plot)
        beside = _Label(phrase, x + (34 if x < plot.x + plot.w * 0.7 else -34 - width(phrase.text, STRONG)), y + 9)
        covered: set[int] = set()
        for ground in (below.ground, beside.ground):
            across = (xs - _DOT / 2 >= ground.x) & (xs + _DOT / 2 <= ground.right)
            inside = across & (ys - _DOT / 2 >= ground.y) & (ys + _DOT / 2 <= ground.bottom)
            covered.update(np.flatnonzero(inside).tolist())
        return (below, beside), frozenset(covered)

    def _worst(self, plot: Box) -> tuple[float, float]:
        """Where the longest wait stands."""
        assert self.pause is not None
        return self.across(plot, self.pause.to_ns), self.height(plot, self.axis.high)

    def _median_height(self, plot: Box) -> float:
        return self.height(plot, float(self.run.measure("latency_percentile_ms", metric=ITL, percentile=50).value))

    def height(self, plot: Box, value_ms: float) -> float:
        """Where a wait of so many milliseconds stands."""
        return plot.bottom - _FOOT - (plot.h * 0.9 - _FOOT) * self.axis.share(value_ms)

    def across(self, plot: Box, at_ns: float) -> float:
        """Where an instant stands."""
        return TimeAxis(plot.x + 10, plot.w - 20, self.whole).x(at_ns)

    @staticmethod
    def plot_of(content: Box) -> Box:
        """The place of the dots."""
        return Box(content.x, content.y + 52, content.w, content.h - 52 - 8)

    def _close_up(self, canvas: Canvas, content: Box) -> None:
        assert self.pause is not None
        foot = 56.0
        box = Box(content.x, content.y + 8, content.w, content.h - 8 - foot)
        self.grid.paint(canvas, box, self.close, round(self.close.to_ns), self.close_slots)
        occupant = self.grid.residency_box(
            box, self.close, self._slot(), self.pause.from_ns, self.pause.to_ns, self.close_slots
        )
        canvas.card(occupant.x - 5, occupant.y - 5, occupant.w + 10, occupant.h + 10, TEXT, radius=10, outline=4)
        # From its token before to the next: the wait itself.
        y = box.bottom + 16
        canvas.line([(occupant.x, y - 6), (occupant.x, y + 6)], TEXT, thickness=3)
        canvas.line([(occupant.x, y), (occupant.right, y)], TEXT, thickness=3)
        canvas.line([(occupant.right, y - 6), (occupant.right, y + 6)], TEXT, thickness=3)
        who, waited = quote(self.run.measure("worst_pause_request")), self.run.measure("worst_pause_ms")
        phrase = self.say("where_it_hurts.waited", who=who, ms=figure(waited, ",.0f"))
        wide = width(phrase.text, SMALL_STRONG)
        x = min(max(occupant.x + occupant.w / 2 - wide / 2, box.x), box.right - wide)
        canvas.text(phrase, x, box.bottom + 52, SMALL_STRONG, TEXT)
        if self.close_slots < self.grid.slots:
            count = figure(self.run.measure("slots_shown", shown=self.close_slots))
            more = self.say("decode_batching.windowed", shown=count, slots=figure(self.run.measure("slots")))
            if x - box.x > width(more.text, SMALL) + 30:
                canvas.text(more, box.x, box.bottom + 52, SMALL, DIM)


@dataclass(frozen=True)
class _Label:
    """A phrase on dots, from x on, on a ground of its own."""

    phrase: Phrase
    x: float
    y: float

    @property
    def ground(self) -> Box:
        """The ground."""
        return Box(self.x - 10, self.y - 32, width(self.phrase.text, STRONG) + 20, 44)
