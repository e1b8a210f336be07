"""A run played once, small, for a card that has no clock strip: its slots, the engine time, and how fast it is shown.

A pure function of film time. Knows a run, its clock and a box.
"""

from tracereel.film.beat import factor_phrase
from tracereel.film.canvas import Canvas
from tracereel.film.clock import FilmClock
from tracereel.film.components.legend import legend_width, paint_legend, slot_colours
from tracereel.film.components.slot_grid import SlotGrid
from tracereel.film.phrases import figure
from tracereel.film.show import Show
from tracereel.film.stage import Box
from tracereel.film.theme import DIM, SMALL, TEXT
from tracereel.film.time_axis import View
from tracereel.trace.analysis.queries import Run

LEAST_GRID = 60.0
"""A lower box has no room for the slots."""
ABOVE, BELOW = 46.0, 44.0
"""What the words above the slots take, and in a frame that is not wide those below them."""
_OVER, _UNDER = 18.0, 38.0
"""From the baseline of the words above the slots to these, and from the slots to that of the words below."""


class SmallRun:
    """Draws the slots of a run into a box, under their clock."""

    def __init__(self, run: Run, clock: FilmClock, show: Show):
        self._run, self._clock, self._say, self._wide = run, clock, show.say, show.stage.wide
        self._slots = SlotGrid(run, show.say, show.colours())

    def paint(self, canvas: Canvas, grid: Box, film_s: float) -> None:
        """Draw the slots as they are at a second of film; nothing where the box is too low."""
        if grid.h < LEAST_GRID:
            return
        now_ns = self._clock.engine_ns(film_s)
        measured = self._run.measure("engine_time_s", t_ns=now_ns)
        time = self._say.say("strip.engine_time", seconds=figure(measured, ".2f"))
        factor = factor_phrase(self._say, self._clock, film_s)
        above, below = grid.y - _OVER, grid.bottom + _UNDER
        if self._wide:
            canvas.text(factor, grid.right, above, SMALL, DIM, align=1)
        else:
            canvas.text(factor, grid.x, below, SMALL, DIM, room=grid.w)
        canvas.text(time, grid.x, above, SMALL, TEXT)
        self._slots.paint(canvas, grid, View.of_run(self._run), now_ns)

    def explain(self, canvas: Canvas, grid: Box) -> None:
        """Say what the colours of bands mean, above them: where slots have a row each, colours are requests'."""
        if grid.h < LEAST_GRID or self._slots.merged(grid) == 1:
            return
        entries = slot_colours(self._say, banded=True)
        # In a wide frame the pace is at the right end of that line.
        free = grid.w - legend_width(entries)
        paint_legend(canvas, grid.x + (free / 2 if self._wide else free), grid.y - _OVER, entries)
