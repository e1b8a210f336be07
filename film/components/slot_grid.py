"""Slots against engine time: which request held which slot, step by step, and which slots were empty.

A pure function of the engine time that has passed and of the stretch of it that is in view; close up a cell is a step
with its token, from afar a bar is a request. Knows a run and a box; not how the view moves.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tracereel.film.canvas import Canvas
from tracereel.film.colours import RequestColours
from tracereel.film.components.slot_bands import SlotBands
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrase, Phrasebook, quote
from tracereel.film.stage import Box
from tracereel.film.theme import (
    GROUND,
    IDLE_SLOT,
    IN_ROW,
    INK,
    PANEL,
    PREFILL,
    SMALL,
    SMALL_STRONG,
    SPARE_SLOT,
    TEXT,
    mix,
)
from tracereel.film.time_axis import TimeAxis, View
from tracereel.trace.analysis.queries import Run
from tracereel.trace.state.columns import Ints

_LEAST_CELL = 9.0
"""Narrower steps are not distinguished."""
_LEAST_LETTERED = 30.0
"""Rows that are less high have no letters in them."""
_LEAST_PITCH, _MANY, _LEAST_PITCH_OF_MANY = 5.0, 32, 8.0
"""Rows that stand closer are merged into bands; so are more than so many rows that stand closer than the last."""
_FADE = 0.4
"""Over how many units rows fade into bands: few, since a picture that stands there is neither."""
LEAST_GAPPED = 8.0
"""Slots that stand closer have no gap between them: it would be less than a pixel, here seen and there not."""


@dataclass(frozen=True)
class Residency:
    """A stay of a request in a slot, counted from the first that is drawn; in nanoseconds of engine time."""

    request: int
    slot: int
    from_ns: int
    read_ns: int
    """When its prefill was done."""
    to_ns: int


class _Member(NamedTuple):
    """A request in a step, and its slot, counted from the first that is drawn."""

    slot: int
    request: int
    decodes: bool


class SlotGrid:
    """Draws the slots of one run into a box: all, or those of a range."""

    def __init__(self, run: Run, say: Phrasebook, colours: RequestColours, slots: range | None = None):
        self._run, self._say, self._colours = run, say, colours
        trace = run.trace
        slots = slots or range(trace.header.slots)
        self.slots, self._first = len(slots), slots.start
        self._drawn = slots
        self._starts, self._ends = trace.steps.start_ns, trace.steps.end_ns
        self._names = [quote(run.measure("request_name", request=i)) for i in range(len(trace.arrivals))]
        self._words: dict[tuple[int, int], Phrase | None] = {}
        self._members: dict[int, list[_Member]] = {}

    @cached_property
    def residencies(self) -> tuple[Residency, ...]:
        """Every stay of a request in a slot, in the order of admission."""
        trace = self._run.trace
        steps, residencies = trace.steps, trace.residencies
        last_prefill: dict[int, int] = {}
        entries = np.flatnonzero(~steps.member_decode)
        # Which residency a prefill belongs to: the request's newest that has begun by then.
        begun = dict.fromkeys(range(len(trace.arrivals)), 0)
        own = {request: np.flatnonzero(residencies.request == request).tolist() for request in begun}
        for entry in entries.tolist():
            request, step = int(steps.member_request[entry]), int(steps.member_step[entry])
            mine = own[request]
            while begun[request] + 1 < len(mine) and residencies.first_step[mine[begun[request] + 1]] <= step:
                begun[request] += 1
            if mine:
                last_prefill[mine[begun[request]]] = step
        found = []
        for i in range(len(residencies.request)):
            row = int(residencies.slot[i]) - self._first
            if not 0 <= row < self.slots:
                continue
            from_ns, to_ns = int(residencies.from_ns[i]), int(residencies.to_ns[i])
            read_ns = int(steps.end_ns[last_prefill[i]]) if i in last_prefill else from_ns
            found.append(Residency(int(residencies.request[i]), row, from_ns, min(read_ns, to_ns), to_ns))
        return tuple(found)

    @cached_property
    def idle_stretches(self) -> tuple[tuple[int, int, int, bool], ...]:
        """Every stretch in which a slot was empty between the run's first and last step.

        As (slot, from, to, whether requests waited meanwhile).
        """
        if not len(self._starts):
            return ()
        first, last = int(self._starts[0]), int(self._ends[-1])
        gaps = []
        for slot in range(self.slots):
            at = first
            for residency in sorted((s for s in self.residencies if s.slot == slot), key=lambda s: s.from_ns):
                if residency.from_ns > at:
                    gaps.append((slot, at, residency.from_ns))
                at = max(at, residency.to_ns)
            if at < last:
                gaps.append((slot, at, last))
        # A slot retaken at the next step's start was not idle: between two steps nothing runs at all.
        return tuple(part for gap in gaps if self._holds_step(gap[1], gap[2]) for part in self._by_demand(*gap))

    def _by_demand(self, slot: int, from_ns: int, to_ns: int) -> Iterator[tuple[int, int, int, bool]]:
        """A stretch cut where the queue became empty, or was so no longer."""
        starts, wanted = self._demand
        first = max(int(np.searchsorted(starts, from_ns, side="right")) - 1, 0)
        at = from_ns
        for i in range(first, len(starts)):
            until = int(starts[i + 1]) if i + 1 < len(starts) else to_ns
            if at >= to_ns:
                return
            if until > at:
                yield slot, at, min(until, to_ns), bool(wanted[i])
                at = until

    @cached_property
    def _demand(self) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """When it changes whether steps leave requests in the queue, and whether they do from then on."""
        order = np.argsort(self._starts, kind="stable")
        waits = self._run.trace.steps.waiting[order] > 0
        changes = np.flatnonzero(np.concatenate([[True], waits[1:] != waits[:-1]]))
        return self._starts[order][changes], waits[changes]

    def _holds_step(self, from_ns: int, to_ns: int) -> bool:
        i = int(np.searchsorted(self._starts, from_ns))
        return i < len(self._starts) and int(self._starts[i]) < to_ns

    def rows(self, box: Box, shown: float | None = None) -> list[Box]:
        """The rows of the first `shown` slots, all by default, the last in part where it is no whole number."""
        shown = min(shown or self.slots, self.slots)
        pitch = box.h / max(shown, 1)
        gap = min(8.0, pitch * 0.12) if pitch >= LEAST_GAPPED else 0.0
        # The last row ends at the box's edge: no gap stands below it.
        height = (box.h + gap) / max(shown, 1) - gap
        tops = (box.y + i * (height + gap) for i in range(math.ceil(shown)))
        return [Box(box.x, top, box.w, min(height, box.bottom - top)) for top in tops if top < box.bottom - 0.5]

    def merged(self, box: Box, shown: float | None = None) -> int:
        """How many slots a band has in which the first `shown` are drawn; 1 where each has a row of its own."""
        shown = min(shown or self.slots, self.slots)
        return 1 if box.h / max(shown, 1) >= _least_pitch(shown) else self.bands.slots_each(box)

    def drawn(self, shown: float | None = None) -> range:
        """The slots of the run that are drawn where the first `shown` are; of a row in part it is the next."""
        return self._drawn[: int(min(shown or self.slots, self.slots))]

    @cached_property
    def bands(self) -> SlotBands:
        """The slots from afar, several in a band."""
        stays = [(s.slot, s.from_ns, s.read_ns, s.to_ns) for s in self.residencies]
        return SlotBands(self.slots, stays, self.idle_stretches)

    def paint(self, canvas: Canvas, box: Box, view: View, now_ns: int, shown: float | None = None) -> None:
        """Draw what has happened by now in the first `shown` slots: a row each, bands where rows would be too thin."""
        drawn = max(min(shown or self.slots, self.slots), 1)
        merged = min(max((_least_pitch(drawn) + _FADE - box.h / drawn) / _FADE, 0.0), 1.0)
        if merged < 1:
            self._paint_rows(canvas, box, view, now_ns, shown)
        if merged:
            with canvas.faded(merged):
                canvas.box(*box.sides, GROUND)
                self.bands.paint(canvas, box, view, now_ns)
        if view.from_ns < now_ns < min(view.to_ns, self._run.timeline.end_ns):
            x = view.along(box).within(now_ns)
            canvas.line([(x, box.y - 6), (x, box.bottom + 6)], TEXT, 0.6)

    def _paint_rows(self, canvas: Canvas, box: Box, view: View, now_ns: int, shown: float | None) -> None:
        rows = self.rows(box, shown)
        if canvas.draws:
            self._paint_stays(canvas, rows, view, view.along(box), now_ns)
        self._cells(canvas, box, rows, view, now_ns)

    def _paint_stays(self, canvas: Canvas, rows: list[Box], view: View, axis: TimeAxis, now_ns: int) -> None:
        """The rows, what was idle in them, and each stay with its prefill."""
        canvas.boxes([row.sides for row in rows], PANEL)
        x_of, seen_ns, until_ns = axis.within, view.from_ns, min(now_ns, view.to_ns)
        for slot, from_ns, to_ns, wanted in self.idle_stretches:
            if slot >= len(rows) or from_ns >= until_ns or to_ns <= seen_ns:
                continue
            left, right = x_of(from_ns), x_of(min(to_ns, now_ns))
            if right - left > 0.2:
                canvas.box(left, rows[slot].y, right - left, rows[slot].h, IDLE_SLOT if wanted else SPARE_SLOT)
        for residency in self.residencies:
            if residency.from_ns >= until_ns or residency.to_ns <= seen_ns or residency.slot >= len(rows):
                continue
            left, right = x_of(residency.from_ns), x_of(min(residency.to_ns, now_ns))
            if right - left < 0.2:
                continue
            row, colour = rows[residency.slot], self._colours[residency.request]
            canvas.box(left, row.y, right - left, row.h, colour)
            read = x_of(min(residency.read_ns, now_ns))
            if read > left:
                canvas.box(left, row.y, read - left, row.h, mix(colour, PREFILL, 0.25), 0.55)
                canvas.box(left, row.y, read - left, max(row.h * 0.14, 3), PREFILL)

    def _cells(self, canvas: Canvas, box: Box, rows: list[Box], view: View, now_ns: int) -> None:
        """Close up: each step a cell with its token."""
        first = int(np.searchsorted(self._ends, view.from_ns))
        last = int(np.searchsorted(self._starts, min(view.to_ns, now_ns)))
        axis = view.along(box)
        # At least half of the steps are as wide as their median: beyond so many it is below the least.
        if last <= first or 2 * box.w / (last - first) < _LEAST_CELL:
            return
        ends = self._ends[first:last].tolist()
        sides = [
            (axis.x(start), axis.x(end)) for start, end in zip(self._starts[first:last].tolist(), ends, strict=True)
        ]
        pitch = median(right - left for left, right in sides)
        shown = min(max((pitch - _LEAST_CELL) / _LEAST_CELL, 0.0), 1.0)
        if not shown:
            return
        lettered = min(max((pitch - 56) / 24, 0.0), 1.0) * min(max((rows[0].h - _LEAST_LETTERED) / 16, 0.0), 1.0)
        for step, end_ns, (left, right) in zip(range(first, last), ends, sides, strict=True):
            if left > box.x:
                canvas.box(left - 1.5, box.y, 3, box.h, GROUND, 0.8 * shown)
            if not lettered or end_ns > now_ns:
                continue
            begin, wide = max(left, box.x), min(right, box.right) - max(left, box.x)
            for slot, request, decodes in self._members_of(step):
                if slot >= len(rows):
                    break
                row = rows[slot]
                if row.h >= _LEAST_LETTERED:
                    cell = Box(begin, row.y, wide, row.h)
                    self._token(canvas, cell, request, step, decodes, lettered, left < box.x)

    def _members_of(self, step: int) -> list[_Member]:
        """A step's requests in the grid's slots, by slot. Known from then on: a step is in view for many frames."""
        if step not in self._members:
            steps = self._run.trace.steps
            members = steps.members(step)
            columns = (
                steps.member_slot[members] - self._first,
                steps.member_request[members],
                steps.member_decode[members],
            )
            entries = zip(*(column.tolist() for column in columns), strict=True)
            self._members[step] = sorted(_Member(*entry) for entry in entries if 0 <= entry[0] < self.slots)
        return self._members[step]

    def _token(
        self, canvas: Canvas, cell: Box, request: int, step: int, decodes: bool, alpha: float, cut: bool
    ) -> None:
        phrase, style = self._cell_phrase(request, step, decodes), SMALL if decodes else SMALL_STRONG
        room = cell.w - 12
        if phrase is None or room < 24:
            return
        if (cut or not decodes) and width(phrase.text, style) > room:
            return  # at the edge of the view a cell is letters or nothing, and so is a request's name everywhere
        wide = min(width(phrase.text.strip() or phrase.text, style), room)
        canvas.text(phrase, cell.x + (cell.w - wide) / 2, cell.y + cell.h / 2 + IN_ROW, style, INK, alpha, room=room)

    def _cell_phrase(self, request: int, step: int, decodes: bool) -> Phrase | None:
        """What a cell says: the request's name while it prefills, then its new token; None where there is none."""
        if not decodes:
            return self._names[request]
        # Known from then on: a token stays in view for hundreds of frames.
        if (request, step) not in self._words:
            self._words[request, step] = self._word(request, step)
        return self._words[request, step]

    def _word(self, request: int, step: int) -> Phrase | None:
        """A request's new token at a step's end; None where there is none."""
        times = self._run.timeline.token_times_of(request)
        end = int(self._ends[step])
        index = bisect_left(times, end)
        if index >= len(times) or times[index] != end:
            return None
        return quote(self._run.measure("output_text", request=request, first=index, end=index + 1))

    def residency_box(
        self, box: Box, view: View, slot: int, from_ns: int, to_ns: int, shown: float | None = None
    ) -> Box:
        """The place of a slot, one of the first `shown`, during a stretch of time."""
        row, axis = self.rows(box, shown)[slot], view.along(box)
        left, right = max(axis.x(from_ns), box.x), min(axis.x(to_ns), box.right)
        return Box(left, row.y, max(right - left, 0), row.h)


def _least_pitch(rows: float) -> float:
    """How far apart so many rows have to stand to be seen one by one."""
    return _LEAST_PITCH_OF_MANY if rows > _MANY else _LEAST_PITCH
