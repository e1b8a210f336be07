"""The block tables of one request in a model whose groups of layers keep different KV: a band for each group.

Pure functions of engine time. Columns are places: a block stands where its tokens stand in the request, so that a
sliding window is seen to slide; a place whose block was freed while the request runs is an outline. A place that never
held a block is empty. Knows a run and a box; not when anything is shown.
"""

from collections.abc import Collection
from itertools import groupby

from tracereel.film.canvas import Canvas
from tracereel.film.components.block_looks import filled, paint_freed, paint_reserved
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrase, Phrasebook, quote
from tracereel.film.stage import Box
from tracereel.film.theme import DIM, SMALL, TEXT, Colour
from tracereel.trace.analysis.queries import Run
from tracereel.trace.state.timeline import SlotOccupancy

_LINE = 28.0
"""What a word takes; groups of one kind that follow each other have one together."""
_BAND, _GAP, _KIND_GAP = 7.0, 2.5, 6.0
"""The least that a band takes, and what is between bands, and between bands of different kinds."""
_NARROWEST, _WIDEST = 12.0, 120.0
"""A column at least and at most."""
_OWN_WORDS = 212.0
"""What the phrasebook's words for groups take at most."""


class GroupTables:
    """Draws a request's block tables, one band a group of layers, into a box."""

    def __init__(self, run: Run, say: Phrasebook):
        header, grants = run.trace.header, run.trace.group_grants
        self._run = run
        self.block_tokens = [group.block_tokens or header.kv_block_tokens or 1 for group in header.kv_groups]
        self.longest = int(grants.place.max()) + 1 if len(grants.place) else 1
        self.kinds = [
            list(groups) for _, groups in groupby(range(len(header.kv_groups)), lambda i: header.kv_groups[i])
        ]
        """The groups that follow each other and keep the same KV."""
        self.words = [_word(run, say, groups[0]) for groups in self.kinds]
        self._label = max(width(word.text, SMALL) for word in self.words) + 16
        self._least = [max(_LINE, len(groups) * (_BAND + _GAP)) for groups in self.kinds]
        self.least_height = sum(self._least) + _KIND_GAP * (len(self.kinds) - 1)
        """The least height in which every band and every word has its place."""

    def kind_boxes(self, box: Box) -> list[Box]:
        """The place of the groups of each kind, one below the other."""
        return box.shares(self._least, min(_KIND_GAP, box.h / (4 * len(self.kinds))))

    def bands(self, box: Box) -> list[Box]:
        """The place of each group's table, right of the words."""
        bands: list[Box] = []
        for kind, groups in zip(self.kind_boxes(box), self.kinds, strict=True):
            label = self._label_of(box)
            right = Box(kind.x + label, kind.y, kind.w - label, kind.h)
            bands.extend(right.rows(len(groups), min(_GAP, right.h / (4 * len(groups)))))
        return bands

    def _label_of(self, box: Box) -> float:
        """What the words take of a row: an engine's own word may be of any length."""
        return min(self._label, max(0.4 * box.w, _OWN_WORDS))

    def cells(self, band: Box, tokens_reach: int) -> dict[int, Box]:
        """The place on the picture of each place of a table that reaches so far; of one too long its last ones."""
        most = max(int(band.w // _NARROWEST), 1)
        pitch = min(band.w / min(self.longest, most), _WIDEST)
        first = max(tokens_reach - most, 0)
        wide = pitch - min(4.0, pitch * 0.15)
        high = min(band.h, 40.0)
        return {
            place: Box(band.x + (place - first) * pitch, band.y, wide, high) for place in range(first, tokens_reach)
        }

    def paint(
        self,
        canvas: Canvas,
        box: Box,
        occupant: SlotOccupancy,
        now_ns: int,
        colour: Colour,
        marked: Collection[int] = (),
        lit: float = 0.0,
    ) -> None:
        """Draw the tables of a request in its colour; `marked` blocks get an outline as strong as `lit`."""
        state = self._run.timeline.at(now_ns)
        for kind, word in zip(self.kind_boxes(box), self.words, strict=True):
            if kind.h > _LINE - 0.5:
                canvas.text(word, kind.x, kind.y + min(kind.h, 48.0) / 2 + 8, SMALL, DIM, room=self._label_of(box) - 16)
        tables, freed = state.group_tables(occupant.request), state.freed_places(occupant.request)
        for band, table, gone, tokens in zip(self.bands(box), tables, freed, self.block_tokens, strict=True):
            for place, cell in self.cells(band, max((*table, *gone), default=-1) + 1).items():
                if place in gone:
                    paint_freed(canvas, cell, colour)
                if place not in table:
                    continue
                block = table[place]
                paint_reserved(canvas, cell, colour, filled(occupant.computed_tokens, place, tokens))
                if len(state.block_holders[block]) > 1:
                    high = min(cell.h * 0.3, 5.0)
                    canvas.box(cell.x, cell.bottom - high, cell.w, high, TEXT)
                if block in marked:
                    canvas.card(*cell.sides, TEXT, lit, radius=3, outline=3)


def _word(run: Run, say: Phrasebook, group: int) -> Phrase:
    """What a group's layers keep: in the phrasebook's words, else in the engine's own."""
    key = f"kv_cache_paging.group_{run.trace.header.kv_groups[group].kind}"
    return say.say(key) if say.has(key) else quote(run.measure("kv_group_kind", group=group))
