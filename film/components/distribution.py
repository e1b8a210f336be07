"""Latencies as pictures that build as they become known: a swarm of dots, or a histogram, over one axis.

Pure functions of the engine time that has passed. Know values, runs and boxes; the values are asked of
`tracereel.trace`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from tracereel.film.canvas import Canvas
from tracereel.film.colours import RequestColours
from tracereel.film.stage import Box, Spot
from tracereel.film.theme import GROUND, LINE, PANEL, TEXT, Colour
from tracereel.trace.analysis.latency import Latencies

_BINS = 48
_DOT = 10.0
_LEAST_DOT = 2.5
_ASIDE = 0.012
"""So far from its value, as a share of the axis, may a dot stand for the sake of others."""
_NEW_NS_SHARE = 0.02
"""The share of the time shown in which a dot is new."""


@dataclass(frozen=True)
class Axis:
    """From a value (ms) at the left to one at the right; even in the value, or in its logarithm."""

    low: float
    high: float
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """How far to the right a value stands, 0 to 1."""
        if self.high <= self.low:
            return 0.5
        if self.logarithmic:
            low = max(self.low, 1e-6)
            return float(min(max(np.log(max(value, low) / low) / np.log(self.high / low), 0.0), 1.0))
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def marks(self, most: int) -> list[float]:
        """Round values on the axis, at most so many: 1, 2 or 5 times a power of ten, or steps of such a size."""
        if self.high <= self.low or (self.logarithmic and self.low <= 0):
            return []
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            series = [[d * 10.0**p for p in powers for d in digits] for digits in ((1, 2, 5), (1,))]
        else:
            size = math.floor(math.log10(self.high - self.low))
            steps = [d * 10.0**p for p in (size - 1, size, size + 1) for d in (1, 2, 5)]
            counts = [(math.ceil(self.low / step), math.floor(self.high / step) + 1, step) for step in steps]
            series = [[step * i for i in range(first, end)] for first, end, step in counts]
        kept = [[value for value in values if self.low <= value <= self.high] for values in series]
        return next((values for values in kept if len(values) <= most), [])


def _outwards(start: int, count: int) -> Iterator[int]:
    """Numbers below `count` from `start` on, those that are nearest first."""
    for away in range(count):
        yield from {i for i in (start - away, start + away) if 0 <= i < count}


class Swarm:
    """A dot a value, in the colour of its request, stacked so that none lies on another while there is room."""

    def __init__(self, values: Latencies, axis: Axis, begin_ns: int, colours: RequestColours):
        self._values, self._axis, self._begin_ns, self._colours = values, axis, begin_ns, colours
        self.places = lru_cache(maxsize=4)(self._places)
        """(x, y, radius) of every dot in a box, in the order in which they become known."""

    def _places(self, box: Box) -> list[tuple[float, float, float]]:
        """The largest dots with which none has to stand far from its value."""
        radius = _DOT
        while True:
            found, aside = self._stacked(box, radius)
            if aside <= _ASIDE * box.w or radius <= _LEAST_DOT:
                return found
            radius -= 0.5

    def _stacked(self, box: Box, radius: float) -> tuple[list[tuple[float, float, float]], float]:
        """Each dot in the nearest column that has room, above those that are there; and the farthest way aside."""
        pitch = 2 * radius
        columns, levels = max(int(box.w // pitch), 1), max(int(box.h // pitch), 1)
        heights = [0] * columns
        found, farthest = [], 0.0
        for value in self._values.value_ms.tolist():
            x = box.x + radius + (box.w - pitch) * self._axis.share(value)
            own = min(int((x - box.x) / pitch), columns - 1)
            free = next((i for i in _outwards(own, columns) if heights[i] < levels), own)
            level = heights[free] % levels
            heights[free] += 1
            at = box.x + pitch * free + radius
            farthest = max(farthest, abs(at - x) - radius)
            found.append((at, box.bottom - radius - pitch * level, radius))
        return found, farthest

    def where(self, request: int, box: Box, since_ns: int) -> list[Spot]:
        """The dots of a request that are known `since_ns` after the beginning."""
        known = self._values.known(self._begin_ns + since_ns)
        own = zip(self.places(box)[:known], self._values.request[:known].tolist(), strict=True)
        dots = (dot for dot, whose in own if whose == request)
        return [Spot(Box(x - radius, y - radius, 2 * radius, 2 * radius), round=True) for x, y, radius in dots]

    def paint(self, canvas: Canvas, box: Box, since_ns: int, shown_ns: int) -> None:
        """Draw what is known `since_ns` after the beginning."""
        now = self._begin_ns + since_ns
        for i, (x, y, radius) in enumerate(self.places(box)[: self._values.known(now)]):
            age = (now - int(self._values.at_ns[i])) / max(shown_ns * _NEW_NS_SHARE, 1)
            canvas.disc(x, y, radius, self._colours[int(self._values.request[i])])
            if age < 1:
                canvas.disc(x, y, radius + 6 * age + 2, TEXT, 1 - age, outline=2)


class Histogram:
    """How many values fell into each bin; bars as high as their share of the fullest bin of all that is compared."""

    def __init__(self, values: Latencies, axis: Axis, begin_ns: int, colour: Colour):
        self._values, self._begin_ns, self._colour = values, begin_ns, colour
        self._bins = np.array(
            [int(axis.share(value) * (_BINS - 1e-9)) for value in values.value_ms.tolist()], dtype=int
        )

    @property
    def fullest(self) -> int:
        """Values in the fullest bin at the end."""
        return int(np.bincount(self._bins, minlength=1).max()) if len(self._bins) else 0

    def heights(self, since_ns: int) -> list[int]:
        """Values in each bin, known `since_ns` after the beginning."""
        known = self._values.known(self._begin_ns + since_ns)
        heights: list[int] = np.bincount(self._bins[:known], minlength=_BINS).tolist()
        return heights

    def paint(self, canvas: Canvas, box: Box, since_ns: int, fullest: int) -> None:
        """Draw what is known `since_ns` after the beginning."""
        pitch = box.w / _BINS
        for i, count in enumerate(self.heights(since_ns)):
            if count:
                # A single value is still to be seen.
                high = max(box.h * count / max(fullest, 1), 3.0)
                canvas.box(box.x + i * pitch + 1, box.bottom - high, pitch - 2, high, self._colour)


def lane(canvas: Canvas, box: Box, axis: Axis, median: float | None, shown: float) -> None:
    """The ground of a distribution, and a line at its median where that is known."""
    canvas.box(*box.sides, PANEL)
    canvas.line([(box.x, box.bottom), (box.right, box.bottom)], LINE)
    if median is not None and shown:
        x = box.x + box.w * axis.share(median)
        canvas.line([(x, box.y), (x, box.bottom)], GROUND, shown, thickness=7)
        canvas.line([(x, box.y), (x, box.bottom)], TEXT, shown, thickness=3)
