"""Where each stage of the pipeline stands in a frame of any shape, and each request in it.

Where words fit, a request is a card or a row; where there are too many, each is a tile, and none is left out that has
room for a tile. Knows stages, slots and counts; draws nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tracereel.film.canvas import Sides
from tracereel.film.stage import Box, Shape, Stage
from tracereel.film.theme import COUNTED, HEADING, SMALL_STRONG

WAITING, PREFILLING, DECODING, ENDED = range(4)
_SHARES = {Shape.WIDE: (24, 15, 41, 20), Shape.SQUARE: (27, 14, 37, 22)}
"""Widths of the four stages, side by side."""
_GUTTER = {Shape.WIDE: 84, Shape.SQUARE: 36}
"""Between two stages: requests on their way are seen there."""
_LEAST_ROW = 46.0
"""A line of text, and the bar of its prefill below it."""
_TALLEST_ROW = 110.0
CARD_GAP = 10.0
_LABEL = 44.0
"""A line that says how many more there are."""
_CHIP, _LEAST_CHIP = 46.0, 36.0
_LETTERED = 0.55
"""The share of a stage that keeps its words where not all of its requests can have them."""
_SMALLEST_TILE, _LARGEST_TILE = 7, 56


@dataclass(frozen=True)
class Tiles:
    """A field of equal squares, as large as `count` of them fit into a box."""

    box: Box
    count: int

    @cached_property
    def pitch(self) -> int:
        """From one tile to the next."""
        fits = (p for p in range(_LARGEST_TILE, _SMALLEST_TILE, -1) if self._room(p) >= self.count)
        return next(fits, _SMALLEST_TILE)

    def _room(self, pitch: int) -> int:
        return int(self.box.w // pitch) * max(int(self.box.h // pitch), 0)

    @property
    def room(self) -> int:
        """How many there is a place for."""
        return self._room(self.pitch)

    @cached_property
    def sides(self) -> list[Sides]:
        """(x, y, w, h) of each."""
        return [self.at(i).sides for i in range(min(self.count, self.room))]

    def at(self, index: int) -> Box:
        """The place of a tile; the first is in the upper left corner."""
        row, column = divmod(index, max(int(self.box.w // self.pitch), 1))
        side = self.pitch - (4 if self.pitch > 16 else 2)
        return Box(self.box.x + column * self.pitch, self.box.y + row * self.pitch, side, side)


@dataclass(frozen=True)
class SlotPlace:
    """A slot's place in Prefill and in Decode; is it a row with words, or a tile?"""

    prefill: Box
    decode: Box
    lettered: bool


class Places:
    """Where the requests of each stage stand.

    `replicas` are the slots of each replica, one above the other; `waiting` is the most that ever wait, `requests` all
    that can have finished, and `name_width` the width of the longest of their names.
    """

    def __init__(self, stage: Stage, replicas: Sequence[int], waiting: int, requests: int, name_width: float):
        content, slots = stage.content, sum(replicas)
        square, tall = stage.shape is Shape.SQUARE, stage.shape is Shape.TALL
        self.tall = tall
        self.heading = SMALL_STRONG if square else HEADING
        self.gap = 6 if square else 10
        if tall:
            head = 60.0
            room = content.h - 3 * head - 2 * 30
            least = (_LEAST_ROW + self.gap) * slots + 14
            share = max(room * 0.57, least if least <= room * 0.7 else 0.0)
            lanes_height = min(share, 84 * slots + 10 * (slots - 1))
            queue = Box(content.x, content.y + head, content.w, (room - lanes_height) * 0.6)
            lanes = Box(content.x, queue.bottom + 30 + head, content.w, lanes_height)
            prefill, decode = lanes.columns((28, 72), 44)
            ended = Box(content.x, lanes.bottom + 30 + head, content.w, (room - lanes_height) * 0.4)
            self.heads = [Box(box.x, box.y - head, box.w, head) for box in (queue, prefill, decode, ended)]
            bodies = [queue, prefill, decode, ended]
        else:
            columns = content.columns(_SHARES[stage.shape], _GUTTER[stage.shape])
            head = 50.0 if square else COUNTED
            self.heads = [Box(box.x, box.y, box.w, head) for box in columns]
            bodies = [Box(box.x, box.y + head, box.w, box.h - head) for box in columns]
        self.waiting, self.prefill, self.decode, self.ended = bodies
        self.cards_in_row = 2 if tall else 1
        """Of those that wait; in one row they can close up."""
        self._place_slots(replicas)
        self._place_queue(waiting, 84 if stage.wide else 54)
        self._place_ended(requests, name_width)

    def _place_queue(self, waiting: int, highest: float) -> None:
        rows = [slot_place.decode.h for slot_place in self.slots.values() if slot_place.lettered]
        self.card_height = min([*rows, highest])
        pitch, in_row = self.pitch, self.cards_in_row
        fit = max(int((self.waiting.h + CARD_GAP) // pitch), 1)
        self.queue_tiles: Tiles | None = None
        if waiting > fit * in_row:
            fit = max(int(self.waiting.h * _LETTERED // pitch), 1)
            top = fit * pitch + _LABEL
            below = Box(self.waiting.x, self.waiting.y + top, self.waiting.w, self.waiting.h - top)
            self.queue_tiles = Tiles(below, waiting - fit * in_row)
        self.cards = fit * in_row
        """How many of those that wait are cards; the others are tiles below the line that counts them."""

    def _place_ended(self, requests: int, name_width: float) -> None:
        in_row = max(int((self.ended.w + 10) // (max(name_width, 40) + 26)), 1)
        rows = max(int((self.ended.h + 10) // (_LEAST_CHIP + 10)), 1)
        self._chips_in_row = in_row
        needed = max(-(-requests // in_row), 1)
        self._chip_height = min(max((self.ended.h + 10) / needed - 10, _LEAST_CHIP), _CHIP)
        self.ended_tiles: Tiles | None = None
        self.chips = in_row * rows
        """How many of those that have finished have a place."""
        if requests > self.chips:
            self.ended_tiles = Tiles(Box(self.ended.x, self.ended.y, self.ended.w, self.ended.h - _LABEL), requests)
            self.chips = self.ended_tiles.room

    def _place_slots(self, replicas: Sequence[int]) -> None:
        """The slots of each replica, each replica with its own ring around Decode and a line for its name."""
        body = self.decode.h - 14
        name, between = (46.0, 2.0 * self.gap + 18) if len(replicas) > 1 else (0.0, 0.0)
        most = max(int((body - _LABEL + between) // (_LEAST_ROW + name + between)), 1)
        sizes = replicas[:most]
        several = len(replicas) > 1
        if several and (len(sizes) < len(replicas) or max(sizes) > self._fit((body + between) / len(sizes) - name)):
            body -= _LABEL
        pitch = (body + between) / len(sizes)
        self.names = [(self.decode.x, self.decode.y + pitch * i + name - 26) for i in range(len(sizes))]
        """Where each replica's name stands, where there are several."""
        self.slots: dict[int, SlotPlace] = {}
        """The place of each slot that has one."""
        self.rings: list[Box] = []
        self.more_slots: tuple[int, float] | None = None
        """How many slots have words, and the baseline of the line that counts the others: none where all have."""
        first = 0
        for i, size in enumerate(sizes):
            top, height = self.decode.y + pitch * i + name, pitch - between - name
            height = self._place_replica(first, size, top, height, labelled=len(replicas) == 1)
            ring = self.gap + 2
            self.rings.append(Box(self.decode.x - ring, top - ring, self.decode.w + 2 * ring, height + 2 * ring))
            first += size
        if several and len(self.slots) < sum(replicas):
            self.more_slots = len(self.slots), self.decode.y + body + _LABEL + 6

    def _fit(self, height: float) -> int:
        """How many rows with words fit."""
        return int((height + self.gap) // (_LEAST_ROW + self.gap))

    def _place_replica(self, first: int, size: int, top: float, height: float, *, labelled: bool) -> float:
        """Give the slots of one replica their places; returns the height that they take."""
        fit = self._fit(height)
        label = _LABEL if labelled else float(self.gap)
        rows = size if size <= fit else max(self._fit(height * _LETTERED), 1)
        room = height if rows == size else max(height * _LETTERED, _LEAST_ROW)
        rows_height = min(room, _TALLEST_ROW * rows)
        boxes = [Box(box.x, top, box.w, rows_height).rows(rows, self.gap) for box in (self.prefill, self.decode)]
        for i, (prefill, decode) in enumerate(zip(*boxes, strict=True)):
            self.slots[first + i] = SlotPlace(prefill, decode, True)
        if rows == size:
            return rows_height
        below = rows_height + label
        fields = [
            Tiles(Box(box.x, top + below, box.w, height - below), size - rows) for box in (self.prefill, self.decode)
        ]
        for i in range(min(size - rows, *(field.room for field in fields))):
            self.slots[first + rows + i] = SlotPlace(fields[0].at(i), fields[1].at(i), False)
        if labelled:
            self.more_slots = rows, top + rows_height + 32
        return height

    @property
    def pitch(self) -> float:
        """From one card of the queue to the one below."""
        return self.card_height + CARD_GAP

    def waiting_at(self, index: float) -> Box:
        """The place in the queue; `index` may lie between two that are cards."""
        low = int(index)
        if index == low:
            return self._waiting_at(low)
        return self._waiting_at(low).towards(self._waiting_at(low + 1), index - low)

    def _waiting_at(self, index: int) -> Box:
        if index >= self.cards and self.queue_tiles is not None:
            return self.queue_tiles.at(index - self.cards)
        width = (self.waiting.w - 16 * (self.cards_in_row - 1)) / self.cards_in_row
        row, column = divmod(index, self.cards_in_row)
        x, y = self.waiting.x + column * (width + 16), self.waiting.y + row * self.pitch
        return Box(x, y, width, self.card_height)

    def ended_at(self, index: int) -> Box:
        """The place among those that have ended."""
        if self.ended_tiles is not None:
            return self.ended_tiles.at(index)
        width = (self.ended.w - 10 * (self._chips_in_row - 1)) / self._chips_in_row
        row, column = divmod(index, self._chips_in_row)
        return Box(
            self.ended.x + column * (width + 10),
            self.ended.y + row * (self._chip_height + 10),
            width,
            self._chip_height,
        )
