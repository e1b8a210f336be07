"""Two runs of the same requests in one grid: each request on its way from its place in one run to that in the other.

Slots against time since each run's beginning, on one scale. What was idle while requests waited falls out of the grid
into a bar. A pure function of how far the move has come. Knows two grids and boxes.
"""

from dataclasses import dataclass
from functools import lru_cache

from tracereel.film.canvas import Canvas, Sides
from tracereel.film.clock import ease
from tracereel.film.colours import RequestColours
from tracereel.film.components.slot_grid import Residency, SlotGrid
from tracereel.film.stage import Box
from tracereel.film.theme import DECODE, IDLE, IDLE_SLOT, PANEL, SPARE_SLOT, TEXT, mix
from tracereel.film.time_axis import TimeAxis, View
from tracereel.trace.analysis.queries import Run

LEAST_ROW = 3.0
"""Units: in lower rows requests' own colours are not seen, but make a moiré; all have one colour there."""
_STAGGER = 0.45
"""The share of the move by which the last request begins later than the first."""


@dataclass(frozen=True)
class _Placing:
    """Where a run's slots and instants stand; nothing stands beyond `end_ns`."""

    rows: list[Box]
    axis: TimeAxis
    end_ns: int

    def place(self, slot: int, from_ns: int, to_ns: int) -> Box:
        """A stretch of time in a slot."""
        row, left, right = self.rows[slot], self.axis.within(from_ns), self.axis.within(min(to_ns, self.end_ns))
        return Box(left, row.y, max(right - left, 0.5), row.h)


@dataclass(frozen=True)
class _Way:
    """From where a request, or what was idle, goes where; None: it goes nowhere. `late` is when, as a share."""

    here: Box
    there: Box | None
    late: float
    request: int = -1

    def at(self, moved: float) -> tuple[Box, float]:
        """Its place after a share of the move, and how much of its own way that is."""
        if self.there is None:
            return self.here, 0.0
        part = ease((moved - self.late) / (1 - _STAGGER))
        return self.here.towards(self.there, part), part


@dataclass(frozen=True)
class _Ways:
    """What is drawn of a grid in one place: its rows, what was idle without demand, requests, and what falls out."""

    rows: list[Sides]
    spare: list[Sides]
    requests: list[_Way]
    idle: list[_Way]


class Rearranged:
    """Draws the requests of `one` on their way to their places in `other`."""

    def __init__(
        self, one: Run, other: Run, grids: tuple[SlotGrid, SlotGrid], colours: RequestColours, *, coloured: bool
    ):
        """`coloured`: does each request have its own colour? One run's rows are as high as the other's."""
        self._coloured = coloured
        self._runs, self._grids, self._colours = (one, other), grids, colours
        self._spans = tuple(max(run.timeline.end_ns - run.timeline.begin_ns, 1) for run in self._runs)
        self._places = tuple(_by_request(grid) for grid in grids)
        self._ways = lru_cache(maxsize=2)(self._ways_in)
        """Known while grid and bar stand."""

    def end_x(self, box: Box, moved: float) -> float:
        """Where the run's edge stands: the one's end, on its way to the other's."""
        one, other = (View(0, max(self._spans)).along(box).x(span) for span in self._spans)
        return one + (other - one) * moved

    def paint(self, canvas: Canvas, box: Box, bar: Box, moved: float, edge: float, fallen: float = 1.0) -> None:
        """Draw the grid after a share `moved` of the move, its edge after a share `edge` of its own.

        `fallen` is how clearly the bar is seen of what fell out.
        """
        if not canvas.draws:
            return
        ways = self._ways(box, bar)
        canvas.boxes(ways.rows, PANEL)
        canvas.boxes(ways.spare, SPARE_SLOT, 1 - moved)
        if fallen > 0:
            with canvas.faded(fallen):
                for way in ways.idle:
                    place, part = way.at(moved)
                    canvas.box(*place.sides, mix(IDLE_SLOT, IDLE, 0.35 * part))
        for way in ways.requests:
            colour = self._colours[way.request] if self._coloured else DECODE
            canvas.box(*way.at(moved)[0].sides, colour, 1 - moved if way.there is None else 1.0)
        x = self.end_x(box, edge)
        canvas.line([(x, box.y - 10), (x, box.bottom + 10)], TEXT, thickness=4)

    def _placing(self, box: Box, run: int) -> "_Placing":
        begin = self._runs[run].timeline.begin_ns
        axis = View(begin, begin + max(self._spans)).along(box)
        return _Placing(self._grids[run].rows(box), axis, begin + self._spans[run])

    def _ways_in(self, box: Box, bar: Box) -> _Ways:
        """The ways from a grid's place, to its place in the other run and to the bar."""
        one, other = (self._placing(box, run) for run in (0, 1))
        begin_ns, stretches = self._runs[0].timeline.begin_ns, self._grids[0].idle_stretches

        def late(from_ns: int) -> float:
            return (from_ns - begin_ns) / self._spans[0] * _STAGGER

        requests = []
        for request, start in self._places[0].items():
            goal = self._places[1].get(request)
            there = None if goal is None else other.place(goal.slot, goal.from_ns, goal.to_ns)
            here = one.place(start.slot, start.from_ns, start.to_ns)
            requests.append(_Way(here, there, late(start.from_ns), request))
        total = max(sum(to_ns - from_ns for _, from_ns, to_ns, wanted in stretches if wanted), 1)
        idle, spare, at = [], [], bar.x
        for slot, from_ns, to_ns, wanted in stretches:
            here = one.place(slot, from_ns, to_ns)
            if not wanted:
                spare.append(here.sides)
                continue
            wide = bar.w * (to_ns - from_ns) / total
            idle.append(_Way(here, Box(at, bar.y, wide, bar.h), late(from_ns)))
            at += wide
        return _Ways([row.sides for row in one.rows], spare, requests, idle)


def _by_request(grid: SlotGrid) -> dict[int, Residency]:
    """Each request's longest stay in a slot."""
    found: dict[int, Residency] = {}
    for residency in grid.residencies:
        known = found.get(residency.request)
        if known is None or residency.to_ns - residency.from_ns > known.to_ns - known.from_ns:
            found[residency.request] = residency
    return found
