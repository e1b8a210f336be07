"""A plot over a few numbers that double: where they stand, their labels below the axis, and lines through medians.

What was measured stands as a table below the axis, so that no figure lies on a line. Knows a box and phrases; not what
is plotted.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tracereel.film.canvas import Canvas
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrase
from tracereel.film.stage import Box
from tracereel.film.theme import LINE, SMALL, SMALL_STRONG, STRONG, TEXT, Colour

HEAD, ROW = 88.0, 36.0
"""What the heading and the key take above a plot, and each line of labels below it."""
_SIDE = 0.06


@dataclass(frozen=True)
class Plot:
    """A plot in a box: `low` to `high` on a logarithmic axis, 0 to `most` upwards, `rows` lines of labels below."""

    box: Box
    low: float
    high: float
    most: float
    rows: int

    @cached_property
    def area(self) -> Box:
        """Where the lines are drawn."""
        return Box(self.box.x, self.box.y + HEAD, self.box.w, self.box.h - HEAD - 10 - ROW * self.rows)

    def x(self, value: float) -> float:
        """The place of a number along the axis."""
        area, span = self.area, math.log2(self.high / self.low)
        share = math.log2(value / self.low) / span if span else 0.5
        return area.x + area.w * (_SIDE + (1 - 2 * _SIDE) * share)

    def y(self, value: float) -> float:
        """The height of a number; what is beyond the edge stands at it."""
        return self.area.bottom - self.area.h * min(max(value / self.most, 0.0), 1.0)

    def frame(self, canvas: Canvas, head: Phrase) -> None:
        """The heading and the axis."""
        area = self.area
        canvas.text(head, area.x, self.box.y + 32, STRONG, TEXT, room=area.w)
        canvas.line([(area.x, area.bottom), (area.right, area.bottom)], LINE, thickness=3)

    @property
    def key_line(self) -> float:
        """The baseline of the key, between the heading and what is drawn."""
        return self.box.y + HEAD - 16

    def labels(
        self, canvas: Canvas, row: int, labels: Mapping[int, Phrase], colour: Colour, alpha: float = 1.0
    ) -> None:
        """One line of labels below the axis, each at its number."""
        y = self.area.bottom + 10 + ROW * (row + 1) - 8
        for value, label in labels.items():
            half = width(label.text, SMALL_STRONG) / 2
            x = min(max(self.x(value), self.box.x + half), self.box.right - half)
            canvas.text(label, x, y, SMALL_STRONG if row else SMALL, colour, alpha, align=0.5)

    def medians(
        self, canvas: Canvas, points: Sequence[tuple[int, float]], colour: Colour, drawn: float, *, dot: float = 8
    ) -> None:
        """A line through medians, each a dot of that radius, drawn from left to right."""
        reached = self.area.x + self.area.w * drawn
        path: list[tuple[float, float]] = []
        for value, height in points:
            x, y = self.x(value), self.y(height)
            if x > reached:
                if path and drawn > 0:
                    before = path[-1]
                    share = (reached - before[0]) / (x - before[0])
                    path.append((reached, before[1] + (y - before[1]) * share))
                break
            path.append((x, y))
        if drawn > 0:
            canvas.line(path, colour, thickness=5)
            for value, height in points:
                if self.x(value) <= reached:
                    canvas.disc(self.x(value), self.y(height), dot, colour)
