"""The one module that knows Manim: how a scene's beats become a film.

A scene is a `FilmScene` with the name under which it is registered; `play_beat` plays a beat from start to end as a
single animation, driven by one tracker of film time. One `Layer` mobject holds what the beat paints, `LayerCamera` lets
it draw straight into the frame's pixels, and `FilmRenderer` keeps the ledger.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from configparser import ConfigParser
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cairo
import numpy as np
from manim import WHITE, Camera, Mobject, Scene, ValueTracker, VMobject, config, linear, logger, tempconfig
from manim._config.utils import ManimConfig, config_file_paths
from manim.constants import RendererType
from manim.renderer.cairo_renderer import CairoRenderer
from manim.scene.scene_file_writer import SceneFileWriter
from manim.scene.video_segment_encoder import VideoSegmentEncoder
from manim.utils.color import ManimColor
from tracereel.film.beat import Beat, framed
from tracereel.film.canvas import Canvas
from tracereel.film.encoding import ALWAYS, QUICKLY
from tracereel.film.frame_memory import FrameMemory
from tracereel.film.frames import BeatFrames
from tracereel.film.ledger import Ledger, LedgerFile
from tracereel.film.opener import find_opener
from tracereel.film.painter import CairoCanvas
from tracereel.film.passages import instants_of, passages_of
from tracereel.film.provenance import provenance_of
from tracereel.film.publishing import publish
from tracereel.film.recipe import Recipe
from tracereel.film.registry import class_name
from tracereel.film.schedule import frames_of, schedule
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.staging import staged
from tracereel.film.storyboards import storyboard
from tracereel.film.theme import DARK, GROUND, Palette
from tracereel.trace.format.text import printable

Paint = Callable[[Canvas], None]
OnProgress = Callable[[int, int], None]


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
    memory: FrameMemory
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
        """The frame that was drawn: the next one is drawn into other memory, and none is copied."""
        frame, self.pixel_array = self.pixel_array, self.memory.take(self.pixel_array)
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
        canvas = CairoCanvas(
            ctx,
            (self.pixel_width, self.pixel_height),
            self.ledger.note,
            self.palette,
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
    """Hands frames to the encoder without copying them twice, and their memory back."""

    memory: FrameMemory

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
        if self.spec.pixel_format != frame.format.name:  # else the encoder may keep the frame itself, and not a copy
            self.memory.give_back(pixels)


# The encoder uses Manim's private fields: where they are not there, Manim's own encoder does the work.
_KNOWS_ENCODER = hasattr(VideoSegmentEncoder, "_validate_frame")


class _Writer(SceneFileWriter):
    folder: Path | None = None
    """Where the film is made until it is whole."""
    memory: FrameMemory
    made: Callable[[], None] = staticmethod(lambda: None)
    """Called when Manim has made the film, before it is opened for a preview."""

    @property
    def target(self) -> Path:
        """The film's place; also a GIF has its scene's name alone, without Manim's version."""
        path: Path = super().movie_file_path
        return path.with_name(f"{self.output_plan.output_stem}{path.suffix}")

    @property
    def movie_file_path(self) -> Path:
        """Where Manim writes the film."""
        return self.target if self.folder is None else self.folder / self.target.name

    def print_file_ready_message(self, file_path: Any) -> None:
        """Note and report the film's place, which it has when `made` has been called."""
        super().print_file_ready_message(file_path if self.folder is None else self.target)

    def finish(self) -> None:
        """Join the film's parts."""
        super().finish()
        self.made()

    def _create_segment_encoder(self, target: Any) -> VideoSegmentEncoder:
        if not _KNOWS_ENCODER:
            return super()._create_segment_encoder(target)
        assert self.video_encoder is not None
        encoder = _Encoder(target=target, spec=self.video_encoder)
        encoder.memory = self.memory
        return encoder


class FilmRenderer(CairoRenderer):
    """Manim's renderer with layers, a quicker encoder, and a ledger of every frame.

    `on_frame` is called with the number of frames done.
    """

    camera: LayerCamera

    def __init__(self, palette: Palette = DARK, on_frame: Callable[[int], None] = lambda frames: None) -> None:
        super().__init__(file_writer_class=_Writer, camera_class=LayerCamera)
        self.ledger = Ledger()
        self.camera.ledger = self.ledger
        self.camera.palette = palette
        self.camera.memory = FrameMemory()
        self._on_frame = on_frame

    def init_scene(self, *args: Any, **options: Any) -> None:
        """Make what writes the film's file, which gives the frames' memory back."""
        super().init_scene(*args, **options)
        self.file_writer.memory = self.camera.memory

    def render(self, scene: Scene, time: float, moving_mobjects: Iterable[Mobject] | None = None) -> None:
        """Draw a frame and add it to the film."""
        self.update_frame(scene, moving_mobjects)
        self.add_frame(self.camera.hand_over())

    def add_frame(self, frame: np.ndarray[Any, Any], num_frames: int = 1) -> None:
        """Add a frame to the film and to the ledger."""
        if not self.skip_animations and num_frames:
            self.ledger.frame(num_frames)
            self._on_frame(self.ledger.frames)
        super().add_frame(frame, num_frames)


class UnknownRendererError(Exception):
    """Another renderer than Cairo is asked for; the message is one line."""


class FilmScene(Scene):
    """A scene or a film of the registry, by its `name`.

    `settings` default to those in the environment, `facts` go into the film's metadata too, `on_progress` is called
    with the frames done and the frames there will be.
    """

    name: str
    renderer: FilmRenderer

    def __init__(
        self,
        settings: Settings | None = None,
        facts: Mapping[str, str] | None = None,
        on_progress: OnProgress = lambda done, total: None,
        **options: Any,
    ):
        with _one_line():
            if config.renderer != RendererType.CAIRO:
                raise UnknownRendererError(f"renderer {config.renderer.value}: scenes are painted by Cairo alone")
            pixels = config.pixel_width, config.pixel_height
            self.show = show = Show(settings or Settings.from_environment(), pixels)
        _configure(show.palette)
        renderer = options.pop("renderer", None) or FilmRenderer(
            show.palette, lambda done: on_progress(done, self._expected)
        )
        super().__init__(renderer=renderer, **options)
        self._facts, self._expected, self._alone = facts or {}, 0, settings is None  # as Manim itself makes a scene
        self.timed_beats: list[tuple[float, Beat]] = []
        """The beats that were played, each with the second of film at which its own clock begins."""

    def render(self, preview: bool = False) -> bool:
        """Render; recordings that cannot be played, and full disks, end it with one line and exit code 2."""
        with _one_line(self._alone), ExitStack() as stage:
            if (settings := self.show.settings).narration:
                settings.voice.ready(settings.language)  # rather now than after an hour of rendering
            self._set(stage)
            return super().render(preview)

    def _set(self, stage: ExitStack) -> None:
        """Have the film made aside: an earlier one is whole until the new one is. Raises LockedError, OSError."""
        writer = self.renderer.file_writer
        target = getattr(writer, "target", None)
        if target is None or config.save_last_frame or config.dry_run:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        writer.folder = stage.enter_context(staged(target))

        def made() -> None:
            self._publish(writer.movie_file_path)
            stage.close()  # the film and its files take their places

        writer.made = made

    def construct(self) -> None:
        """Play what the storyboard says."""
        beats = storyboard(self.name, self.show)
        self._expected = sum(frames_of(beat, config.frame_rate) for beat in beats)
        if logger.isEnabledFor(logging.INFO) and not config.save_last_frame:
            logger.info(self._foreseen(beats))
        for beat in beats:
            self.play_beat(beat)

    def _foreseen(self, beats: Sequence[Beat]) -> str:
        """What the film will take, before it is begun: a frame of each beat is painted and timed."""
        drawing_s = 0.0
        for beat in beats:
            frames = BeatFrames(beat, self.show)
            frames.at(beat.clock.film_s / 2)  # the first one also loads faces and makes sprites
            began = time.perf_counter()
            frames.at(beat.clock.film_s / 2)
            drawing_s += (time.perf_counter() - began) * frames_of(beat, config.frame_rate)
        film_s = self._expected / config.frame_rate
        return (
            f"{self._expected} frames, {film_s:.0f} s of film; to draw them takes about {max(drawing_s, 1):.0f} s here,"
            " and to encode them as long again or longer"
        )

    def play_beat(self, beat: Beat) -> None:
        """Play a beat; the next one follows without a fade."""
        film_s = beat.clock.film_s
        film_time = ValueTracker(0.0)
        paint = framed(beat, self.show.stage, self.show.say)
        layer = Layer(
            lambda canvas: paint(canvas, film_time.get_value()), " ".join(run.trace.digest for run in beat.runs)
        )
        if config.save_last_frame:  # a still is of the second that shows the beat best
            self.clear()
            film_time.set_value(film_s - 0.1 if beat.still_s is None else beat.still_s)
            self.add(layer)
            return
        self.add(layer)
        self.timed_beats.append((self.renderer.ledger.frames / config.frame_rate, beat))
        layer.add_updater(lambda mobject: None)  # makes it part of what is drawn again in every frame
        self.play(film_time.animate.set_value(film_s), run_time=film_s, rate_func=linear)
        layer.clear_updaters()
        # A tracker left in the scene would make everything that is added later move with it.
        self.remove(layer, film_time)

    def _publish(self, path: Path) -> None:
        """Write what goes with the film, where there is one."""
        ledger = self.renderer.ledger
        if not ledger.frames or not path.is_file():
            return
        beats = [beat for _, beat in self.timed_beats]
        name = getattr(self, "name", type(self).__name__)
        recipe = Recipe.of(name, self.show, config.frame_rate, transparent=config.transparent)
        file = LedgerFile(
            film=path.name,
            frames=ledger.frames,
            frame_rate=float(config.frame_rate),
            provenance={**provenance_of(list(self.show.shown.values())), **recipe.facts, **self._facts},
            clock=passages_of(instants_of(beats, schedule(beats, config.frame_rate))),
            claims=ledger.claims(),
        )
        publish(path, self.show, self.timed_beats, file)


@contextmanager
def configured(options: dict[str, Any]) -> Iterator[None]:
    """Within it Manim has its own defaults and `options`: no manim.cfg of the folder or the home changes a film."""
    parser = ConfigParser()
    parser.read(config_file_paths()[0], encoding="utf-8")
    with tempconfig(ManimConfig().digest_parser(parser)), tempconfig(options):
        yield


def scene_class(name: str) -> type[FilmScene]:
    """The Manim scene of a registered name, as its file in scenes/ defines it."""
    return type(class_name(name), (FilmScene,), {"name": name, "__doc__": f"The scene {name}."})


def _configure(palette: Palette) -> None:
    """Set what Manim takes from its configuration alone."""
    if config.preview and find_opener() is None:
        logger.info("Nothing here can open a film; it is rendered all the same.")
        config.preview = False
    if config.video_codec == "auto" and not config.transparent and "webm" not in str(config.format):
        asked = config.video_encoder_options
        config.video_encoder_options = {**ALWAYS, **({} if "preset" in asked else QUICKLY), **asked}
    # Manim keeps the width of a 16:9 frame whatever the resolution; and its cache of segments would leave frames out
    # of the ledger.
    config.frame_width = config.frame_height * config.pixel_width / config.pixel_height
    config.disable_caching = True
    config.background_color = ManimColor.from_rgb(palette.rgb(GROUND))


class _one_line:  # noqa: N801 (used as a function)
    """Within it what cannot be used (a trace, a setting, `of_system` a disk too) ends the program in a line, code 2."""

    def __init__(self, of_system: bool = False):
        self._kinds = (OSError,) if of_system else ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, self._kinds) or type(error).__module__.startswith("tracereel."):
            print(f"tracereel: {printable(str(error))}", file=sys.stderr)
            raise SystemExit(2) from None
