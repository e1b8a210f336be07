"""Where the cards of each pipeline stage stand in a frame of any shape. Knows stages and slots; draws nothing."""

from collections.abc import Sequence

from tracereel.film.stage import Box, Shape, Stage
from tracereel.film.theme import HEADING, SMALL_STRONG

WAITING, PREFILLING, DECODING, ENDED = range(4)
_SHARES = {Shape.WIDE: (23, 17, 36, 17), Shape.SQUARE: (25, 14, 39, 19)}
"""Widths of the four stages, side by side."""


class Places:
    """Where the cards of each stage stand. `replicas` are the slots of each replica, one above the other."""

    def __init__(self, stage: Stage, replicas: Sequence[int]):
        content, slots = stage.content, sum(replicas)
        square = stage.shape is Shape.SQUARE
        self.heading = SMALL_STRONG if square else HEADING
        self.gap = 6 if square else 10
        if stage.shape is Shape.TALL:
            head = 60
            room = content.h - 3 * head - 2 * 30
            lanes_height = min(room * 0.57, 84 * slots + 10 * (slots - 1))
            waiting = Box(content.x, content.y + head, content.w, (room - lanes_height) * 0.6)
            lanes = Box(content.x, waiting.bottom + 30 + head, content.w, lanes_height)
            prefill, decode = lanes.columns((26, 74), 30)
            ended = Box(content.x, lanes.bottom + 30 + head, content.w, (room - lanes_height) * 0.4)
            self.heads = [Box(box.x, box.y - head, box.w, head) for box in (waiting, prefill, decode, ended)]
            bodies = [waiting, prefill, decode, ended]
            self.chips_in_row, self.cards_in_row = 10, 2
        else:
            columns = content.columns(_SHARES[stage.shape], 28 if square else 42)
            head = 50 if square else 62
            self.heads = [Box(box.x, box.y, box.w, head) for box in columns]
            bodies = [Box(box.x, box.y + head, box.w, box.h - head) for box in columns]
            self.chips_in_row, self.cards_in_row = (2 if square else 4), 1
        self.waiting, self.prefill, self.decode, self.ended = bodies
        self._place_lanes(replicas)
        self.card_height = min(self.decode_rows[0].h, 84 if stage.wide else 54)
        rows = int((self.waiting.h - 44) // (self.card_height + 10))
        self.cards = max(rows, 1) * self.cards_in_row
        chip_height = 46
        self.chip_pitch = chip_height + 10
        self.chips = max(int((self.ended.h - 40) // self.chip_pitch), 1) * self.chips_in_row

    def _place_lanes(self, replicas: Sequence[int]) -> None:
        """The lanes of each replica, as many as fit, each with its own ring around Decode and a line for its name."""
        least = 46.0  # a line of text, and the bar of its prefill below it
        # Below the lanes the ring needs its own width, and a line where they are not all of them.
        body, line = self.decode.h - 14, 44.0
        name, between = (46.0, 2.0 * self.gap + 18) if len(replicas) > 1 else (0.0, 0.0)
        most = max(int((body - line + between) // (least + name + between)), 1)
        sizes = replicas[:most]

        def lanes_in(height: float) -> list[int]:
            each = (height - between * (len(sizes) - 1)) / len(sizes) - name
            return [max(min(size, int((each + self.gap) // (least + self.gap))), 1) for size in sizes]

        lanes = lanes_in(body)
        self.lanes_are_all = lanes == list(replicas)
        if not self.lanes_are_all:
            body, lanes = body - line, lanes_in(body - line)
        self.lanes = sum(lanes)
        pitch = (body + between) / len(sizes)
        self.names = [(self.decode.x, self.decode.y + pitch * i + name - 26) for i in range(len(sizes))]
        """Where each replica's name stands, where there are several."""
        self.prefill_rows: list[Box] = []
        self.decode_rows: list[Box] = []
        self.rings: list[Box] = []
        self._row_of: dict[int, int] = {}
        first = 0
        for i, (size, shown) in enumerate(zip(sizes, lanes, strict=True)):
            top, height = self.decode.y + pitch * i + name, min(pitch - between - name, 110.0 * shown)
            self._row_of |= {first + lane: len(self.decode_rows) + lane for lane in range(shown)}
            self.prefill_rows += Box(self.prefill.x, top, self.prefill.w, height).rows(shown, self.gap)
            self.decode_rows += Box(self.decode.x, top, self.decode.w, height).rows(shown, self.gap)
            ring = self.gap + 2
            self.rings.append(Box(self.decode.x - ring, top - ring, self.decode.w + 2 * ring, height + 2 * ring))
            first += size

    def row_of(self, slot: int) -> int | None:
        """The row of a slot; None where there is no room for it."""
        return self._row_of.get(slot)

    def beyond(self, stage: int) -> Box:
        """Where cards go whose slot has no row: below the last one, to the line that says how many there are."""
        row = (self.prefill_rows if stage == PREFILLING else self.decode_rows)[-1]
        return Box(row.x, row.bottom - row.h / 2, row.w, row.h)

    def waiting_at(self, index: float) -> Box:
        """The place in the queue; `index` may lie between two."""
        column_width = (self.waiting.w - 16 * (self.cards_in_row - 1)) / self.cards_in_row
        low = int(index)
        one, other = (self._waiting_at(i, column_width) for i in (low, low + 1))
        return one.towards(other, index - low)

    def _waiting_at(self, index: int, width: float) -> Box:
        row, column = divmod(index, self.cards_in_row)
        return Box(
            self.waiting.x + column * (width + 16),
            self.waiting.y + row * (self.card_height + 10),
            width,
            self.card_height,
        )

    def ended_at(self, index: int) -> Box:
        """The place among those that have ended."""
        gap = 10
        width = (self.ended.w - gap * (self.chips_in_row - 1)) / self.chips_in_row
        row, column = divmod(index, self.chips_in_row)
        return Box(
            self.ended.x + column * (width + gap), self.ended.y + row * self.chip_pitch, width, self.chip_pitch - 10
        )
