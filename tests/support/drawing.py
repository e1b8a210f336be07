"""Draws on a blank picture and reads its pixels back."""

import cairo
import numpy as np
from tracereel.film import theme
from tracereel.film.painter import CairoCanvas

LOOK = theme.DARK.rgb
SIZE = (1708, 960)
SCALE = min(SIZE) / 1080
"""Pixels a unit in a picture of SIZE."""


def draw(paint, size=(854, 480)):
    """Run a paint function on a blank picture; returns pixels (r, g, b) and the phrases drawn."""
    surface = cairo.ImageSurface(cairo.FORMAT_RGB24, *size)
    pen = cairo.Context(surface)
    pen.set_source_rgb(*LOOK(theme.GROUND))
    pen.paint()
    phrases = []
    paint(CairoCanvas(pen, size, lambda phrase, text: phrases.append(phrase)))
    return pixels_of(surface), phrases


def pixels_of(surface):
    """The pixels of a picture: (height, width, 3), red first."""
    surface.flush()
    wide, high = surface.get_width(), surface.get_height()
    rows = np.frombuffer(surface.get_data(), np.uint8).reshape(high, surface.get_stride() // 4, 4)
    return rows[:, :wide, 2::-1].copy()


def colour_at(pixels, x, y):
    """The colour of a pixel, components 0 to 1."""
    return tuple(pixels[round(y), round(x)] / 255)


def pixel(picture, x, y):
    """The colour at a place in units of a picture of SIZE."""
    return colour_at(picture, min(x * SCALE, SIZE[0] - 1), min(y * SCALE, SIZE[1] - 1))


def near(one, other):
    """Do two colours look the same?"""
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) < 0.03
