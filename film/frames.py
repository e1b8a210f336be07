"""A frame of a beat, painted without Manim: for stills, for verification, and for whoever looks at layouts.

The same painters draw it, so it holds nothing that the film does not. Knows beats and canvases.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cairo
from tracereel.film.beat import Beat, framed
from tracereel.film.canvas import Floats, Note, Sides
from tracereel.film.layout import Watch
from tracereel.film.painter import CairoCanvas
from tracereel.film.show import Show
from tracereel.film.theme import GROUND, Colour, Palette, Type


class BeatFrames:
    """Paints frames of one beat; `note` is called with every phrase drawn, `watch` with the place of everything.

    `ground`: is the frame filled with the ground's colour before anything is drawn? It has an alpha channel where not.
    """

    def __init__(
        self,
        beat: Beat,
        show: Show,
        *,
        note: Note = lambda phrase, text: None,
        watch: Watch | None = None,
        ground: bool = True,
    ) -> None:
        self._show, self._note, self._watch, self._ground = show, note, watch, ground
        self._paint = framed(beat, show.stage, show.say)

    def at(self, film_s: float) -> cairo.ImageSurface:
        """The frame at a second of the beat."""
        show = self._show
        surface = cairo.ImageSurface(cairo.FORMAT_RGB24 if self._ground else cairo.FORMAT_ARGB32, *show.pixels)
        pen = cairo.Context(surface)
        if self._ground:
            pen.set_source_rgb(*show.palette.rgb(GROUND))
            pen.paint()
        self._paint(CairoCanvas(pen, show.pixels, self._note, show.palette, watch=self._watch), film_s)
        surface.flush()
        return surface

    def said_at(self, film_s: float) -> None:
        """Note what the frame letters, and draw nothing."""
        self._paint(_Unpainted(self._show.pixels, self._note, self._show.palette), film_s)


class _Unpainted(CairoCanvas):
    """Takes note of what is lettered; draws nothing, which is several times quicker."""

    draws = False

    def __init__(self, pixels: tuple[int, int], note: Note, palette: Palette):
        super().__init__(cairo.Context(cairo.ImageSurface(cairo.FORMAT_A8, 1, 1)), pixels, note, palette)

    @contextmanager
    def clipped(self, x: float, y: float, w: float, h: float) -> Iterator[None]:
        """Everything goes on."""
        yield

    def box(self, x: float, y: float, w: float, h: float, colour: Colour, alpha: float = 1.0) -> None:
        """Nothing."""

    def boxes(self, places: Sequence[Sides], colour: Colour, alpha: float = 1.0) -> None:
        """Nothing."""

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
        """Nothing."""

    def disc(
        self, x: float, y: float, radius: float, colour: Colour, alpha: float = 1.0, *, outline: float | None = None
    ) -> None:
        """Nothing."""

    def line(
        self,
        points: list[tuple[float, float]],
        colour: Colour,
        alpha: float = 1.0,
        *,
        thickness: float = 2,
        dashes: tuple[float, ...] = (),
    ) -> None:
        """Nothing."""

    def area(self, points: list[tuple[float, float]], colour: Colour, alpha: float = 1.0) -> None:
        """Nothing."""

    def stacked(self, sides: Sides, shares: Floats, colours: Sequence[Colour]) -> None:
        """Nothing."""

    def image(self, file: Path, sides: Sides, alpha: float = 1.0) -> None:
        """Nothing."""

    def _letter(self, text: str, x: float, y: float, style: Type) -> None:
        pass

    def _veil(self, x: float, y: float, w: float, h: float, colour: Colour) -> None:
        pass
