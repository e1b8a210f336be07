"""What the cards are made of: rows of a name and its value, and a style that is small enough for its lines.

Pure functions of film time. Knows a stage and phrases; not what the rows say.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tracereel.film.canvas import Canvas
from tracereel.film.clock import ease
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrase
from tracereel.film.stage import Shape, Stage
from tracereel.film.theme import BODY, DIM, LEAST_SIZE, MONO, TEXT, Type

RISE = 26.0
"""Units that a line rises while it comes."""
_AIRY_ROWS = 6
"""Rows that stand as far apart as they may."""


@dataclass(frozen=True)
class Fact:
    """A name, and its value; in the face of typed commands where `typed`."""

    name: Phrase
    value: Phrase
    typed: bool = False


class FactTable:
    """Rows of a name and its value; in a frame that is not wide one under the other."""

    def __init__(self, stage: Stage, rows: Sequence[Fact], y: float, room: float | None = None):
        self._rows, self._left, self._y = rows, stage.margin, y
        room = stage.room if room is None else room
        stacked = stage.shape is Shape.TALL
        self._column = 0.0 if stacked else max(width(row.name.text, BODY) for row in rows) + 48
        self._pitch = _pitch(stage.shape, len(rows))
        self._below = 0.41 * self._pitch if stacked else 0.0
        self._room = room - self._column
        self.bottom = y + self._pitch * (len(rows) - 1) + self._below

    def paint(self, canvas: Canvas, since_s: float) -> None:
        """Draw them, come for `since_s` seconds."""
        for i, row in enumerate(self._rows):
            # Faint from the first frame on: where the run plays it is to be seen what run it is.
            shown = 0.25 + 0.75 * ease((since_s - 0.12 * i) / 0.5)
            y = self._y + i * self._pitch + RISE * (1 - shown)
            style = fitting((row.value.text,), MONO if row.typed else BODY, self._room)
            canvas.text(row.name, self._left, y, BODY, DIM, shown)
            canvas.text(row.value, self._left + self._column, y + self._below, style, TEXT, shown, room=self._room)


def _pitch(shape: Shape, rows: int) -> float:
    """From row to row: up to a number of rows at full distance, more stand closer, down to what can be told apart."""
    most, least = {Shape.WIDE: (60.0, 44.0), Shape.TALL: (108.0, 82.0), Shape.SQUARE: (52.0, 42.0)}[shape]
    return max(least, min(most, most * (_AIRY_ROWS - 1) / max(rows - 1, 1)))


def fitting(lines: tuple[str, ...], style: Type, room: float) -> Type:
    """The style, smaller where the longest line would not fit, but never too small to read."""
    while (longest := max(width(line, style) for line in lines)) > room and style.size > LEAST_SIZE:
        # Small letters are wider in proportion, so one division is not enough.
        size = max(style.size * min(room / longest, 0.98), LEAST_SIZE)
        style = Type(size, style.weight, style.mono)
    return style
