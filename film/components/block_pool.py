"""The KV cache at an instant: the pool of blocks, and the block tables of the requests that hold a slot.

Pure functions of engine time. A block has the colour of the request that holds it, several where its prefix is shared,
and filled as far as KV has been written into it; a free block that was held keeps a trace of its last holder. Knows a
run and a box; not when anything is shown.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from tracereel.film.canvas import Canvas
from tracereel.film.colours import RequestColours
from tracereel.film.components.block_looks import HELD, filled, paint_free, paint_reserved
from tracereel.film.components.group_tables import GroupTables
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrase, Phrasebook, figure, quote
from tracereel.film.stage import Box, Spot
from tracereel.film.theme import (
    DIM,
    IN_ROW,
    INK,
    LINE,
    PANEL,
    SMALL,
    SMALL_STRONG,
    STRONG,
    TEXT,
    Letters,
    mix,
)
from tracereel.trace.analysis.queries import Run

_MOST_BLOCKS = 600
"""Blocks of a pool that are drawn; of a larger one the first that many."""
_NUMBER, _INSET = 30.0, 6.0
"""What the number of a block takes above its fill, and how far its fill is from its edges."""
_CHIP, _BESIDE = 84.0, 10.0
"""How wide a request's chip is, and what is between two."""
_HIGHEST = 64.0
"""A table is so high at most."""
_ABOVE = 50.0
"""What the request's name takes above its table."""
_BETWEEN = 12.0
"""What is between the tables of requests where each has several."""
_TWO_COLUMNS = 900.0
"""From this width on such tables stand in two columns where one has no room for all."""


@dataclass(frozen=True)
class _Row:
    """One request's block table, as it is drawn."""

    request: int
    table: tuple[int, ...]
    computed: int


class BlockPool:
    """Draws a pool's blocks into a box, and block tables into another."""

    def __init__(self, run: Run, say: Phrasebook, colours: RequestColours):
        self._run, self._say, self.colours = run, say, colours
        header, grants = run.trace.header, run.trace.grants
        self.blocks = min(header.kv_blocks or 0, _MOST_BLOCKS)
        self.block_tokens = header.kv_block_tokens or 1
        self.longest = _longest_table(run)
        self.groups = GroupTables(run, say) if header.kv_groups else None
        self._given = run.trace.group_grants if self.groups else grants
        self._names = [quote(run.measure("request_name", request=i)) for i in range(len(run.trace.arrivals))]
        self.cells = lru_cache(maxsize=4)(self._cells)
        """The place of each block's cell in a box, row by row."""
        # They stand for many frames.
        self._number = lru_cache(maxsize=_MOST_BLOCKS)(self._number_in_pool)
        self._given_number = lru_cache(maxsize=_MOST_BLOCKS)(self._number_in_table)

    def _number_in_pool(self, block: int, columns: int) -> Phrase:
        row, column = divmod(block, columns)
        return figure(self._run.measure("block_in_pool", row=row, column=column, columns=columns))

    def _number_in_table(self, request: int, nth: int) -> Phrase:
        return figure(self._run.measure("block_given", request=request, nth=nth))

    # The pool.

    def columns(self, box: Box) -> int:
        """As many columns as make the cells twice as wide as high at most."""
        columns = next(
            (n for n in range(1, self.blocks + 1) if box.w / n <= 1.35 * box.h / math.ceil(self.blocks / n)),
            self.blocks,
        )
        # Full rows look like a store; a last row with holes in it looks like a fault.
        return min(
            (n for n in range(max(columns - 2, 1), columns + 3)),
            key=lambda n: (-self.blocks % n, abs(n - columns)),
        )

    def _cells(self, box: Box) -> list[Box]:
        columns = self.columns(box)
        rows = math.ceil(self.blocks / columns)
        gap = min(10.0, 0.1 * box.w / columns)
        w, h = (box.w - gap * (columns - 1)) / columns, (box.h - gap * (rows - 1)) / rows
        return [
            Box(box.x + (i % columns) * (w + gap), box.y + (i // columns) * (h + gap), w, h) for i in range(self.blocks)
        ]

    def fill_of(self, cell: Box) -> Box:
        """The part of a cell that fills with tokens: below its number, where there is room for one."""
        if not self._numbered(cell):
            return cell
        return Box(cell.x, cell.y + _NUMBER, cell.w, cell.h - _NUMBER).grown(-_INSET)

    @staticmethod
    def _numbered(cell: Box) -> bool:
        return cell.w > 48 and cell.h > _NUMBER + 22

    def paint_pool(self, canvas: Canvas, box: Box, now_ns: int, marked: Collection[int] = (), lit: float = 0.0) -> None:
        """Draw the pool; `marked` blocks get an outline as strong as `lit`."""
        state = self._run.timeline.at(now_ns)
        computed = {occupant.request: occupant.computed_tokens for occupant in state.occupancy if occupant is not None}
        places: dict[int, tuple[int, int]] = {}
        for request in computed:
            places.update(self._places(request, now_ns))
        last, columns = self._last_holder(now_ns), self.columns(box)
        for block, cell in enumerate(self.cells(box)):
            holders = state.block_holders.get(block, ())
            fill = self.fill_of(cell)
            if self._numbered(cell):
                canvas.card(*cell.sides, PANEL, radius=8)
                canvas.text(
                    self._number(block, columns),
                    cell.x + 10,
                    cell.y + _NUMBER - 2,
                    SMALL_STRONG,
                    TEXT if holders else DIM,
                )
            if not holders:
                paint_free(canvas, fill, self.colours[int(last[block])] if last[block] >= 0 else None)
                continue
            for band, request in zip(fill.rows(len(holders), 0), holders, strict=True):
                colour = self.colours[request]
                # A shared block is full: it is only shared whole.
                share = filled(computed[request], *places[block])
                paint_reserved(canvas, band, colour, share)
            if block in marked:
                canvas.card(*cell.grown(3).sides, TEXT, lit, radius=10, outline=5)

    def _places(self, request: int, now_ns: int) -> dict[int, tuple[int, int]]:
        """For each block of the request its place in its table, and how many tokens a block of that table holds."""
        state = self._run.timeline.at(now_ns)
        if self.groups is None:
            return {block: (i, self.block_tokens) for i, block in enumerate(state.block_table(request))}
        tables = zip(state.group_tables(request), self.groups.block_tokens, strict=True)
        return {block: (place, tokens) for table, tokens in tables for place, block in table.items()}

    def first_blocks(self, request: int, now_ns: int, tokens: int) -> tuple[int, ...]:
        """The blocks of a request that hold whole its first so many tokens."""
        places = self._places(request, now_ns)
        return tuple(block for block, (place, holds) in places.items() if (place + 1) * holds <= tokens)

    def _last_holder(self, now_ns: int) -> list[int]:
        """For each block the request that it was given to last, -1 where it never was."""
        last = np.full(max(self._run.trace.header.kv_blocks or 0, 1), -1)
        past = int(np.searchsorted(self._given.step, self._run.timeline.steps_started(now_ns)))
        last[self._given.block[:past]] = self._given.request[:past]
        return [int(request) for request in last]

    # The tables.

    def rows_of(self, box: Box) -> list[Box]:
        """The place of each slot's block table, of as many as there is room for."""
        slots = self._run.trace.header.slots
        least = 56.0 if self.groups is None else self.groups.least_height + _BETWEEN
        shown = min(slots, max(int((box.h + (0 if self.groups is None else _BETWEEN)) // least), 1))
        gap = min(_BETWEEN if self.groups else 16.0, box.h / shown * 0.14)
        if self.groups is not None and shown < slots and box.w >= _TWO_COLUMNS:
            left, right = (column.rows(shown, gap) for column in box.columns((1, 1), 2 * _BETWEEN))
            return [*left, *right][:slots]
        return box.rows(shown, gap)

    def _slim(self, row: Box) -> bool:
        """Does the table stand next to the request's name, for lack of height?"""
        return row.h < (100 if self.groups is None else _ABOVE + self.groups.least_height)

    def table_of(self, row: Box) -> Box:
        """The part of a row that holds the block table: next to the request's name, or below it."""
        if self._slim(row):
            return Box(row.x + _CHIP + 12, row.y, row.w - _CHIP - 12, row.h)
        return Box(row.x, row.y + _ABOVE, row.w, row.h - _ABOVE)

    def table_cells(self, row: Box, count: int) -> list[Box]:
        """The place of each entry of a table that is `count` long; of one too long for the row, of its last ones."""
        room = self.table_of(row)
        most = max(int(room.w // 12), 1)
        pitch = min(room.w / max(min(self.longest, most), 1), 74.0)
        return [
            Box(room.x + i * pitch, room.y, pitch - min(4.0, pitch * 0.15), min(room.h, _HIGHEST))
            for i in range(min(count, most))
        ]

    def paint_tables(
        self, canvas: Canvas, box: Box, now_ns: int, marked: Collection[int] = (), lit: float = 0.0
    ) -> None:
        """Draw the tables, one a slot."""
        state = self._run.timeline.at(now_ns)
        for row, occupant in zip(self.rows_of(box), state.occupancy, strict=False):
            slim = self._slim(row)
            if occupant is None:
                high = min(row.h, _HIGHEST)
                canvas.card(row.x, row.y, _CHIP, high if slim else 40, LINE, radius=8, outline=2)
                continue
            table = state.block_table(occupant.request)
            colour = self.colours[occupant.request]
            chip = Box(row.x, row.y, _CHIP, min(row.h, _HIGHEST) if slim else 40.0)
            canvas.card(*chip.sides, colour, radius=8)
            name = self._names[occupant.request]
            canvas.text(
                name, chip.x + chip.w / 2, chip.y + chip.h / 2 + IN_ROW, SMALL_STRONG, INK, align=0.5, room=chip.w - 8
            )
            if not slim:
                self._facts(
                    canvas, Box(chip.right + 16, row.y, row.right - chip.right - 16, 40), occupant.request, now_ns
                )
            if self.groups is not None:
                self.groups.paint(canvas, self.table_of(row), occupant, now_ns, colour, marked, lit)
                continue
            cells = self.table_cells(row, len(table))
            first, before = len(table) - len(cells), self._run.timeline.blocks_before(occupant.request, now_ns)
            for place, cell in enumerate(cells, first):
                block = table[place]
                shared = len(state.block_holders.get(block, ())) > 1
                full = filled(occupant.computed_tokens, place, self.block_tokens)
                ground = colour if full >= 1 else mix(PANEL, colour, HELD)
                canvas.box(*cell.sides, ground)
                if 0 < full < 1 and not self._lettered(cell):
                    canvas.box(cell.x, cell.y, cell.w * full, cell.h, colour)
                elif 0 < full < 1:
                    # Next to the number, so that no letter stands on two colours.
                    canvas.box(cell.x, cell.bottom - 10, cell.w * full, 10, colour)
                if shared:
                    canvas.box(cell.x, cell.bottom + 4, cell.w, 5, TEXT)
                if self._lettered(cell):
                    number = self._given_number(occupant.request, before + place)
                    ink = INK if full >= 1 else TEXT
                    if width(number.text, SMALL) <= cell.w - 4:
                        canvas.text(number, cell.x + cell.w / 2, cell.y + cell.h / 2 + 6, SMALL, ink, align=0.5)
                if block in marked:
                    canvas.card(*cell.grown(3).sides, TEXT, lit, radius=4, outline=4)

    @staticmethod
    def _lettered(cell: Box) -> bool:
        return cell.w >= 36 and cell.h >= 44

    def _facts(self, canvas: Canvas, room: Box, request: int, now_ns: int) -> None:
        run, say = self._run, self._say.say
        facts = say(
            "kv_cache_paging.facts",
            tokens=figure(run.measure("position", request=request, t_ns=now_ns), ",d"),
            blocks=figure(run.measure("blocks_of_request", request=request, t_ns=now_ns)),
            shared=figure(run.measure("shared_blocks", request=request, t_ns=now_ns)),
        )
        canvas.text(facts, room.x, room.y + 29, SMALL, DIM, room=room.w)

    def tables_where(self, request: int, box: Box, now_ns: int) -> list[Spot]:
        """The row of a request that holds a slot, with its name and its table."""
        occupancy = self._run.timeline.at(now_ns).occupancy
        found = []
        for row, occupant in zip(self.rows_of(box), occupancy, strict=False):
            if occupant is not None and occupant.request == request:
                high = (
                    row.h
                    if self.groups is not None
                    else self.table_of(row).y - row.y + min(self.table_of(row).h, _HIGHEST)
                )
                found.append(Spot(Box(row.x, row.y, row.w, min(high, row.h)), radius=8))
        return found

    def waiting_where(self, request: int, box: Box, now_ns: int) -> list[Spot]:
        """The place of a request in the waiting queue."""
        waiting = self._run.timeline.at(now_ns).waiting
        chips = zip(self._chips(box), waiting, strict=False)
        return [Spot(chip, radius=8) for chip, whose in chips if whose == request]

    def _chips_left(self, box: Box) -> float:
        """Where the waiting queue begins, after its heading."""
        return box.x + width(self._say.say("kv_cache_paging.waiting").text, STRONG) + 20

    def _chips(self, box: Box) -> list[Box]:
        """The places of the waiting queue, as many as there is room for."""
        left = self._chips_left(box)
        fits = max(int((box.right - left - 150) // (_CHIP + _BESIDE)), 0)
        return [Box(left + i * (_CHIP + _BESIDE), box.y, _CHIP, box.h) for i in range(fits)]

    def paint_waiting(self, canvas: Canvas, box: Box, now_ns: int) -> None:
        """The waiting queue, its first at the left; a preempted request stands before those that have not run."""
        say, waiting = self._say.say, self._run.timeline.at(now_ns).waiting
        canvas.text(say("kv_cache_paging.waiting"), box.x, box.y + box.h / 2 + 10, STRONG, DIM)
        chips = self._chips(box)
        for chip, request in zip(chips, waiting, strict=False):
            canvas.card(*chip.sides, self.colours[request], radius=8, outline=3)
            name, colour = self._names[request], Letters(self.colours[request])
            y = box.y + box.h / 2 + IN_ROW
            canvas.text(name, chip.x + _CHIP / 2, y, SMALL_STRONG, colour, align=0.5, room=_CHIP - 8)
        if len(waiting) > len(chips):
            count = figure(self._run.measure("waiting_beyond", t_ns=now_ns, shown=len(chips)))
            more: Phrase = say("pipeline_flow.more", count=count)
            at = self._chips_left(box) + len(chips) * (_CHIP + _BESIDE)
            if width(more.text, SMALL) <= box.right - at:
                canvas.text(more, at, box.y + box.h / 2 + IN_ROW, SMALL, DIM)


def _longest_table(run: Run) -> int:
    """How long a block table becomes at most."""
    residencies, grants = run.trace.residencies, run.trace.grants
    longest = 1
    for i in range(len(residencies.request)):
        last = int(residencies.last_step[i])
        own = (grants.request == residencies.request[i]) & (grants.step >= residencies.first_step[i])
        longest = max(longest, int((own & (grants.step <= last)).sum() if last >= 0 else own.sum()))
    return longest
