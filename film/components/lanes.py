"""Engines side by side on one clock: a lane each, in it the slots of its run, and what has come out of it.

Every run counts from its own beginning, and its lane ends where it ended. Pure functions of time. Knows runs and boxes.
"""

from collections.abc import Sequence

from tracereel.film.canvas import Canvas
from tracereel.film.colours import RequestColours
from tracereel.film.components.race import Contender, rows_of
from tracereel.film.components.seen import stays_of
from tracereel.film.components.slot_grid import SlotGrid
from tracereel.film.phrases import Phrase, Phrasebook, figure
from tracereel.film.rounding import seconds_figure
from tracereel.film.stage import Box, Spot
from tracereel.film.theme import GROUND, SMALL_STRONG, TEXT
from tracereel.film.time_axis import View
from tracereel.trace.analysis.queries import Run

_HEAD = 48.0


class Lanes:
    """Draws a lane for each contender; `span_ns` is how much engine time fills one."""

    def __init__(self, contenders: Sequence[Contender], span_ns: int, say: Phrasebook, colours: RequestColours):
        self._contenders, self._span_ns, self._say = contenders, max(span_ns, 1), say
        self._grids = [SlotGrid(contender.run, say, colours) for contender in contenders]

    def boxes(self, box: Box) -> list[Box]:
        """Where each contender's slots stand."""
        rows = rows_of(self._contenders, box)
        return [Box(row.x, row.y + _HEAD, row.w, row.h - _HEAD) for row in rows]

    def x(self, box: Box, since_ns: float) -> float:
        """The place of an instant in a lane's box."""
        return View(0, self._span_ns).along(box).within(since_ns)

    def paint(self, canvas: Canvas, box: Box, since_ns: int, named: float = 1.0) -> None:
        """Draw what has happened within `since_ns` of each run's beginning; `named` is how clearly its name is seen."""
        for contender, grid, lane in zip(self._contenders, self._grids, self.boxes(box), strict=True):
            timeline = contender.run.timeline
            view = View(timeline.begin_ns, timeline.begin_ns + self._span_ns)
            y, room = lane.y - 16, lane.w * 0.55
            name = canvas.text(contender.name, lane.x, y, SMALL_STRONG, contender.colour, named, room=room)
            said = self._said(contender, since_ns)
            canvas.text(said, lane.right, y, SMALL_STRONG, TEXT, align=1, room=lane.w - name - 30)
            grid.paint(canvas, lane, view, timeline.begin_ns + since_ns)
            if timeline.begin_ns + since_ns >= timeline.end_ns:
                end = self.x(lane, timeline.end_ns - timeline.begin_ns)
                canvas.box(end, lane.y - 1, lane.right - end + 1, lane.h + 2, GROUND)
                canvas.line([(end, lane.y), (end, lane.bottom)], contender.colour, thickness=5)

    def where(self, run: Run, request: int, box: Box, since_ns: int) -> list[Spot]:
        """The stays of a request of one of the runs in its lane."""
        found = []
        for contender, grid, lane in zip(self._contenders, self._grids, self.boxes(box), strict=True):
            if contender.run is run:
                begin_ns = run.timeline.begin_ns
                view = View(begin_ns, begin_ns + self._span_ns)
                found += stays_of(grid, request, lane, view, begin_ns + since_ns)
        return found

    def _said(self, contender: Contender, since_ns: int) -> Phrase:
        run = contender.run
        now_ns = run.timeline.begin_ns + since_ns
        tokens = figure(run.measure("output_tokens", t_ns=min(now_ns, run.timeline.end_ns)), ",d")
        if now_ns < run.timeline.end_ns:
            return self._say.say("engine_race.tokens", tokens=tokens)
        return self._say.say("engine_race.done", tokens=tokens, seconds=seconds_figure(run.measure("duration_s")))
