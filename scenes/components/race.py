"""Runs against each other: output tokens over engine time, and throughput ratios from all their repeats.

Pure functions of time. Knows runs and boxes; the ratios are asked of `tracereel.trace`, not computed here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tracereel.scenes.clock import ease
from tracereel.scenes.components.canvas import Canvas
from tracereel.scenes.components.lettering import width
from tracereel.scenes.phrases import Catalogue, Phrase, figure
from tracereel.scenes.stage import Box
from tracereel.scenes.theme import DIM, FIGURE, HEADING, LINE, PANEL, SMALL, SMALL_STRONG, STRONG, TEXT, Colour
from tracereel.trace.compare import throughput_ratio
from tracereel.trace.measured import Run, measure

_POINTS = 400


@dataclass(frozen=True)
class Contender:
    """A case: its name and colour, the run that is shown for it, and all its repeats."""

    name: Phrase
    colour: Colour
    run: Run
    runs: tuple[Run, ...]


class Curves:
    """Output tokens over engine time, one line a contender."""

    def __init__(self, contenders: Sequence[Contender], end_ns: int, say: Catalogue):
        self._contenders, self._end_ns, self._say = contenders, end_ns, say
        self._most = max(len(contender.run.trace.steps.token_step) for contender in contenders)

    def paint(self, canvas: Canvas, box: Box, now_ns: int) -> None:
        """Draw what has come out by now into a box."""
        plot = Box(box.x, box.y + 84, box.w - 200, box.h - 84 - 62)
        say = self._say.say
        canvas.text(say("throughput_comparison.tokens"), plot.x, plot.y - 36, STRONG, DIM)
        canvas.line([(plot.x, plot.y), (plot.x, plot.bottom), (plot.right, plot.bottom)], LINE, thickness=3)
        top = say(
            "throughput_comparison.total",
            tokens=figure(self._contenders[0].run.measure("output_tokens", t_ns=self._end_ns), ",d"),
        )
        y = self._y(plot, self._most)
        canvas.line([(plot.x, y), (plot.right, y)], LINE, dashes=(8, 10))
        canvas.text(top, plot.x + 14, y - 14, SMALL, DIM)
        end = say(
            "throughput_comparison.end",
            seconds=figure(self._contenders[0].run.measure("engine_time_s", t_ns=self._end_ns), ".1f"),
        )
        canvas.text(end, plot.right, plot.bottom + 40, SMALL, DIM, align=1)
        labels: list[tuple[float, Contender]] = []
        for contender in self._contenders:
            labels.append((self._curve(canvas, plot, contender, now_ns), contender))
        self._labels(canvas, plot, labels, now_ns)

    def _y(self, plot: Box, tokens: float) -> float:
        return plot.bottom - plot.h * 0.94 * tokens / max(self._most, 1)

    def _x(self, plot: Box, t_ns: float) -> float:
        return plot.x + plot.w * min(t_ns / max(self._end_ns, 1), 1.0)

    def _curve(self, canvas: Canvas, plot: Box, contender: Contender, now_ns: int) -> float:
        """Draw one line up to now; returns the height it has reached."""
        steps = contender.run.trace.steps
        ended = contender.run.timeline.steps_ended(now_ns)
        times = steps.end_ns[:ended]
        tokens = steps.first_token[1 : ended + 1]
        pick = np.unique(np.linspace(0, ended - 1, min(ended, _POINTS)).astype(int)) if ended else np.empty(0, int)
        points = [(self._x(plot, 0), self._y(plot, 0))]
        points += [(self._x(plot, float(times[i])), self._y(plot, float(tokens[i]))) for i in pick]
        y = points[-1][1]
        done = now_ns >= contender.run.timeline.end_ns
        if not done and now_ns:
            points.append((self._x(plot, now_ns), y))
        canvas.line(points, contender.colour, thickness=6)
        canvas.disc(*points[-1], 9, contender.colour)
        return y

    def _labels(self, canvas: Canvas, plot: Box, labels: list[tuple[float, Contender]], now_ns: int) -> None:
        """Name and count beside each line's end, kept from overlapping."""
        x = plot.right + 24
        least = 74.0
        at = -1e9
        for y, contender in sorted(labels, key=lambda label: (round(label[0]), label[1].run.timeline.end_ns)):
            at = max(y, at + least, plot.y + 20)
            canvas.text(contender.name, x, at - 4, SMALL_STRONG, contender.colour)
            count = figure(contender.run.measure("output_tokens", t_ns=now_ns), ",d")
            canvas.text(count, x, at + 28, SMALL_STRONG, TEXT)


class Bars:
    """Throughput against the first contender's: a bar each, its pairs as dots, the figure beside it."""

    def __init__(self, contenders: Sequence[Contender], box: Box, say: Catalogue):
        self._contenders, self._box, self._say = contenders, box, say
        base = contenders[0].runs
        self._ratios = [
            {
                part: measure(f"throughput_ratio_{part}", [*other.runs, *base], numerator=len(other.runs))
                for part in ("median", "low", "high", "pairs")
            }
            for other in contenders
        ]
        self._dots = [
            throughput_ratio([run.trace for run in other.runs], [run.trace for run in base]).pairs
            for other in contenders
        ]
        self._most = max(float(ratios["high"].value) for ratios in self._ratios)

    def paint(self, canvas: Canvas, since_s: float) -> None:
        """Draw them, grown for `since_s` seconds."""
        if since_s <= 0:
            return
        rows = self._box.rows(len(self._contenders), 40)
        for i, (contender, row) in enumerate(zip(self._contenders, rows, strict=True)):
            grown = ease((since_s - 0.25 * i) / 1.2)
            if grown:
                with canvas.faded(min(grown * 3, 1)):
                    self._bar(canvas, row, contender, i, grown)

    def _bar(self, canvas: Canvas, row: Box, contender: Contender, index: int, grown: float) -> None:
        say, ratios = self._say.say, self._ratios[index]
        median = figure(ratios["median"], ".2f")
        name = canvas.text(contender.name, row.x, row.y + 34, HEADING, contender.colour)
        if index == 0:
            canvas.text(say("throughput_comparison.baseline"), row.x + name + 18, row.y + 34, SMALL, DIM)
        bar = Box(row.x, row.y + 54, row.w - 230, min(row.h * 0.32, 64))
        canvas.card(*bar.sides, PANEL, radius=10)
        share = float(ratios["median"].value) / self._most
        canvas.card(bar.x, bar.y, max(bar.w * share * grown, 8), bar.h, contender.colour, radius=10)
        for ratio in self._dots[index] if index else ():
            canvas.disc(bar.x + bar.w * ratio / self._most, bar.y + bar.h / 2, 6, TEXT, ease(grown * 2 - 1))
        times = say("throughput_comparison.times", ratio=median)
        canvas.text(times, row.right, bar.y + bar.h / 2 + 22, FIGURE, TEXT, align=1)
        rate = say(
            "throughput_comparison.rate",
            rate=figure(contender.run.measure("output_throughput"), ",.0f"),
        )
        y = bar.bottom + 36
        wide = canvas.text(rate, row.x, y, SMALL, DIM)
        if index:
            spread = say(
                "throughput_comparison.spread",
                low=figure(ratios["low"], ".2f"),
                high=figure(ratios["high"], ".2f"),
                pairs=figure(ratios["pairs"]),
            )
            if wide + 40 + width(spread.text, SMALL) <= row.w:
                canvas.text(spread, row.right, y, SMALL, DIM, align=1)
            else:
                canvas.text(spread, row.x, y + 36, SMALL, DIM)
