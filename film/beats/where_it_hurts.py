"""Where it hurts: the worst moment of a run, found by query, shown and explained.

What the viewer should understand: averages hide what a user felt. Beat one: every gap between two tokens of a
request, a dot at its moment, as high above zero as it was long; most lie on one line. Beat two: the highest dot, found
by asking the trace, and how many requests waited just as long. Beat three: close up on that very step, slots against
time, played once more: the step that ends the wait takes as much of the film as it took of the run. What the trace says
of it is said: it read another request's prompt, or the slot had been taken away; else that it names no cause.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from tracereel.film.beat import Beat, Caption
from tracereel.film.canvas import Canvas
from tracereel.film.clock import Script, ease
from tracereel.film.components.distribution import Axis
from tracereel.film.components.seen import stays_of
from tracereel.film.components.slot_grid import SlotGrid
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrase, figure, quote
from tracereel.film.registry import FULL_LENGTH, scene
from tracereel.film.rounding import wait_figure
from tracereel.film.show import Show
from tracereel.film.stage import Box, Spot
from tracereel.film.theme import (
    DIM,
    GROUND,
    LINE,
    PANEL,
    SMALL,
    SMALL_STRONG,
    STRONG,
    TEXT,
)
from tracereel.film.time_axis import TimeAxis, View
from tracereel.trace.analysis.latency import ITL, Latencies
from tracereel.trace.analysis.moments import tied_with, worst_pause
from tracereel.trace.analysis.queries import Run, measure, slot_ranges
from tracereel.trace.state.columns import Ints

_SWEEP_S, _FOUND_S, _ZOOM_S, _AGAIN_S, _CLOSE_S = 7.0, 4.2, 1.2, 4.2, 1.8
"""The least that each part takes: the dots, the longest wait, the way to it, its step once more, and its end."""
_AROUND_STEPS = 5
_LETTERED_STEP = 84.0
"""Half of the close-up's steps are at least so wide, in units: words fit into them."""
_THERE = 0.25
"""The share of the close-up that is there when it comes into view, of what lies before the wait at most."""
_CLOSE_SLOTS = 10
"""Slots in the close-up: their rows are high enough for words."""
_MOST_DOTS = 6000
_DOT = 8.0
_OVER_LINE = 16.0
"""How far above the median's line a word stands that would be crossed by it."""
_BESIDE, _BESIDE_NARROW = 264.0, 84.0
"""Units next to the dots, for what stands at the axis; in a frame that is not wide its floor alone does."""


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
        self.axis = Axis(0.0, 1.0)
        self.labels = lru_cache(maxsize=4)(self._labels)
        self.spots = lru_cache(maxsize=4)(self._spots)
        script = Script(timeline.begin_ns).run(round(self.whole.to_ns), _SWEEP_S)
        if self.pause is not None:
            self.axis = Axis(0.0, float(self.pause.to_ns - self.pause.from_ns) / 1e6)
            self.close = self._steps_near()
            self.tied = tied_with(trace, self.pause)
            self.close_slots = self._slots_near()
            self.grid = SlotGrid(self.run, show.say, self.colours, self.close_slots)
        self.captions = [Caption(0.0, self.say("where_it_hurts.gaps"))]
        self.zoom_s = self._tell()
        script.hold(self._end_s() - _SWEEP_S)
        self.clock = script.clock()

    def _slots_of_step(self) -> dict[int, int]:
        """The slots of the members of the step that ended the longest wait, by their requests."""
        assert self.pause is not None
        steps = self.run.trace.steps
        members = steps.members(self.pause.step)
        return dict(zip(steps.member_request[members].tolist(), steps.member_slot[members].tolist(), strict=True))

    def _steps_near(self) -> View:
        """The close-up's stretch: some steps before the wait's and up to two after it, those with room for words."""
        assert self.pause is not None
        steps, step = self.run.trace.steps, self.pause.step
        first, last = max(step - _AROUND_STEPS, 0), min(step + 2, len(steps) - 1)

        def narrow() -> bool:
            took = steps.end_ns[first : last + 1] - steps.start_ns[first : last + 1]
            span = int(steps.end_ns[last] - steps.start_ns[first])
            return bool(self.stage.content.w * np.median(took) < _LETTERED_STEP * span)

        while narrow() and first < step - 1:
            first += 1
        if narrow():
            last = min(step + 1, last)
        return View(int(steps.start_ns[first]), int(steps.end_ns[last]) + 1)

    def _slots_near(self) -> range:
        """The slots of the close-up: around one of the longest waits, if it can be with a prompt that the step read."""
        assert self.pause is not None
        steps, slots, seats = self.run.trace.steps, self.run.trace.header.slots, self._slots_of_step()
        members = steps.members(self.pause.step)
        read = steps.member_slot[members][~steps.member_decode[members]].tolist()
        waits = [seats[request] for request in (self.pause.request, *self.tied) if request in seats]
        pairs = [(wait, prompt) for wait in waits for prompt in read if wait != prompt]
        own, near = min(pairs, key=lambda pair: abs(pair[0] - pair[1]), default=(waits[0], waits[0]))
        if abs(near - own) >= _CLOSE_SLOTS:
            own = near = waits[0]
        middle = (own + near) // 2
        first = min(max(middle - _CLOSE_SLOTS // 2, 0), max(slots - _CLOSE_SLOTS, 0))
        return range(first, min(first + _CLOSE_SLOTS, slots))

    def beat(self) -> Beat:
        """All of it."""
        live = self._live if self.pause is not None else None
        name = self.say("where_it_hurts.name")
        told = tuple(self.captions), self.clock, (self.run,)
        return Beat("where_it_hurts", name, *told, self.paint, live, where=self.where)

    def _tell(self) -> float:
        """Write the captions; the second at which the close-up begins."""
        say, run = self.say, self.run
        if self.pause is None:
            self.captions.append(Caption(self.captions[0].read_s, say("where_it_hurts.none")))
            return _SWEEP_S
        who = quote(run.measure("worst_pause_request"))
        times = figure(run.measure("worst_pause_over_median"), ",.1f")
        key, count = "worst_tied" if len(self.tied) > 1 else "worst", self._count()
        said = say(f"where_it_hurts.{key}", who=who, ms=self._waited(), times=times, count=count)
        found = Caption(_SWEEP_S, said)
        zoom_s = max(_SWEEP_S + _FOUND_S, found.read_s)
        self.captions += [found, Caption(zoom_s, self._why(who))]
        return zoom_s

    def _end_s(self) -> float:
        """When all has been seen and read."""
        shown = self.zoom_s + _ZOOM_S + _AGAIN_S + _CLOSE_S if self.pause is not None else _SWEEP_S + 1.5
        return max(shown, self.captions[-1].read_s)

    def _count(self) -> Phrase:
        return figure(self.run.measure("worst_pause_requests"))

    def _waited(self) -> Phrase:
        return wait_figure(self.run.measure("worst_pause_ms"))

    def _live(self, t_ns: int) -> Phrase:
        return self.say("where_it_hurts.known", n=figure(self.run.measure("latency_n", metric=ITL, t_ns=t_ns), ",d"))

    def _why(self, who: Phrase) -> Phrase:
        assert self.pause is not None
        key, named = f"where_it_hurts.{self.pause.cause}", {"who": who}
        if self.pause.cause in ("prefill", "prefill_apart"):
            named["tokens"] = figure(self.run.measure("worst_pause_prefill_tokens"), ",d")
        return self.say(key, **named)

    def _near(self, film_s: float) -> float:
        """How far the close-up has come."""
        return ease((film_s - self.zoom_s) / _ZOOM_S) if self.pause is not None else 0.0

    def where(self, run: Run, request: int, film_s: float) -> list[Spot]:
        """The dot of a request's longest wait so far, then its stays in the close-up."""
        near = self._near(film_s)
        if run is not self.run or 0 < near < 1:
            return []
        if near:
            box, reached_ns = self._close_box(self.stage.content), self._reached_ns(film_s - self.zoom_s - _ZOOM_S)
            return stays_of(self.grid, request, box, self.close, reached_ns)
        dots, plot = self.dots, self.plot_of(self.stage.content)
        own = np.flatnonzero((dots.request == request) & (dots.at_ns <= self.clock.engine_ns(film_s)))
        if not len(own):
            return []
        i = own[np.argmax(dots.value_ms[own])]
        x, y = self.across(plot, int(dots.at_ns[i])), self.height(plot, float(dots.value_ms[i]))
        return [Spot(Box(x - _DOT / 2, y - _DOT / 2, _DOT, _DOT), round=True)]

    def paint(self, canvas: Canvas, film_s: float) -> None:
        """Draw the dots, then the close-up, at a second of film."""
        near = self._near(film_s)
        now_ns = self.clock.engine_ns(film_s)
        content = self.stage.content
        if near < 1:
            with canvas.faded(1 - min(near * 2.5, 1)):
                self._dots(canvas, content, now_ns, film_s)
        if near > 0.4:
            with canvas.faded((near - 0.4) / 0.6):
                self._close_up(canvas, content, film_s - self.zoom_s - _ZOOM_S)

    def _dots(self, canvas: Canvas, content: Box, now_ns: int, film_s: float) -> None:
        plot = self.plot_of(content)
        canvas.text(self.axis_name, content.x, content.y + 28, STRONG, DIM, room=content.w)
        canvas.box(*plot.sides, PANEL)
        come = ease((film_s - _SWEEP_S) / 1.6) if self.pause is not None else 0.0
        labels, covered = self.labels(plot) if come else ((), frozenset())
        shown = int(np.searchsorted(self.dots.at_ns, now_ns, side="right"))
        for i, (x, y, request) in enumerate(self.spots(plot)[:shown]):
            # Under a label it is not seen, and shall not shine through when all of this fades.
            alpha = max(1 - 3 * come, 0.0) if i in covered else 1.0
            canvas.disc(x, y, _DOT / 2, self.colours[request], alpha)
        self._zero(canvas, plot)
        if now_ns < self.whole.to_ns:
            x = self.across(plot, now_ns)
            canvas.line([(x, plot.y), (x, plot.bottom)], TEXT, 0.5)
        if self.pause is None or not come:
            return
        y = self._median_height(plot)
        canvas.line([(plot.x, y), (plot.right, y)], TEXT, come, thickness=3, dashes=(10, 10))
        canvas.disc(*self._worst(plot), 18 + 30 * (1 - come), TEXT, come, outline=4)
        told = max(1.5 * come - 0.5, 0.0)
        for label in labels:
            canvas.card(*label.ground.sides, GROUND, told, radius=8)
            canvas.text(label.phrase, label.x, label.y, STRONG, TEXT, told)

    def _spots(self, plot: Box) -> list[tuple[float, float, int]]:
        """Where each dot stands, and whose it is."""
        xs = (self.across(plot, at_ns) for at_ns in self.dots.at_ns.tolist())
        ys = (self.height(plot, value) for value in self.dots.value_ms.tolist())
        return list(zip(xs, ys, self.dots.request.tolist(), strict=True))

    def _labels(self, plot: Box) -> tuple[tuple["_Label", ...], frozenset[int]]:
        """What most of the waits are like, at the axis; the longest; and which dots lie under that."""
        xs, ys = np.array([spot[:2] for spot in self.spots(plot)]).reshape(-1, 2).T
        median = self.run.measure("latency_percentile_ms", metric=ITL, percentile=50)
        said, line = self.say("where_it_hurts.median", ms=wait_figure(median)), self._median_height(plot)
        at_median = _Label(said, plot.right + 16, min(line + 10, plot.bottom - 44))
        if not self.stage.wide:
            # Above the line, where few dots are; below it where the longest wait's label stands above.
            near = line - self._worst(plot)[1] < 2 * at_median.ground.h
            at = line + at_median.ground.h if near else line - 2 * _OVER_LINE
            at_median = _Label(said, plot.right - width(said.text, STRONG) - 20, at)
        phrase = self.say("where_it_hurts.ms", value=self._waited())
        x, y = self._worst(plot)
        left = x + (34 if x < plot.x + plot.w * 0.7 else -34 - width(phrase.text, STRONG))
        beside = _Label(phrase, left, y + 9)
        if abs(line - y) < beside.ground.h:
            beside = _Label(phrase, left, min(y, line) - _OVER_LINE)
        inside = np.zeros(len(xs), dtype=bool)
        for ground in (at_median.ground, beside.ground):
            across = (xs + _DOT / 2 >= ground.x) & (xs - _DOT / 2 <= ground.right)
            inside |= across & (ys + _DOT / 2 >= ground.y) & (ys - _DOT / 2 <= ground.bottom)
        return (at_median, beside), frozenset(np.flatnonzero(inside).tolist())

    def _zero(self, canvas: Canvas, plot: Box) -> None:
        """The floor is zero, and says so."""
        canvas.line([(plot.x, plot.bottom), (plot.right, plot.bottom)], LINE, thickness=3)
        floor = measure("axis_value", [], low=self.axis.low, high=self.axis.high, share=0.0)
        nothing = self.say("where_it_hurts.ms", value=figure(floor, ".0f"))
        canvas.text(nothing, plot.right + 16, plot.bottom + 2, SMALL, DIM)

    def _worst(self, plot: Box) -> tuple[float, float]:
        """Where the longest wait stands."""
        assert self.pause is not None
        return self.across(plot, self.pause.to_ns), self.height(plot, self.axis.high)

    def _median_height(self, plot: Box) -> float:
        return self.height(plot, float(self.run.measure("latency_percentile_ms", metric=ITL, percentile=50).value))

    def height(self, plot: Box, value_ms: float) -> float:
        """Where a wait of so many milliseconds stands."""
        return plot.bottom - plot.h * 0.9 * self.axis.share(value_ms)

    def across(self, plot: Box, at_ns: float) -> float:
        """Where an instant stands."""
        return TimeAxis(plot.x + 10, plot.w - 20, self.whole).x(at_ns)

    def plot_of(self, content: Box) -> Box:
        """The place of the dots."""
        beside = _BESIDE if self.stage.wide else _BESIDE_NARROW
        return Box(content.x, content.y + 52, content.w - beside, content.h - 52 - 8)

    def _close_up(self, canvas: Canvas, content: Box, since_s: float) -> None:
        """The steps around the wait, played once more since a second of film."""
        assert self.pause is not None
        close, first = self.close, self.close_slots.start
        box, reached_ns = self._close_box(content), self._reached_ns(since_s)
        self.grid.paint(canvas, box, close, reached_ns)
        if reached_ns <= self.pause.from_ns:
            return
        until_ns = min(self.pause.to_ns, reached_ns)
        slots = self._slots_of_step()
        for request in self.tied:
            if slots.get(request, -1) in self.close_slots:
                residency = self.grid.residency_box(box, close, slots[request] - first, self.pause.from_ns, until_ns)
                own = request == self.pause.request
                canvas.card(*residency.grown(5).sides, TEXT, radius=10, outline=5 if own else 3)
        self._measure_wait(canvas, box, until_ns)

    @staticmethod
    def _close_box(content: Box) -> Box:
        """The place of the close-up's slots, with room below them for what is said of the wait."""
        return Box(content.x, content.y + 8, content.w, content.h - 8 - 56)

    def _reached_ns(self, since_s: float) -> int:
        """How far the close-up has been played once more."""
        assert self.pause is not None
        close, share = self.close, min(max(since_s / _AGAIN_S, 0.0), 1.0)
        from_ns = min(close.from_ns + (close.to_ns - close.from_ns) * _THERE, self.pause.from_ns)
        return round(from_ns + share * (close.to_ns - from_ns))

    def _measure_wait(self, canvas: Canvas, box: Box, until_ns: int) -> None:
        """From the token before to the next: the wait itself, and once it is over how long it was."""
        assert self.pause is not None
        axis = self.close.along(box)
        left, right, y = axis.x(self.pause.from_ns), axis.x(until_ns), box.bottom + 16
        for x in (left, right):
            canvas.line([(x, y - 6), (x, y + 6)], TEXT, thickness=3)
        canvas.line([(left, y), (right, y)], TEXT, thickness=3)
        x = box.right
        if until_ns == self.pause.to_ns:
            who = quote(self.run.measure("worst_pause_request"))
            key = "waited_tied" if len(self.tied) > 1 else "waited"
            phrase = self.say(f"where_it_hurts.{key}", who=who, count=self._count(), ms=self._waited())
            wide = width(phrase.text, SMALL_STRONG)
            x = min(max((left + right) / 2 - wide / 2, box.x), box.right - wide)
            canvas.text(phrase, x, box.bottom + 52, SMALL_STRONG, TEXT)
        if len(self.close_slots) < self.run.trace.header.slots:
            count = figure(self.run.measure("slots_drawn", which=slot_ranges(self.grid.drawn())))
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
