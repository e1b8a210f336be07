"""All slots of a run as a row of small cells: in the colour of the request that holds it, or idle.

For scenes that letter some of the slots alone. A pure function of the engine time. Knows a run and a box.
"""

from collections.abc import Iterable

from tracereel.film.canvas import Canvas
from tracereel.film.colours import RequestColours
from tracereel.film.components.slot_grid import LEAST_GAPPED
from tracereel.film.stage import Box
from tracereel.film.theme import IDLE_SLOT, SPARE_SLOT, TEXT
from tracereel.trace.analysis.queries import Run

_MARK = 5.0
"""How high the line below a marked slot is."""


class SlotMap:
    """Draws the slots of a run; those in `marked` have a line below them."""

    def __init__(self, run: Run, colours: RequestColours, marked: Iterable[int]):
        self._run, self._colours, self._marked = run, colours, frozenset(marked)

    def cells(self, box: Box) -> list[Box]:
        """The cell of each slot, the first at the left."""
        slots = self._run.trace.header.slots
        gap = 4.0 if box.w / slots >= LEAST_GAPPED else 0.0
        return Box(box.x, box.y, box.w, box.h - 2 * _MARK).columns((1,) * slots, gap)

    def paint(self, canvas: Canvas, box: Box, t_ns: int) -> None:
        """Draw the slots at engine time t."""
        state = self._run.timeline.at(t_ns)
        idle = IDLE_SLOT if state.num_waiting else SPARE_SLOT
        for slot, (cell, occupant) in enumerate(zip(self.cells(box), state.occupancy, strict=True)):
            canvas.box(*cell.sides, self._colours[occupant.request] if occupant is not None else idle)
            if slot in self._marked:
                canvas.box(cell.x, box.bottom - _MARK, cell.w, _MARK, TEXT, 0.7)
