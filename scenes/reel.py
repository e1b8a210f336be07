"""The base of every scene: recordings, stage, and the one way in which a beat is told.

A scene is a subclass whose `construct` tells beats; `tell` plays one from start to end as a single Manim animation,
driven by one tracker of film time. Knows Manim and the catalogue of recordings.
"""

import math
import os
import shutil
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from manim import FadeIn, FadeOut, Scene, ValueTracker, config, linear, logger
from manim.utils.color import ManimColor
from tracereel.scenes.beat import Beat, framed
from tracereel.scenes.captions import Cue, chapters_of, cues_of, write_captions
from tracereel.scenes.components.layer import Layer, OnFrame, ReelRenderer
from tracereel.scenes.components.lettering import FontError, add_faces, can_set
from tracereel.scenes.ledger import LEDGER_DIGEST, LedgerFile, digest_of, encode_ledger, ledger_path
from tracereel.scenes.phrases import Catalogue as Words
from tracereel.scenes.phrases import Phrase, figure, quote
from tracereel.scenes.provenance import provenance_of, stamp
from tracereel.scenes.settings import Settings, SettingsError
from tracereel.scenes.sound import Samples, SoundError, narration, ticks, voice
from tracereel.scenes.stage import Stage
from tracereel.scenes.still import write_still
from tracereel.scenes.theme import GROUND
from tracereel.trace.catalogue import FILM, Catalogue
from tracereel.trace.compare import NotComparableError
from tracereel.trace.measured import Run, measure, median_of
from tracereel.trace.storage import TraceError, replace_text

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
FADE_S = 0.5
"""Seconds of film in which a beat comes and goes."""


class ReelScene(Scene):
    """A scene that replays recordings.

    `settings` default to those in the environment; `on_frame` is told every frame (see `ReelRenderer`).
    """

    renderer: ReelRenderer

    def __init__(self, settings: Settings | None = None, on_frame: OnFrame | None = None, **options: Any):
        with _one_line():
            self.settings = settings or Settings.from_environment()
            add_faces((*self.settings.brand.fonts, *self.settings.fonts))
            self.say = Words(self.settings.language)
            if not can_set("".join(self.say.texts())):
                raise FontError(
                    f"the words in {self.settings.language!r} need a face that is not here: name its file with"
                    " TRACEREEL_FONTS (Debian has NotoSansCJK-Regular.ttc in fonts-noto-cjk)"
                )
        self.palette = self.settings.palette
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
        config.background_color = ManimColor.from_rgb(self.palette.rgb(GROUND))
        super().__init__(renderer=options.pop("renderer", None) or ReelRenderer(self.palette, on_frame), **options)
        self.stage = Stage.of_pixels(config.pixel_width, config.pixel_height, self.settings.captions)
        self.shown: dict[str, Run] = {}
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
            if self.settings.narration:
                voice()  # rather now than after an hour of rendering
            rerun = super().render(preview)
            self._finish()
        return rerun

    @property
    def recordings(self) -> Catalogue:
        """The film's recordings."""
        return self.recordings_of(FILM)

    def recordings_of(self, suite: str) -> Catalogue:
        """The recordings of a suite that are played. Raises TraceError where there are none."""
        found = self._catalogues.get(suite)
        if found is None:
            found = self._catalogues[suite] = Catalogue(suite=suite)
        return found

    def runs(self, case: str, suite: str = FILM) -> list[Run]:
        """All repeats of a case. Raises TraceError where there is no recording of it."""
        found = self._runs.get((suite, case))
        if found is None:
            recordings = self.recordings_of(suite).case(case)
            found = self._runs[suite, case] = [Run(recording.read()) for recording in recordings]
        self.shown.update({run.trace.digest: run for run in found})
        return found

    @property
    def files(self) -> list[Path]:
        """All recordings that could have been played so far: of every suite that was asked for, each file."""
        return [recording.path for catalogue in self._catalogues.values() for recording in catalogue.recordings]

    @cached_property
    def _catalogues(self) -> dict[str, Catalogue]:
        return {}

    @cached_property
    def _runs(self) -> dict[tuple[str, str], list[Run]]:
        return {}

    def run(self, case: str, suite: str = FILM) -> Run:
        """The repeat of a case that is shown: the one with the median throughput, of those that gave a token."""
        runs = self.runs(case, suite)
        answered = [run for run in runs if len(run.trace.steps.token_id)]
        return median_of(answered) if answered else runs[0]

    def case_name(self, case: str, run: Run) -> Phrase:
        """What a case is called on screen: by its word in the catalogue, else by the policy its trace names."""
        key = case.replace("-", "_")
        return self.say.say(f"cases.{key}") if self.say.has(f"cases.{key}") else quote(run.measure("policy"))

    def ask(self, query: str, numerator: Sequence[Run], denominator: Sequence[Run], style: str) -> Phrase:
        """A figure from two cases' repeats."""
        return figure(measure(query, [*numerator, *denominator], numerator=len(numerator)), style)

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
        paint = framed(beat, self.stage, self.say)
        layer = Layer(
            lambda canvas: paint(canvas, film_time.get_value()), " ".join(run.trace.digest for run in beat.runs)
        )
        if config.save_last_frame:  # the last one is faded out: a still shows the beat
            self.clear()
            film_time.set_value(film_s - 0.1 if beat.still_s is None else beat.still_s)
            self.add(layer)
            return
        # Manim gives every animation whole frames.
        frames = (math.ceil(round(s * config.frame_rate, 6)) for s in (FADE_S, film_s, FADE_S))
        self.expected_frames = self.renderer.ledger.frames + sum(frames)
        self.play(FadeIn(layer), run_time=FADE_S)
        self.told.append((self.renderer.ledger.frames / config.frame_rate, beat))
        layer.add_updater(lambda mobject: None)  # makes it part of what is drawn anew in every frame
        self.play(film_time.animate.set_value(film_s), run_time=film_s, rate_func=linear)
        layer.clear_updaters()
        self.play(FadeOut(layer), run_time=FADE_S)
        # A tracker left in the scene would make everything that is added later move with it.
        self.remove(layer, film_time)

    def write_still(self, film: Path, beats: Sequence[Beat]) -> None:
        """Write the still of a film of these beats beside it."""
        if beats:
            write_still(film, beats, (config.pixel_width, config.pixel_height), self.stage, self.say, self.palette)

    def quote(self, run: Run, query: str) -> Phrase:
        """What a run says of itself."""
        return quote(run.measure(query))

    def _finish(self) -> None:
        """Write ledger and captions beside the film, and where it comes from, chapters and sound into it."""
        path = getattr(self.renderer.file_writer, "final_file_path", None)
        ledger = self.renderer.ledger
        if path is None or not ledger.frames or not Path(path).is_file():
            return
        facts = {**provenance_of(list(self.shown.values())), **self.extra_facts}
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
        sound = soundtrack(self.settings, self.told, cues, film_s)
        stamp(Path(path), {**facts, LEDGER_DIGEST: digest_of(text)}, chapters, sound)


def soundtrack(
    settings: Settings, told: Sequence[tuple[float, Beat]], cues: Sequence[Cue], film_s: float
) -> Samples | None:
    """What the settings ask to be heard of beats that begin at these seconds; None where that is nothing."""
    tracks = []
    if settings.sound:
        # Under a voice the ticks stay in the background.
        tracks.append(ticks(told, film_s) * (0.35 if settings.narration else 1.0))
    if settings.narration:
        tracks.append(narration(cues, film_s, settings.language))
    return np.sum(tracks, axis=0).clip(-1, 1).astype(np.float32) if tracks else None


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
