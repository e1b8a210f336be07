"""Runs against each other: output tokens over engine time, and throughput ratios from all their repeats.

Pure functions of time. Knows runs and boxes; the ratios are asked of `tracereel.trace`, not computed here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tracereel.film.canvas import Canvas
from tracereel.film.clock import ease
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrase, Phrasebook, figure, shown_as
from tracereel.film.rounding import seconds_figure
from tracereel.film.stage import Box, Spot
from tracereel.film.theme import (
    APART,
    DIM,
    FIGURE,
    GROUND,
    HEADING,
    HEADING_LINE,
    LABEL_LINE,
    LINE,
    PANEL,
    SMALL,
    SMALL_STRONG,
    STRONG,
    TEXT,
    UNDER_PLOT,
    Colour,
)
from tracereel.film.time_axis import View
from tracereel.trace.analysis.pairs import throughput_ratio
from tracereel.trace.analysis.queries import Run, measure
from tracereel.trace.state.columns import Ints

_POINTS = 400
"""Points of a curve at most."""
_HIGHEST = 0.94
"""The share of the plot's height at which all tokens are."""
_MARK = 7.0
"""Half of a mark's width on a curve."""
_BETWEEN, _MOST_BETWEEN = 0.04, 40.0
"""What is between the rows of contenders: a share of the height, and the most in units."""
_NAMED, _SAID = 48.0, 44.0
"""What the name above a bar takes of its row, and what is said below it."""
_LOWEST_BAR, _HIGHEST_BAR = 14.0, 64.0
"""How high a bar is at least and at most."""
_AFTER_RATE = 30.0
"""What is at least between the rate below a bar and the spread."""


@dataclass(frozen=True)
class Contender:
    """A case: its name and colour, the run that is shown for it, and all its repeats."""

    name: Phrase
    colour: Colour
    run: Run
    runs: tuple[Run, ...]


def rows_of(contenders: Sequence[Contender], box: Box) -> list[Box]:
    """The row of each contender, one below the other."""
    return box.rows(len(contenders), min(_MOST_BETWEEN, box.h * _BETWEEN))


class Curves:
    """Output tokens over engine time, one line a contender, each from its own beginning.

    `main` is the contender whose clock is read, `span_ns` how much of it is shown.
    """

    def __init__(self, contenders: Sequence[Contender], main: Run, span_ns: int, say: Phrasebook):
        self._contenders, self._main, self._span_ns, self._say = contenders, main, max(span_ns, 1), say
        spans = {run.timeline.end_ns - run.timeline.begin_ns: run for run in (each.run for each in contenders)}
        self._longest = spans.get(span_ns, main)
        self._most = max(len(contender.run.trace.steps.token_step) for contender in contenders)

    def paint(self, canvas: Canvas, box: Box, since_ns: int) -> None:
        """Draw what has come out within `since_ns` of the beginning into a box."""
        plot = self.plot(box)
        say, end_ns = self._say.say, self._main.timeline.begin_ns + self._span_ns
        canvas.text(say("throughput_comparison.tokens"), plot.x, box.y + LABEL_LINE, STRONG, DIM)
        canvas.line([(plot.x, plot.y), (plot.x, plot.bottom), (plot.right, plot.bottom)], LINE, thickness=3)
        top = say(
            "throughput_comparison.total",
            tokens=figure(self._main.measure("output_tokens", t_ns=end_ns), ",d"),
        )
        y = self.y(plot, self._most)
        canvas.line([(plot.x, y), (plot.right, y)], LINE, dashes=(8, 10))
        wide = canvas.text(top, plot.x + 14, y - 14, SMALL, DIM)
        self._ends(canvas, plot, since_ns)
        labels: list[tuple[float, Contender]] = []
        for contender in self._contenders:
            labels.append((self._curve(canvas, plot, contender, since_ns), contender))
        self._labels(canvas, plot, labels, since_ns)
        self._gap(canvas, plot, since_ns, plot.x + 14 + wide + APART)

    def _gap(self, canvas: Canvas, plot: Box, since_ns: int, free_from: float) -> None:
        """Between the ends of the run that was done first and of the last: by how much later that was.

        Only once both are done, where it follows from their times as they are printed, and where it has room, which
        begins at `free_from`.
        """
        spans = {each.run: each.run.timeline.end_ns - each.run.timeline.begin_ns for each in self._contenders}
        first, last = min(spans, key=lambda run: spans[run]), self._longest
        if first is last or since_ns < spans[last]:
            return
        times = [self._seconds(run).figures[0] for run in (first, last)]
        later = figure(measure("later_by_s", [first, last]), times[1].style)
        printed = shown_as(float(times[1].text) - float(times[0].text), times[1].style)
        label = self._say.say("throughput_comparison.later", seconds=later)
        left, right, y = self.x(plot, spans[first]), self.x(plot, spans[last]), self.y(plot, self._most)
        if printed != later.text or times[0].style != times[1].style:
            return
        middle, wide = (left + right) / 2, width(label.text, SMALL_STRONG)
        if right - left < wide + 2 * _MARK or middle - wide / 2 < free_from:
            return
        canvas.line([(left, y), (right, y)], TEXT, thickness=3)
        canvas.text(label, middle, y - 14, SMALL_STRONG, TEXT, align=0.5)

    def _ends(self, canvas: Canvas, plot: Box, since_ns: int) -> None:
        """Under the axis: how long the longest run takes, and when each that is done was so, where there is room."""
        y = plot.bottom + UNDER_PLOT
        left = plot.right - canvas.text(self._seconds(self._longest), plot.right, y, SMALL, DIM, align=1)
        spans = [(each.run.timeline.end_ns - each.run.timeline.begin_ns, each) for each in self._contenders]
        for span_ns, contender in sorted(spans, key=lambda span: -span[0]):
            if span_ns > since_ns or contender.run is self._longest:
                continue
            x, label = self.x(plot, span_ns), self._seconds(contender.run)
            half = width(label.text, SMALL_STRONG) / 2
            if plot.x + half <= x <= left - 24 - half:
                reached = self.y(plot, len(contender.run.trace.steps.token_step))
                canvas.line([(x, reached + 14), (x, plot.bottom)], contender.colour, 0.7, dashes=(6, 8))
                canvas.text(label, x, y, SMALL_STRONG, contender.colour, align=0.5)
                left = x - half

    def _seconds(self, run: Run) -> Phrase:
        return self._say.say("throughput_comparison.end", seconds=seconds_figure(run.measure("span_s")))

    def plot(self, box: Box) -> Box:
        """The place of the curves in a box: next to them as much room as the widest of their labels takes."""
        beside = max(width(contender.name.text, SMALL_STRONG) for contender in self._contenders)
        return Box(box.x, box.y + 76, box.w - beside - 40, box.h - 76 - 50)

    def y(self, plot: Box, tokens: float) -> float:
        """The height of a number of tokens."""
        return plot.bottom - plot.h * _HIGHEST * tokens / max(self._most, 1)

    def x(self, plot: Box, since_ns: float) -> float:
        """Where an instant stands."""
        return View(0, self._span_ns).along(plot).within(since_ns)

    def _curve(self, canvas: Canvas, plot: Box, contender: Contender, since_ns: int) -> float:
        """Draw one line up to now; returns the height it has reached."""
        steps, timeline = contender.run.trace.steps, contender.run.timeline
        now_ns = timeline.begin_ns + since_ns
        ended = timeline.steps_ended(now_ns)
        times = steps.end_ns[:ended] - timeline.begin_ns
        tokens = steps.first_token[1 : ended + 1]
        pick = np.unique(np.linspace(0, ended - 1, min(ended, _POINTS)).astype(int)) if ended else np.empty(0, int)
        points = [(self.x(plot, 0), self.y(plot, 0)), *self._points(plot, times[pick], tokens[pick])]
        y = points[-1][1]
        if now_ns < timeline.end_ns and since_ns:
            points.append((self.x(plot, since_ns), y))
        canvas.line(points, contender.colour, thickness=6)
        canvas.disc(*points[-1], 9, contender.colour)
        return y

    def _points(self, plot: Box, since_ns: Ints, tokens: Ints) -> list[tuple[float, float]]:
        """Where `x` and `y` place each of these instants and numbers of tokens, in one go."""
        xs = plot.x + plot.w * np.clip(since_ns / self._span_ns, 0.0, 1.0)
        ys = plot.bottom - plot.h * _HIGHEST * tokens / max(self._most, 1)
        return list(zip(xs.tolist(), ys.tolist(), strict=True))

    def where(self, run: Run, request: int, box: Box, since_ns: int) -> list[Spot]:
        """On the curve of its run: the instant of a request's last token, once it is there."""
        times, timeline = run.timeline.token_times_of(request), run.timeline
        ended = request in timeline.at(timeline.begin_ns + since_ns).finished
        if not times or not ended or all(contender.run is not run for contender in self._contenders):
            return []
        plot, steps = self.plot(box), run.trace.steps
        tokens = int(steps.first_token[timeline.steps_ended(times[-1])])
        x, y = self.x(plot, times[-1] - timeline.begin_ns), self.y(plot, tokens)
        return [Spot(Box(x - _MARK, y - _MARK, 2 * _MARK, 2 * _MARK), round=True)]

    def _labels(self, canvas: Canvas, plot: Box, labels: list[tuple[float, Contender]], since_ns: int) -> None:
        """Name and count next to each line's end, kept from overlapping and within the plot."""
        x, least = plot.right + 24, 74.0
        ordered = sorted(labels, key=lambda label: (round(label[0]), label[1].run.timeline.end_ns))
        places: list[float] = []
        for y, _ in ordered:
            places.append(max(y, places[-1] + least if places else plot.y + 24))
        lowest = plot.bottom - 30
        for i in range(len(places) - 1, -1, -1):
            places[i] = min(places[i], lowest)
            lowest = places[i] - least
        for at, (_, contender) in zip(places, ordered, strict=True):
            canvas.text(contender.name, x, at - 4, SMALL_STRONG, contender.colour)
            t_ns = contender.run.timeline.begin_ns + since_ns
            count = figure(contender.run.measure("output_tokens", t_ns=t_ns), ",d")
            canvas.text(count, x, at + 28, SMALL_STRONG, TEXT)


class Bars:
    """Throughput against the first contender's: a bar each, the pairs of runs as dots, the figure next to it."""

    def __init__(self, contenders: Sequence[Contender], box: Box, say: Phrasebook):
        self._contenders, self._box, self._say = contenders, box, say
        base = contenders[0].runs
        self._dots = [
            throughput_ratio([run.trace for run in other.runs], [run.trace for run in base]).pairs
            for other in contenders
        ]
        self._ratios = [
            {
                part: measure(f"throughput_ratio_{part}", [*other.runs, *base], numerator=len(other.runs))
                for part in (("median", "low", "high", "pairs") if dots else ("median",))
            }
            for other, dots in zip(contenders, self._dots, strict=True)
        ]
        self._most = max(float(ratios.get("high", ratios["median"]).value) for ratios in self._ratios)
        self._rows = rows_of(contenders, box)
        self._said = [self._says(i) for i in range(len(contenders))]
        # The figures stand at the bars' ends.
        self._beside = max(210.0, *(width(self._times(i).text, FIGURE) + 36 for i in range(len(contenders))))

    def paint(self, canvas: Canvas, since_s: float) -> None:
        """Draw them, grown for `since_s` seconds."""
        if since_s <= 0:
            return
        for i, (contender, row) in enumerate(zip(self._contenders, self._rows, strict=True)):
            grown = ease((since_s - 0.25 * i) / 1.2)
            if grown:
                with canvas.faded(min(grown * 3, 1)):
                    self._bar(canvas, row, contender, i, grown)

    def bar_box(self, index: int) -> Box:
        """The place of a contender's bar, full length."""
        row = self._rows[index]
        # Above the bar its name, below it what it is about.
        high = min(max(row.h - _NAMED - _SAID, _LOWEST_BAR), _HIGHEST_BAR)
        return Box(row.x, row.y + _NAMED, row.w - self._beside, high)

    def _times(self, index: int) -> Phrase:
        return self._say.say("throughput_comparison.times", ratio=figure(self._ratios[index]["median"], ".2f"))

    def share(self, index: int) -> float:
        """How much of the full length a contender's bar takes once it has grown."""
        return float(self._ratios[index]["median"].value) / self._most

    def _bar(self, canvas: Canvas, row: Box, contender: Contender, index: int, grown: float) -> None:
        say, bar = self._say.say, self.bar_box(index)
        name = canvas.text(contender.name, row.x, row.y + HEADING_LINE, HEADING, contender.colour)
        if index == 0:
            canvas.text(say("throughput_comparison.baseline"), row.x + name + 18, row.y + HEADING_LINE, SMALL, DIM)
        canvas.card(*bar.sides, PANEL, radius=10)
        canvas.card(bar.x, bar.y, max(bar.w * self.share(index) * grown, 8), bar.h, contender.colour, radius=10)
        for ratio in self._dots[index] if index else ():
            at = bar.x + bar.w * ratio / self._most, bar.y + bar.h / 2
            canvas.disc(*at, 8, GROUND, ease(grown * 2 - 1))
            canvas.disc(*at, 6, TEXT, ease(grown * 2 - 1))
        canvas.text(self._times(index), row.right, bar.y + bar.h / 2 + 22, FIGURE, TEXT, align=1)
        y, (rate, spread) = bar.bottom + UNDER_PLOT, self._said[index]
        wide = canvas.text(rate, row.x, y, SMALL, DIM)
        if spread is not None:
            canvas.text(spread, self._spread_right, y, SMALL, DIM, align=1, room=row.w - wide - _AFTER_RATE)

    def _says(self, index: int) -> tuple[Phrase, Phrase | None]:
        """What is said below a contender's bar: its rate, and of several pairs how far their ratios are apart."""
        say, ratios = self._say.say, self._ratios[index]
        measured = self._contenders[index].run.measure("output_throughput")
        rate = say("throughput_comparison.rate", rate=figure(measured, ",.0f"))
        if not index or len(self._dots[index]) < 2:
            return rate, None
        low, high = (figure(ratios[part], ".2f") for part in ("low", "high"))
        return rate, say("throughput_comparison.spread", low=low, high=high, pairs=figure(ratios["pairs"]))

    @cached_property
    def _spread_right(self) -> float:
        """Where the spreads end: below the bars, clear of the figures at their ends, where all have room there."""
        bar = self.bar_box(0)
        taken = (
            width(rate.text, SMALL) + _AFTER_RATE + width(spread.text, SMALL)
            for rate, spread in self._said
            if spread is not None
        )
        return bar.right if all(each <= bar.w for each in taken) else self._rows[0].right
