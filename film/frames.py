"""A frame of a beat, painted without Manim: for stills, and for whoever looks at layouts.

The same painters draw it, so it holds nothing that the film does not. Knows beats and canvases.
"""

import math

import cairo
from tracereel.film.beat import Beat, framed
from tracereel.film.canvas import Note
from tracereel.film.layout import Watch
from tracereel.film.painter import CairoCanvas
from tracereel.film.show import Show
from tracereel.film.theme import GROUND


class BeatFrames:
    """Paints frames of one beat; `note` is called with every phrase drawn, `watch` with the place of everything."""

    def __init__(
        self, beat: Beat, show: Show, *, note: Note = lambda phrase, text: None, watch: Watch | None = None
    ) -> None:
        self._beat, self._show, self._note, self._watch = beat, show, note, watch
        self._paint = framed(beat, show.stage, show.say)

    def count(self, rate: float) -> int:
        """The frames that the beat has at so many a second, those in which it comes and goes left out."""
        return math.ceil(round(self._beat.clock.film_s * rate, 6))

    def at(self, film_s: float) -> cairo.ImageSurface:
        """The frame at a second of the beat."""
        show = self._show
        surface = cairo.ImageSurface(cairo.FORMAT_RGB24, *show.pixels)
        pen = cairo.Context(surface)
        pen.set_source_rgb(*show.palette.rgb(GROUND))
        pen.paint()
        self._paint(CairoCanvas(pen, show.pixels, self._note, show.palette, watch=self._watch), film_s)
        surface.flush()
        return surface
