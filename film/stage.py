"""The stage: where things may stand in a frame of any shape. Knows units alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class Box:
    """A place: left, top, width and height in units."""

    x: float
    y: float
    w: float
    h: float

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.x + self.w

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.y + self.h

    def towards(self, other: "Box", share: float) -> "Box":
        """A place on the way to another, 0 here to 1 there."""
        return Box(
            self.x + (other.x - self.x) * share,
            self.y + (other.y - self.y) * share,
            self.w + (other.w - self.w) * share,
            self.h + (other.h - self.h) * share,
        )

    @property
    def sides(self) -> tuple[float, float, float, float]:
        """(x, y, w, h)."""
        return self.x, self.y, self.w, self.h

    def grown(self, by: float) -> "Box":
        """The place of an outline around this one, `by` units outside each side."""
        return Box(self.x - by, self.y - by, self.w + 2 * by, self.h + 2 * by)

    def rows(self, count: int, gap: float) -> list["Box"]:
        """Split into equal rows, the first on top."""
        height = (self.h - gap * (count - 1)) / count
        return [Box(self.x, self.y + i * (height + gap), self.w, height) for i in range(count)]

    def shares(self, shares: Sequence[float], gap: float) -> list["Box"]:
        """Split into rows whose heights are in these proportions, the first on top."""
        turned = Box(self.y, self.x, self.h, self.w).columns(shares, gap)
        return [Box(box.y, box.x, box.h, box.w) for box in turned]

    def columns(self, shares: Sequence[float], gap: float) -> list["Box"]:
        """Split into columns whose widths are in these proportions."""
        room = self.w - gap * (len(shares) - 1)
        boxes, x = [], self.x
        for share in shares:
            width = room * share / sum(shares)
            boxes.append(Box(x, self.y, width, self.h))
            x += width + gap
        return boxes


@dataclass(frozen=True)
class Spot:
    """A place at which something is seen, and how strongly (0 to 1); `radius` is that of its corners.

    `moving`: is it on its way, and may pass over what stands?
    """

    box: Box
    alpha: float = 1.0
    round: bool = False
    radius: float = 4.0
    moving: bool = False


class Shape(Enum):
    """The three layouts there are; a frame has the one that is nearest to its own."""

    WIDE, TALL, SQUARE = range(3)


_WIDER = 1.2
"""A frame is wide where it is so many times as wide as high, tall where it is so many times as high as wide."""
_SAFE = 0.035
"""The share of a frame that is kept free at every side (EBU R 95, action safe area)."""
_CONTROLS = 0.10, 0.12, 0.20
"""The shares of an upright frame, at its top, its right and its bottom, over which apps put their controls."""


@dataclass(frozen=True)
class Stage:
    """A frame of `width` x `height` units and the places that every scene keeps free or uses.

    `captioned`: is there a place for captions in the picture?
    """

    width: float
    height: float
    captioned: bool = True
    foot: float = 0.0
    """Units between the scene and the strip that are kept free, for what is told through all of a film."""

    @classmethod
    def of_pixels(cls, width: int, height: int, captioned: bool = True) -> "Stage":
        """The stage of a frame of that many pixels."""
        unit = min(width, height) / 1080
        return cls(width / unit, height / unit, captioned)

    @property
    def shape(self) -> Shape:
        """Which layout fits."""
        if self.width > self.height * _WIDER:
            return Shape.WIDE
        return Shape.TALL if self.height > self.width * _WIDER else Shape.SQUARE

    @property
    def wide(self) -> bool:
        """Is it a landscape frame, to be filled side by side rather than one above the other?"""
        return self.shape is Shape.WIDE

    @property
    def safe(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what every screen shows."""
        x, y = self.width * _SAFE, self.height * _SAFE
        return x, y, self.width - x, self.height - y

    @property
    def clear(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what nothing covers where the film is watched: all that is needed is inside.

        In an upright frame apps put their controls around it.
        """
        left, top, right, bottom = self.safe
        if self.shape is not Shape.TALL:
            return left, top, right, bottom
        above, beside, below = _CONTROLS
        return left, self.height * above, self.width * (1 - beside), self.height * (1 - below)

    @property
    def margin(self) -> float:
        """Everything is laid out so far from the left side."""
        return {Shape.WIDE: 72.0, Shape.TALL: 56.0, Shape.SQUARE: 48.0}[self.shape]

    @property
    def right(self) -> float:
        """Where what is laid out ends."""
        return self.clear[2] if self.shape is Shape.TALL else self.width - self.margin

    @property
    def room(self) -> float:
        """How wide what is laid out is."""
        return self.right - self.margin

    @property
    def title_line(self) -> float:
        """The title's baseline."""
        return {Shape.WIDE: 100.0, Shape.TALL: self.clear[1] + 92, Shape.SQUARE: 92.0}[self.shape]

    @property
    def caption_lines(self) -> tuple[float, ...]:
        """Baselines of the caption."""
        if not self.captioned:
            return ()
        first = self.title_line + {Shape.WIDE: 60.0, Shape.TALL: 68.0, Shape.SQUARE: 56.0}[self.shape]
        count = {Shape.WIDE: 1, Shape.TALL: 3, Shape.SQUARE: 2}[self.shape]
        return tuple(first + 46 * i for i in range(count))

    @property
    def strip_lines(self) -> tuple[float, ...]:
        """Baselines of the clock strip: the clock first, then where the picture comes from.

        In an upright frame the clock is where nothing covers it; the rest may be covered.
        """
        if self.shape is Shape.TALL:
            clock = self.clear[3] - 14
            return clock, clock + 48, clock + 88, clock + 128
        bottom = self.height - (50 if self.wide else 44)
        return (bottom - 42, bottom) if self.wide else (bottom - 110, bottom - 72, bottom - 36, bottom)

    @property
    def content(self) -> Box:
        """Where the scene itself stands."""
        top = (self.caption_lines[-1] if self.captioned else self.title_line) + (44 if self.captioned else 34)
        return Box(self.margin, top, self.room, self.strip_lines[0] - 68 - self.foot - top)
