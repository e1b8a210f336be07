"""Where a request is seen in a picture of slots: around its stays, as far as they have been drawn.

Pure functions of engine time. Knows grids and boxes; draws nothing.
"""

from tracereel.film.components.slot_grid import Residency, SlotGrid
from tracereel.film.stage import Box, Spot
from tracereel.film.time_axis import View

_LEAST = 2.0
"""A stay is marked once so much of it has been drawn, in units."""


def stays_of(grid: SlotGrid, request: int, box: Box, view: View, now_ns: int, shown: float | None = None) -> list[Spot]:
    """The drawn part of each stay of a request in the grid; of slots that are merged, the part of their band."""
    axis, merged = view.along(box), grid.merged(box, shown) > 1
    rows = [] if merged else grid.rows(box, shown)
    found = []
    for stay in grid.residencies:
        if stay.request != request or stay.from_ns >= min(now_ns, view.to_ns) or stay.to_ns <= view.from_ns:
            continue
        left, right = axis.within(stay.from_ns), axis.within(min(stay.to_ns, now_ns))
        row = grid.bands.band_of(box, stay.slot) if merged else _row(rows, stay)
        if row is not None and right - left >= _LEAST:
            found.append(Spot(Box(left, row.y, right - left, row.h)))
    return found


def _row(rows: list[Box], stay: Residency) -> Box | None:
    return rows[stay.slot] if stay.slot < len(rows) else None
