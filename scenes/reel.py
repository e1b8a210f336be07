"""The base of every scene: recordings, stage, and the one way in which a beat is told.

A scene is a subclass whose `construct` tells beats; `tell` plays one from start to end as a single Manim animation,
driven by one tracker of film time. Knows Manim and the catalogue of recordings.
"""

import math
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from manim import FadeIn, FadeOut, Scene, ValueTracker, config, linear, logger
from manim.utils.color import ManimColor
from tracereel.film.beat import BEAT_FADE_S, Beat, framed
from tracereel.film.captions import chapters_of, cues_of, write_captions
from tracereel.film.ledger import LEDGER_DIGEST, LedgerFile, digest_of, encode_ledger, ledger_path
from tracereel.film.lettering import FontError
from tracereel.film.provenance import provenance_of, stamp
from tracereel.film.settings import Settings, SettingsError
from tracereel.film.show import Show
from tracereel.film.sound import SoundError, soundtrack, voice
from tracereel.film.stills import write_still
from tracereel.film.theme import GROUND
from tracereel.scenes.layer import Layer, OnFrame, ReelRenderer
from tracereel.trace.analysis.comparable import NotComparableError
from tracereel.trace.format.storage import TraceError, replace_text

# The look-ahead of veryfast on the quicker preset, without frames between frames: a fifth larger than veryfast's, as
# near to the original, with a third less work.
_PRESET = {"preset": "superfast", "rc-lookahead": "10", "mbtree": "1", "bf": "0"}
X264 = {
    "crf": "20",
    "thread_type": "frame",
    # Manim writes BT.601 without saying so, and players guess otherwise.
    "colorspace": "smpte170m",
    "color_range": "tv",
}
_OPENERS = ("xdg-open", "open", "cygstart")


class ReelScene(Scene):
    """A scene that replays recordings.

    `settings` default to those in the environment; `on_frame` is told every frame (see `ReelRenderer`).
    """

    renderer: ReelRenderer

    def __init__(self, settings: Settings | None = None, on_frame: OnFrame | None = None, **options: Any):
        with _one_line():
            pixels = config.pixel_width, config.pixel_height
            self.show = show = Show(settings or Settings.from_environment(), pixels)
        if config.preview and not _can_open():
            logger.info("Nothing here can open a film; it is rendered all the same.")
            config.preview = False
        if config.video_codec == "auto" and not config.transparent and "webm" not in str(config.format):
            asked = config.video_encoder_options
            config.video_encoder_options = {**X264, **({} if "preset" in asked else _PRESET), **asked}
        # Manim keeps the width of a 16:9 frame whatever the resolution; and its cache of segments would leave frames
        # out of the ledger.
        config.frame_width = config.frame_height * config.pixel_width / config.pixel_height
        config.disable_caching = True
        config.background_color = ManimColor.from_rgb(show.palette.rgb(GROUND))
        super().__init__(renderer=options.pop("renderer", None) or ReelRenderer(show.palette, on_frame), **options)
        self.told: list[tuple[float, Beat]] = []
        """The beats that were told, each with the second of film at which its own clock begins."""
        self._script: list[Beat] | None = None
        self.expected_frames = 0
        """Frames of all that has been told so far, and of what is being told."""
        self.extra_facts: dict[str, str] = {}
        """What else is to be said of the film in its metadata."""

    def render(self, preview: bool = False) -> bool:
        """Render; recordings that cannot be played end it with one line and exit code 2."""
        with _one_line():
            if self.show.settings.narration:
                voice()  # rather now than after an hour of rendering
            rerun = super().render(preview)
            self._finish()
        return rerun

    def script(self) -> list[Beat]:
        """The beats that this scene tells, nothing of them drawn.

        Raises TraceError or NotComparableError where the recordings that it needs are not there.
        """
        self._script = []
        self.construct()
        found, self._script = self._script, None
        return found

    def tell(self, beat: Beat) -> None:
        """Play a beat."""
        if self._script is not None:
            self._script.append(beat)
            return
        film_s = beat.clock.film_s
        film_time = ValueTracker(0.0)
        paint = framed(beat, self.show.stage, self.show.say)
        layer = Layer(
            lambda canvas: paint(canvas, film_time.get_value()), " ".join(run.trace.digest for run in beat.runs)
        )
        if config.save_last_frame:  # the last one is faded out: a still shows the beat
            self.clear()
            film_time.set_value(film_s - 0.1 if beat.still_s is None else beat.still_s)
            self.add(layer)
            return
        # Manim gives every animation whole frames.
        frames = (math.ceil(round(s * config.frame_rate, 6)) for s in (BEAT_FADE_S, film_s, BEAT_FADE_S))
        self.expected_frames = self.renderer.ledger.frames + sum(frames)
        self.play(FadeIn(layer), run_time=BEAT_FADE_S)
        self.told.append((self.renderer.ledger.frames / config.frame_rate, beat))
        layer.add_updater(lambda mobject: None)  # makes it part of what is drawn anew in every frame
        self.play(film_time.animate.set_value(film_s), run_time=film_s, rate_func=linear)
        layer.clear_updaters()
        self.play(FadeOut(layer), run_time=BEAT_FADE_S)
        # A tracker left in the scene would make everything that is added later move with it.
        self.remove(layer, film_time)

    def write_still(self, film: Path, beats: Sequence[Beat]) -> None:
        """Write the still of a film of these beats beside it."""
        if beats:
            write_still(film, beats, self.show)

    def _finish(self) -> None:
        """Write ledger and captions beside the film, and where it comes from, chapters and sound into it."""
        path = getattr(self.renderer.file_writer, "final_file_path", None)
        ledger = self.renderer.ledger
        if path is None or not ledger.frames or not Path(path).is_file():
            return
        facts = {**provenance_of(list(self.show.shown.values())), **self.extra_facts}
        file = LedgerFile(
            film=Path(path).name,
            frames=ledger.frames,
            frame_rate=float(config.frame_rate),
            provenance=facts,
            claims=ledger.claims(),
        )
        text = encode_ledger(file)
        replace_text(ledger_path(Path(path)), text)
        film_s = ledger.frames / config.frame_rate
        cues, chapters = cues_of(self.told), chapters_of(self.told, film_s)
        write_captions(Path(path), cues, chapters)
        self.write_still(Path(path), [beat for _, beat in self.told])
        sound = soundtrack(self.show.settings, self.told, cues, film_s)
        stamp(Path(path), {**facts, LEDGER_DIGEST: digest_of(text)}, chapters, sound)


class _one_line:  # noqa: N801 (used as a function)
    """Within it what cannot be used (a trace, a setting) ends the program with one line and exit code 2."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TraceError | SettingsError | FontError | SoundError | NotComparableError):
            print(f"tracereel: {error}", file=sys.stderr)
            raise SystemExit(2) from None


def _can_open() -> bool:
    return os.name == "nt" or any(shutil.which(opener) for opener in _OPENERS)
