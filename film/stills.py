"""A film's still: the one frame that tells what it is about, as a PNG beside it.

Painted by the same painters, so it holds nothing that the film does not. Knows beats and canvases.
"""

from collections.abc import Sequence
from pathlib import Path

import cairo
from tracereel.film.beat import Beat, framed
from tracereel.film.canvas import Canvas
from tracereel.film.show import Show
from tracereel.film.theme import GROUND


def write_still(film: Path, beats: Sequence[Beat], show: Show) -> None:
    """Write `<film>.png`, its suffix left out: the first still that a beat names, else the end of the first beat."""
    beat = next((beat for beat in beats if beat.still_s is not None), beats[0])
    surface = cairo.ImageSurface(cairo.FORMAT_RGB24, *show.pixels)
    pen = cairo.Context(surface)
    pen.set_source_rgb(*show.palette.rgb(GROUND))
    pen.paint()
    second = beat.clock.film_s - 0.1 if beat.still_s is None else beat.still_s
    canvas = Canvas(pen, show.pixels, lambda phrase, text: None, show.palette)
    framed(beat, show.stage, show.say)(canvas, second)
    part = film.with_suffix(".partial.png")
    surface.write_to_png(str(part))
    part.replace(film.with_suffix(".png"))
