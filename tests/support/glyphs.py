"""What was really lettered: the runs of glyphs handed to the painter, read back as characters."""

from contextlib import contextmanager
from functools import cache

from tracereel.film import painter
from tracereel.film.ledger import Ledger
from tracereel.film.lettering import Line, shape
from tracereel.film.phrases import holds_digit
from tracereel.film.theme import Type

DIGITS = "0123456789"


@contextmanager
def lettered():
    """Yields a list that fills with the runs of each frame that is added to a ledger, read back from their glyphs."""
    frames = [set()]
    drawn, add = painter.sprite, Ledger.frame

    def sprite(text: str, style: Type, scale: float):
        frames[-1].add(read_back(text, style))
        return drawn(text, style, scale)

    def frame(ledger: Ledger, count: int = 1) -> None:
        add(ledger, count)
        frames.extend([frames[-1]] * (count - 1))
        frames.append(set())

    painter.sprite, Ledger.frame = sprite, frame
    try:
        yield frames
    finally:
        painter.sprite, Ledger.frame = drawn, add


@cache
def read_back(text: str, style: Type) -> str:
    """A run as its digit glyphs say it: the text, where the digits in it are those that are drawn."""
    line: Line = shape(text, style)
    glyphs = _digit_glyphs(style)
    drawn = [glyphs[face, glyph] for face, glyph, _, _ in line.glyphs if (face, glyph) in glyphs]
    assert drawn == [char for char in text if char in DIGITS], f"{text!r} is drawn with the digits {drawn}"
    return text


@cache
def _digit_glyphs(style: Type) -> dict[tuple[str, int], str]:
    """The glyphs of digits in a style, and which digit each is."""
    found = {}
    for digit in DIGITS:
        ((face, glyph, _, _),) = shape(digit, style).glyphs
        found[face, glyph] = digit
    return found


def unclaimed(runs, claims):
    """Of the runs of one frame those in which a digit stands that no claim of the frame accounts for."""
    return [run for run in runs if holds_digit(run) and not any(_accounts(claim, run) for claim in _lines(claims))]


def _lines(claims):
    """The lines that were claimed: each text with all the figures in it."""
    lines: dict[str, list[str]] = {}
    for claim in claims:
        lines.setdefault(claim.text, []).append(claim.shown)
    return tuple((text, tuple(figures)) for text, figures in lines.items())


@cache
def _accounts(line: tuple[str, tuple[str, ...]], run: str) -> bool:
    """Is a run a line, or a piece of it, whose digits are all in figures?"""
    text, figures = line
    if run.removesuffix("…").strip() not in text:
        return False
    for figure in sorted(figures, key=len, reverse=True):
        # A line that was cut may end within a figure.
        at = text.find(figure)
        end = next((k for k in range(len(figure), 0, -1) if text.removesuffix("…").endswith(figure[:k])), 0)
        if at >= 0:
            text = text.replace(figure, "", 1)
        elif end:
            text = text.removesuffix("…")[:-end]
    return not holds_digit(text)
