"""What a beat draws on, as a protocol: units instead of pixels, y downwards from the top left corner, phrases as text.

A frame is 1,080 units along its shorter side. Beats and components know this alone; `tracereel.film.painter` draws with
cairo, and another renderer only has to have these methods. Knows phrases and colours by their meaning.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from tracereel.film.phrases import Phrase
from tracereel.film.theme import Colour, Type

Note = Callable[[Phrase, str], None]
"""Called with each phrase that is drawn, and the text it is drawn as where it had to be shortened: for a ledger."""
Floats = npt.NDArray[np.float64]
Sides = tuple[float, float, float, float]
"""Left, top, width and height."""


class Canvas(Protocol):
    """One frame being drawn. Lengths are in units, `alpha` is an opacity from 0 to 1."""

    @property
    def draws(self) -> bool:
        """Is anything drawn, or only taken note of? What letters nothing may leave out its work where nothing is."""

    def faded(self, alpha: float) -> AbstractContextManager[None]:
        """Draw everything inside with this opacity on top of what already holds."""

    def checked(self, check: Callable[[Phrase], None]) -> AbstractContextManager[None]:
        """Have every phrase that is drawn inside looked at first; `check` raises where it may not be drawn."""

    def moving(self) -> AbstractContextManager[None]:
        """Draw what is on its way from one place to another, and may pass over what stands."""

    def clipped(self, x: float, y: float, w: float, h: float) -> AbstractContextManager[None]:
        """Draw nothing outside this box."""

    def box(self, x: float, y: float, w: float, h: float, colour: Colour, alpha: float = 1.0) -> None:
        """A filled box, its edges on whole pixels."""

    def boxes(self, places: Sequence[Sides], colour: Colour, alpha: float = 1.0) -> None:
        """Filled boxes of one colour, each as `box` fills it, of which none covers another."""

    def card(
        self,
        x: float,
        y: float,
        w: float,
        h: float,
        colour: Colour,
        alpha: float = 1.0,
        *,
        radius: float = 12,
        outline: float | None = None,
    ) -> None:
        """A box with round corners: filled, or only its outline of that width."""

    def glow(self, x: float, y: float, w: float, h: float, colour: Colour, alpha: float) -> None:
        """A light behind letters: no edge that text must keep off."""

    def disc(
        self, x: float, y: float, radius: float, colour: Colour, alpha: float = 1.0, *, outline: float | None = None
    ) -> None:
        """A filled circle around (x, y), or only its outline of that width."""

    def line(
        self,
        points: list[tuple[float, float]],
        colour: Colour,
        alpha: float = 1.0,
        *,
        thickness: float = 2,
        dashes: tuple[float, ...] = (),
    ) -> None:
        """A line through points; nothing where there are fewer than two."""

    def area(self, points: list[tuple[float, float]], colour: Colour, alpha: float = 1.0) -> None:
        """A filled shape with these corners; nothing where there are fewer than three."""

    def stacked(self, sides: Sides, shares: Floats, colours: Sequence[Colour]) -> None:
        """Columns of one width across a box, each a stack from the box's bottom: a share of its height per colour.

        Shape of `shares`: (colours, columns). A stack ends at the box's top.
        """

    def text(
        self,
        phrase: Phrase,
        x: float,
        y: float,
        style: Type,
        colour: Colour,
        alpha: float = 1.0,
        *,
        align: float = 0.0,
        room: float | None = None,
        part: str | None = None,
    ) -> float:
        """Letter a phrase on the baseline y; `align` 0, 0.5, 1: x is its start, its middle, its end.

        Where it is wider than `room` it is cut, with an ellipsis; of a phrase in several lines `part` is the one meant.
        Returns its width. Raises ValueError where `part` is not in the phrase.
        """

    def tail(
        self, phrase: Phrase, x: float, y: float, style: Type, colour: Colour, *, room: float, ground: Colour
    ) -> float:
        """Letter the end of a phrase: from x on where it fits into `room`, else its beginning fades into the ground.

        Returns its width.
        """

    def image(self, file: Path, sides: Sides, alpha: float = 1.0) -> None:
        """A PNG as large as it fits into a place, at its left."""

    def code(self, phrase: Phrase, sides: Sides, alpha: float = 1.0, *, url: str | None = None) -> None:
        """A phrase as a QR code in a square place; of a `url`, where there is one, to which it is the fragment.

        It is as large as whole pixels allow, and stands in the place's lower right corner.
        """


class NotingCanvas(ABC):
    """What every renderer does alike: it notes the phrases that it letters, and multiplies the opacities that hold."""

    draws = True

    def __init__(self, note: Note):
        self._note, self._alpha = note, 1.0

    @contextmanager
    def faded(self, alpha: float) -> Iterator[None]:
        """Draw everything inside with this opacity (0 to 1) on top of what already holds."""
        before, self._alpha = self._alpha, self._alpha * min(max(alpha, 0.0), 1.0)
        try:
            yield
        finally:
            self._alpha = before

    @contextmanager
    def checked(self, check: Callable[[Phrase], None]) -> Iterator[None]:
        """Have every phrase that is drawn inside looked at first; `check` raises where it may not be drawn."""
        note = self._note

        def noted(phrase: Phrase, text: str) -> None:
            check(phrase)
            note(phrase, text)

        self._note = noted
        try:
            yield
        finally:
            self._note = note

    def stacked(self, sides: Sides, shares: Floats, colours: Sequence[Colour]) -> None:
        """Columns of stacked shares (colours, columns) in a box, as one area per colour."""
        x, y, w, h = sides
        edges = np.repeat(np.linspace(x, x + w, shares.shape[1] + 1), 2)[1:-1]
        heights = np.minimum(np.cumsum(np.vstack([np.zeros(shares.shape[1]), shares]), axis=0), 1.0)
        levels = np.repeat(y + h - heights * h, 2, axis=1)
        for low, high, colour in zip(levels[:-1], levels[1:], colours, strict=True):
            if (low > high).any():
                xs, ys = np.concatenate([edges, edges[::-1]]), np.concatenate([high, low[::-1]])
                self.area(list(zip(xs.tolist(), ys.tolist(), strict=True)), colour)

    def boxes(self, places: Sequence[Sides], colour: Colour, alpha: float = 1.0) -> None:
        """Filled boxes, one after the other."""
        for sides in places:
            self.box(*sides, colour, alpha)

    @abstractmethod
    def box(self, x: float, y: float, w: float, h: float, colour: Colour, alpha: float = 1.0) -> None:
        """A filled box: each renderer's own."""

    @abstractmethod
    def area(self, points: list[tuple[float, float]], colour: Colour, alpha: float = 1.0) -> None:
        """A filled shape: each renderer's own."""
