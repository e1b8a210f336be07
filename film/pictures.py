"""Are a film's pictures those that were drawn? Decodes frames and measures how far each is from a drawn one.

Compared are brightness and colour apart (Y, U, V), as the signed mean difference of every square of 4 x 4 pixels: what
an encoder loses lies around 0, a glyph, a bar or a colour of another value does not. Knows pixels and containers alone.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from threading import Thread

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

Plane = npt.NDArray[np.uint8]
Planes = tuple[Plane, Plane, Plane]
"""Brightness, and two of colour at half its size."""
_AHEAD = 8
_BT601 = 5
_SQUARE = 4


@dataclass(frozen=True)
class Picture:
    """A decoded frame: its place in the file, when it is shown (seconds), and its planes where they were wanted."""

    index: int
    at_s: float
    planes: Planes | None


@dataclass(frozen=True)
class Distance:
    """How far a picture is from the drawn one, in brightness and colour (0 to 255), and where most of all (pixels)."""

    light: float
    light_at: tuple[int, int]
    colour: float
    colour_at: tuple[int, int]


def pictures(film: Path, wanted: Collection[int] | None = None) -> Iterator[Picture]:
    """Every frame of a film in order, decoded on a thread; planes are kept of those `wanted`, of all where it is None.

    Raises av.FFmpegError where the film is broken.
    """
    queue: Queue[Picture | Exception | None] = Queue(_AHEAD)
    stopped = False

    def decode() -> None:
        try:
            with av.open(str(film)) as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                for i, frame in enumerate(container.decode(stream)):
                    if stopped:
                        return
                    planes = _planes_of(frame) if wanted is None or i in wanted else None
                    queue.put(Picture(i, float(frame.time or 0), planes))
            queue.put(None)
        except Exception as error:  # handed to whoever asked
            queue.put(error)

    worker = Thread(target=decode, daemon=True)
    worker.start()
    try:
        while (found := queue.get()) is not None:
            if isinstance(found, Exception):
                raise found
            yield found
    finally:
        stopped = True
        while worker.is_alive():
            if not queue.empty():
                queue.get()
            worker.join(0.001)


def planes_of(pixels: Plane, width: int | None = None) -> Planes:
    """The planes of drawn pixels, shape (height, width, 4), blue first; scaled to a width where one is given."""
    if width is not None:
        height = round(pixels.shape[0] * width / pixels.shape[1])
        pixels = np.asarray(Image.fromarray(pixels, "RGBX").resize((width, height), Image.Resampling.LANCZOS))
    return _planes_of(av.VideoFrame.from_ndarray(pixels, format="bgra"))


def distance(one: Planes, other: Planes) -> Distance:
    """How far apart two pictures of one size are."""
    light, light_at = _farthest(one[0], other[0])
    colours = [_farthest(one[i], other[i]) for i in (1, 2)]
    colour, (x, y) = max(colours)
    return Distance(light, light_at, colour, (2 * x, 2 * y))


def _planes_of(frame: av.VideoFrame) -> Planes:
    if frame.format.name != "yuv420p":
        frame = frame.reformat(format="yuv420p", dst_colorspace=_BT601)
    y, u, v = (
        np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in frame.planes
    )
    return y, u, v


def _farthest(one: Plane, other: Plane) -> tuple[float, tuple[int, int]]:
    """The largest mean difference of a square, and the square's left upper corner."""
    difference = one.astype(np.int16) - other
    high, wide = (side // 2 * 2 for side in difference.shape)
    cells = difference[:high, :wide].astype(np.int32)
    halves = cells[::2] + cells[1::2]
    quarters = halves[:, ::2] + halves[:, 1::2]
    squares = np.abs(quarters[:-1, :-1] + quarters[1:, :-1] + quarters[:-1, 1:] + quarters[1:, 1:])
    if not squares.size:
        return float(np.abs(difference).max(initial=0)), (0, 0)
    y, x = np.unravel_index(int(squares.argmax()), squares.shape)
    return float(squares[y, x]) / _SQUARE**2, (2 * int(x), 2 * int(y))
