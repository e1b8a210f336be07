"""Where things lie in a frame, and whether that is a layout: nothing overlaps, nothing leaves the safe area.

A `Watch` sees everything that a canvas draws; `faults` says what is wrong with one frame and names the two things
that collide. Knows boxes in units; draws nothing and knows no scene.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
from tracereel.film.theme import LEAST_SIZE, Rgb

Sides = tuple[float, float, float, float]
"""Left, top, right and bottom."""


class Kind(Enum):
    """What a drawn thing is."""

    TEXT, CARD, DISC, BOX, OUTLINE, LINE = range(6)


@dataclass(frozen=True)
class Drawn:
    """One thing in a frame, in the order of drawing; `size` is that of its letters, `moving` that it is on its way."""

    kind: Kind
    name: str
    sides: Sides
    colour: Rgb
    alpha: float
    size: float = 0.0
    moving: bool = False

    def __str__(self) -> str:
        left, top, right, bottom = (round(side) for side in self.sides)
        what = f"text {self.name[:48]!r}" if self.kind is Kind.TEXT else self.name
        return f"{what} at ({left}, {top}) to ({right}, {bottom})"


Watch = Callable[[Drawn], None]

_SEEN = 0.25
"""What is fainter is on its way in or out."""
_OPAQUE, _WHOLE = 0.85, 0.99
"""What hides what is under it; what is seen wholly."""
_ON_GROUND = 4.0
"""Units by which a text may leave the thing that it stands on."""
_SLACK = 1.5
"""Units by which a text may cross an edge unseen."""
_APART = 3.0
"""Units that are kept free around a text."""
_MARK = 24.0
"""A smaller disc is a mark on a line, not a thing that text may stand in."""


def faults(drawn: Sequence[Drawn], safe: Sides) -> list[str]:
    """What is wrong with a frame in which these things were drawn, the first first."""
    here = [thing for thing in drawn if thing.alpha >= _SEEN]
    texts = [i for i, thing in enumerate(here) if thing.kind is Kind.TEXT]
    found = []
    for i in texts:
        thing = here[i]
        if thing.size < LEAST_SIZE:
            found.append(f"{thing} is set in {thing.size:.1f} units; the least is {LEAST_SIZE:g}")
        if not thing.moving and not _inside(thing.sides, safe, _SLACK):
            found.append(f"{thing} leaves the safe area {tuple(round(side) for side in safe)}")
    boxes = np.array([thing.sides for thing in here], dtype=float).reshape(-1, 4)
    for i in texts:
        found.extend(_collisions(here, boxes, i))
    return found


def grounds(drawn: Sequence[Drawn], ground: Rgb) -> list[tuple[Drawn, Rgb]]:
    """Every text that stands still and fully visible, with the colour it stands on."""
    result = []
    for i, text in enumerate(drawn):
        if text.kind is not Kind.TEXT or text.alpha < _WHOLE or text.moving:
            continue
        under = ground
        for thing in drawn[:i]:
            if thing.kind in (Kind.CARD, Kind.BOX, Kind.DISC) and _inside(text.sides, thing.sides, _ON_GROUND):
                r, g, b = (a + (z - a) * thing.alpha for a, z in zip(under, thing.colour, strict=True))
                under = r, g, b
        result.append((text, under))
    return result


def _inside(inner: Sides, outer: Sides, slack: float) -> bool:
    return (
        inner[0] >= outer[0] - slack
        and inner[1] >= outer[1] - slack
        and inner[2] <= outer[2] + slack
        and inner[3] <= outer[3] + slack
    )


def _collisions(here: Sequence[Drawn], boxes: npt.NDArray[np.float64], i: int) -> list[str]:
    """What a text collides with: other text before it, shapes whose edge it crosses, lines through it."""
    text = here[i]
    if text.moving:
        return []
    left, top, right, bottom = boxes[i]
    touching = np.flatnonzero(
        (boxes[:, 0] < right + _APART)
        & (boxes[:, 2] > left - _APART)
        & (boxes[:, 1] < bottom + _APART)
        & (boxes[:, 3] > top - _APART)
    )
    # What lies under an opaque shape that the text stands on, or that was drawn over the text, is not seen with it.
    base = -1
    for j in touching.tolist():
        solid = here[j].kind in (Kind.CARD, Kind.BOX, Kind.DISC) and here[j].alpha >= _OPAQUE
        if solid and j < i and _inside(text.sides, here[j].sides, _SLACK):
            base = j
        if solid and j > i and (here[j].moving or _inside(text.sides, here[j].sides, _SLACK)):
            return []
    found = []
    for j in touching.tolist():
        other = here[j]
        if j == i or j < base or other.moving:
            continue
        if other.kind is Kind.TEXT:
            if j < i:
                found.append(f"{text} overlaps {other}")
        elif other.kind is Kind.LINE:
            found.append(f"{text} is crossed by a {other}")
        elif other.kind is Kind.DISC and other.sides[2] - other.sides[0] < 2 * _MARK:
            found.append(f"{text} is hit by a mark, a {other}")
        elif other.kind is Kind.OUTLINE and _inside(other.sides, text.sides, _SLACK):
            continue  # a mark around some of its letters
        elif not _inside(text.sides, other.sides, _SLACK) and _overlap(text.sides, other.sides, _SLACK):
            edge = "outline" if other.kind is Kind.OUTLINE else "edge"
            found.append(f"{text} crosses the {edge} of a {other}")
    return found


def _overlap(one: Sides, other: Sides, slack: float) -> bool:
    return (
        one[0] < other[2] - slack
        and one[2] > other[0] + slack
        and one[1] < other[3] - slack
        and one[3] > other[1] + slack
    )
