"""What a KV block looks like: held and written so far, given back while its request runs, or free.

The pool, the block tables and the legend draw it alike. Knows boxes and colours; not whose block it is.
"""

from tracereel.film.canvas import Canvas
from tracereel.film.stage import Box
from tracereel.film.theme import GROUND, LINE, PANEL, Colour, mix

HELD = 0.36
"""How much of a holder's colour is in the empty part of its block."""
_FREE, _KEPT = 0.5, 0.7
"""How much of the lines' colour is in a free block, and of its last holder's in the line at its bottom."""
_KEPT_SHARE, _MOST_KEPT = 0.22, 8.0
"""How high that line is: a share of the block, and the most."""


def filled(computed: int, place: int, block_tokens: int) -> float:
    """How much of a block is written: the one at this place of a table with KV for so many tokens."""
    return min(max(computed - place * block_tokens, 0), block_tokens) / block_tokens


def paint_reserved(canvas: Canvas, fill: Box, colour: Colour, share: float) -> None:
    """A block that a request holds, written as far as the share says."""
    canvas.box(*fill.sides, mix(PANEL, colour, HELD))
    if share:
        canvas.box(fill.x, fill.y, fill.w * share, fill.h, colour)


def paint_freed(canvas: Canvas, cell: Box, colour: Colour) -> None:
    """The place of a block that its request gave back while it runs."""
    canvas.card(*cell.grown(-1).sides, colour, radius=3, outline=2)


def paint_free(canvas: Canvas, fill: Box, last: Colour | None) -> None:
    """A block that no request holds; what its last holder left in it is a line at its bottom."""
    canvas.box(*fill.sides, mix(GROUND, LINE, _FREE))
    if last is not None:
        high = min(fill.h * _KEPT_SHARE, _MOST_KEPT)
        canvas.box(fill.x, fill.bottom - high, fill.w, high, mix(GROUND, last, _KEPT))
