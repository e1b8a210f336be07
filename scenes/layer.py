"""How a painter's drawing gets into Manim's frame, and the frame into the film, without a mobject for each thing drawn.

One `Layer` mobject holds a painter; `LayerCamera` lets it draw straight into the frame's pixels. `ReelRenderer` keeps
the ledger. Knows Manim's renderer; does not know what is painted.
"""

from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

import av
import cairo
import numpy as np
from manim import WHITE, Camera, Mobject, Scene, VMobject
from manim.renderer.cairo_renderer import CairoRenderer
from manim.scene.scene_file_writer import SceneFileWriter
from manim.scene.video_segment_encoder import VideoSegmentEncoder
from tracereel.film.canvas import Canvas
from tracereel.film.layout import Drawn, Watch
from tracereel.film.ledger import Ledger
from tracereel.film.theme import DARK, Palette

OnFrame = Callable[[np.ndarray[Any, Any], list[Drawn]], None]
Paint = Callable[[Canvas], None]


class _Painter:
    """Holds the paint function outside the mobject: animations copy mobjects, and a painter is not to be copied."""

    def __init__(self, paint: Paint):
        self.paint = paint

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Painter":
        return self


class Layer(VMobject):
    """A mobject that is drawn by a painter; fades like any other.

    `identity` is a string that changes with what would be drawn (the trace's digest, say): Manim's cache of rendered
    segments sees nothing else of it.
    """

    def __init__(self, paint: Paint, identity: str):
        super().__init__(stroke_width=0, fill_color=WHITE, fill_opacity=1)
        self.points = np.zeros((4, 3))  # a mobject without points is left out of the frame
        self.painter = _Painter(paint)
        self.identity = identity


class LayerCamera(Camera):
    """Manim's camera, with a way for layers to draw themselves."""

    ledger: Ledger
    palette: Palette
    watch: Watch | None
    _plain: tuple[object, np.uint32 | None] = (None, None)
    """A background, and its pixels where they are all the same."""

    def reset(self) -> "LayerCamera":
        """Begin a frame with the background; one of a single colour is filled in, which is quicker than a copy."""
        assert self.background is not None
        if self._plain[0] is not self.background:
            super().reset()
            pixels = self.background.view(np.uint32)
            self._plain = self.background, pixels.flat[0] if (pixels == pixels.flat[0]).all() else None
        elif self._plain[1] is None:
            super().reset()
        else:
            self.pixel_array.view(np.uint32).fill(self._plain[1])
        return self

    def hand_over(self) -> np.ndarray[Any, Any]:
        """The frame that was drawn, for good: the next one is drawn into other memory, and none is copied."""
        frame, self.pixel_array = self.pixel_array, np.empty_like(self.pixel_array)
        self.pixel_array_to_cairo_context.clear()
        return frame

    def display_vectorized(self, vmobject: VMobject, ctx: "cairo.Context[Any]") -> "LayerCamera":
        """Draw a mobject; a layer by its painter."""
        painter = getattr(vmobject, "painter", None)
        if painter is None:
            super().display_vectorized(vmobject, ctx)
            return self
        opacity = float(vmobject.get_fill_opacity())
        if opacity <= 0:
            return self
        ctx.save()
        canvas = Canvas(
            ctx,
            (self.pixel_width, self.pixel_height),
            self.ledger.note,
            self.palette,
            watch=self.watch if opacity == 1 else None,
            swapped=True,
        )
        if opacity < 1:
            ctx.push_group()
            painter.paint(canvas)
            ctx.pop_group_to_source()
            ctx.identity_matrix()
            ctx.paint_with_alpha(opacity)
        else:
            painter.paint(canvas)
        ctx.restore()
        return self


class _Encoder(VideoSegmentEncoder):
    """Hands frames to the encoder without copying them twice."""

    def write_frame(self, pixels: np.ndarray[Any, Any], *, repeat: int = 1) -> None:
        if repeat > 1:
            super().write_frame(pixels, repeat=repeat)
            return
        self._validate_frame(pixels, repeat)
        rate = self.spec.frame_rate
        frame = av.VideoFrame.from_numpy_buffer(pixels, format="rgba")
        frame.pts, frame.time_base = self._next_pts, Fraction(rate.denominator, rate.numerator)
        self._next_pts += 1
        for packet in self._stream.encode(frame):  # type: ignore[union-attr, arg-type]
            self._container.mux(packet)


# The encoder uses Manim's private fields: where they are not there, Manim's own encoder does the work.
_KNOWS_ENCODER = hasattr(VideoSegmentEncoder, "_validate_frame") and hasattr(SceneFileWriter, "_create_segment_encoder")


class _Writer(SceneFileWriter):
    def _create_segment_encoder(self, target: Any) -> VideoSegmentEncoder:
        assert self.video_encoder is not None
        return _Encoder(target=target, spec=self.video_encoder)


class ReelRenderer(CairoRenderer):
    """Manim's renderer with layers, a quicker encoder, and a ledger of every frame.

    `on_frame`, where there is one, is told each frame's pixels (height, width, 4) and everything drawn in it.
    """

    camera: LayerCamera

    def __init__(self, palette: Palette = DARK, on_frame: OnFrame | None = None) -> None:
        writer = _Writer if _KNOWS_ENCODER else SceneFileWriter
        super().__init__(file_writer_class=writer, camera_class=LayerCamera)
        self.ledger = Ledger()
        self.camera.ledger = self.ledger
        self.camera.palette = palette
        self._on_frame = on_frame
        self.on_progress: Callable[[int], None] | None = None
        """Told how many frames are done."""
        self._drawn: list[Drawn] = []
        self.camera.watch = self._drawn.append if on_frame else None

    def render(self, scene: Scene, time: float, moving_mobjects: Iterable[Mobject] | None = None) -> None:
        """Draw a frame and add it to the film."""
        self.update_frame(scene, moving_mobjects)
        self.add_frame(self.camera.hand_over())

    def add_frame(self, frame: np.ndarray[Any, Any], num_frames: int = 1) -> None:
        """Add a frame to the film and to the ledger."""
        if not self.skip_animations and num_frames:
            self.ledger.frame(num_frames)
            if self.on_progress is not None:
                self.on_progress(self.ledger.frames)
            if self._on_frame is not None:
                self._on_frame(frame, list(self._drawn))
                self._drawn.clear()
        super().add_frame(frame, num_frames)
