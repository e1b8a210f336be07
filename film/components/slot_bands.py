"""Slots against engine time from afar, several merged into a band: how many of them decode, prefill, or are idle.

A band's height is all of its slots. From below: the share that decodes, that prefills, and that is idle while requests
wait; what is left is idle for want of work. Each is an average over a column of the picture, weighted by time. Knows
stays in slots and a box; not how the view moves.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from tracereel.film.canvas import Canvas, Floats
from tracereel.film.stage import Box
from tracereel.film.theme import DECODE, IDLE_SLOT, PREFILL, SPARE_SLOT
from tracereel.film.time_axis import View

Stay = tuple[int, int, int, int]
"""A slot, and when a request got it, when its prefill was done, and when it left: in nanoseconds."""
Gap = tuple[int, int, int, bool]
"""A slot, from when to when it was idle, and whether requests waited meanwhile."""

_BAND, _MOST_BANDS = 30.0, 8
"""About how high a band is where they are few, and how many there are at most: more are a texture again."""
_BETWEEN = 6.0
"""What is between two bands."""
_COLUMN = 2.0
"""How wide a column is over which shares are averaged."""


class SlotBands:
    """Draws all slots of one run into a box."""

    def __init__(self, slots: int, stays: Iterable[Stay], gaps: Iterable[Gap]):
        self._slots, self._stays, self._gaps = slots, tuple(stays), tuple(gaps)
        self._known: dict[range, tuple[_Load, _Load, _Load]] = {}
        self._drawn: tuple[Box, View, list[tuple[Box, Floats]]] | None = None

    def slots_each(self, box: Box) -> int:
        """How many slots a band has; the last has fewer where no number of bands that nearly fits divides the slots."""
        fit = min(max(round(box.h / _BAND), 1), _MOST_BANDS)
        even = (count for count in (fit, fit + 1, fit - 1) if 0 < count <= _MOST_BANDS and not self._slots % count)
        return -(-self._slots // next(even, fit))

    def places(self, box: Box) -> list[Box]:
        """The place of each band, the first on top."""
        return box.rows(-(-self._slots // self.slots_each(box)), _BETWEEN)

    def band_of(self, box: Box, slot: int) -> Box:
        """The place of the band that a slot is in."""
        return self.places(box)[slot // self.slots_each(box)]

    def _loads(self, slots: range) -> tuple["_Load", "_Load", "_Load"]:
        """What these slots did: decode, prefill, idle while requests waited."""
        if slots not in self._known:
            stays = [stay for stay in self._stays if stay[0] in slots]
            self._known[slots] = (
                _Load([(read_ns, to_ns) for _, _, read_ns, to_ns in stays]),
                _Load([(from_ns, read_ns) for _, from_ns, read_ns, _ in stays]),
                _Load([(from_ns, to_ns) for slot, from_ns, to_ns, wanted in self._gaps if wanted and slot in slots]),
            )
        return self._known[slots]

    def shares(self, slots: range, edges: Floats) -> tuple[Floats, Floats, Floats]:
        """For each stretch between two edges (ns) the share of the slots' time in decode, in prefill, and idle in vain.

        Shapes: `edges` (n + 1,), each result (n,).
        """
        span = np.maximum(np.diff(edges), 1e-9) * len(slots)
        decode, prefill, idle = (load.between(edges) / span for load in self._loads(slots))
        return decode, prefill, idle

    def paint(self, canvas: Canvas, box: Box, view: View, now_ns: int) -> None:
        """Draw what has happened by now."""
        if not canvas.draws:
            return
        rows = self._rows(box, view)
        # Whole columns: the last is drawn when its time has passed.
        columns = self._columns(box)
        share = (view.along(box).within(now_ns) - box.x) / box.w
        done = box.w * math.floor(share * columns + 1e-9) / columns
        for row, shares in rows:
            canvas.box(*row.sides, SPARE_SLOT, 0.5)
            if done > 0:
                with canvas.clipped(row.x, row.y, done, row.h):
                    canvas.stacked(row.sides, shares, (DECODE, PREFILL, IDLE_SLOT))

    def _columns(self, box: Box) -> int:
        return max(round(box.w / _COLUMN), 1)

    def _rows(self, box: Box, view: View) -> list[tuple[Box, Floats]]:
        """Each band's row with its shares (3, columns) over the whole view; known while box and view stay the same."""
        if self._drawn is None or self._drawn[:2] != (box, view):
            each = self.slots_each(box)
            bands = [range(first, min(first + each, self._slots)) for first in range(0, self._slots, each)]
            edges = view.instants(np.linspace(0, 1, self._columns(box) + 1))
            rows = zip(self.places(box), bands, strict=True)
            self._drawn = box, view, [(row, np.array(self.shares(slots, edges))) for row, slots in rows]
        return self._drawn[2]


class _Load:
    """How long something had been the case by an instant, summed over stretches (ns) that may overlap."""

    def __init__(self, stretches: Sequence[tuple[int, int]]):
        held = np.array([(0, 0), *((first, max(first, last)) for first, last in stretches)], dtype=np.float64)
        changes = np.concatenate([np.ones(len(held)), -np.ones(len(held))])
        times = held.T.ravel()
        order = np.argsort(times, kind="stable")
        self._at = times[order]
        at_once = np.cumsum(changes[order])
        self._sum = np.concatenate([[0.0], np.cumsum(at_once[:-1] * np.diff(self._at))])

    def between(self, edges: Floats) -> Floats:
        """How long it was the case between each two edges."""
        return np.diff(np.interp(edges, self._at, self._sum))
