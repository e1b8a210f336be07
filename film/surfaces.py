"""What many frames draw alike, made once: images, QR codes, discs and stacked columns, as cairo draws them.

Knows pixels and colours as they are mixed; does not know where anything is drawn.
"""

import math
from functools import lru_cache
from pathlib import Path

import cairo
import numpy as np
import segno


@lru_cache(maxsize=4)
def image_of(file: Path, swapped: bool) -> cairo.ImageSurface:
    """A PNG as cairo draws it, red and blue exchanged where the frame's are."""
    picture = cairo.ImageSurface.create_from_png(str(file))
    if not swapped:
        return picture
    copy = cairo.ImageSurface(cairo.FORMAT_ARGB32, picture.get_width(), picture.get_height())
    pen = cairo.Context(copy)
    pen.set_source_surface(picture)
    pen.paint()
    copy.flush()
    pixels = np.frombuffer(copy.get_data(), np.uint8).reshape(copy.get_height(), copy.get_stride() // 4, 4)
    pixels[:, :, [0, 2]] = pixels[:, :, [2, 0]]
    copy.mark_dirty()
    return copy


@lru_cache(maxsize=4)
def qr_modules(text: str) -> tuple[tuple[bool, ...], ...]:
    """The modules of a QR code, its quiet zone left out."""
    return tuple(tuple(bool(module) for module in row) for row in segno.make(text, error="l", micro=False).matrix)


@lru_cache(maxsize=1024)
def disc_mask(radius: float, line: float | None, x_quarters: int, y_quarters: int) -> tuple[cairo.ImageSurface, int]:
    """A disc, or its outline as wide as `line`, as a mask in pixels; and where its middle is, less the quarters."""
    reach = math.ceil(radius + (line or 0.0) / 2) + 1
    mask = cairo.ImageSurface(cairo.FORMAT_A8, 2 * reach + 1, 2 * reach + 1)
    ctx = cairo.Context(mask)
    ctx.arc(reach + x_quarters / 4, reach + y_quarters / 4, radius, 0, 2 * math.pi)
    if line is None:
        ctx.fill()
    else:
        ctx.set_line_width(line)
        ctx.stroke()
    mask.flush()
    return mask, reach


@lru_cache(maxsize=128)
def stack_of(
    shares: bytes, colours: tuple[tuple[float, float, float], ...], wide: int, high: int
) -> cairo.ImageSurface:
    """Columns of stacked shares as a picture of that many pixels: while the view stands, rows are the same picture."""
    tops = 1 - np.minimum(np.cumsum(np.frombuffer(shares).reshape(len(colours), -1), axis=0), 1.0)
    # How much of a pixel lies below each top.
    bottoms = np.arange(1, high + 1, dtype=np.float32)[:, np.newaxis, np.newaxis]
    covered = np.clip(bottoms - (tops.T * high).astype(np.float32), 0, 1)
    # From below, a pixel has the share of the first colour, then that of the next beyond it: premultiplied, in ARGB32.
    inks = np.array([(b, g, r, 1.0) for r, g, b in colours], np.float32)
    steps = inks - np.vstack([inks[1:], np.zeros((1, 4), np.float32)])
    columns = (covered @ (steps * 255) + 0.5).astype(np.uint8)
    picture = cairo.ImageSurface(cairo.FORMAT_ARGB32, wide, high)
    pixels = np.frombuffer(picture.get_data(), np.uint32).reshape(high, picture.get_stride() // 4)
    pixels[:, :wide] = columns.view(np.uint32)[:, np.arange(wide) * columns.shape[1] // wide, 0]
    picture.mark_dirty()
    return picture
