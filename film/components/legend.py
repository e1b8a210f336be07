"""What colours mean that are no request's, on one line: a look of each, and its words.

Knows phrases and a baseline; not where the colours are used.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tracereel.film.canvas import Canvas
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrase, Phrasebook
from tracereel.film.theme import APART, BEFORE_WORDS, DECODE, DIM, LINE, PREFILL, SMALL, SWATCH, Colour

_TOP = 20.0
"""From the baseline of the words up to the top of a look."""
_EDGE = 7.0
"""How high the edge is by which a request's cell shows that a prompt is read."""


@dataclass(frozen=True)
class Entry:
    """A colour and its words; `edge`: is it the upper edge of a cell, and not the whole of a part?"""

    colour: Colour
    words: Phrase
    edge: bool = False


def slot_colours(say: Phrasebook, *, banded: bool) -> tuple[Entry, ...]:
    """The colours in a picture of slots: of prefill in a row, of prefill and of decode in a band of several slots."""
    prefill = Entry(PREFILL, say.say("decode_batching.prefill"), edge=not banded)
    return (prefill, Entry(DECODE, say.say("decode_batching.decode"))) if banded else (prefill,)


def legend_width(entries: Sequence[Entry]) -> float:
    """How much room a line of these takes."""
    return sum(BEFORE_WORDS + width(entry.words.text, SMALL) for entry in entries) + APART * (len(entries) - 1)


def paint_legend(canvas: Canvas, x: float, y: float, entries: Sequence[Entry]) -> None:
    """Draw them from x on, their words on the baseline y."""
    for entry in entries:
        top = y - _TOP
        canvas.box(x, top, SWATCH, SWATCH, LINE if entry.edge else entry.colour)
        if entry.edge:
            canvas.box(x, top, SWATCH, _EDGE, entry.colour)
        x += BEFORE_WORDS + APART + canvas.text(entry.words, x + BEFORE_WORDS, y, SMALL, DIM)
