"""The base of every scene: recordings, stage, film clock, and the one way in which a replay is played.

A scene is a subclass whose `construct` tells beats; `replay` plays one painter from start to end as a single Manim
animation, driven by one tracker of film time. Knows Manim and the catalogue of recordings.
"""

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from manim import FadeIn, FadeOut, Mobject, Scene, ValueTracker, config, linear, logger
from manim.utils.color import ManimColor
from tracereel.scenes.components.canvas import Canvas
from tracereel.scenes.components.layer import Layer, ReelRenderer
from tracereel.scenes.components.lettered import unit
from tracereel.scenes.ledger import LEDGER_DIGEST, LedgerFile, digest_of, encode_ledger, ledger_path
from tracereel.scenes.phrases import Catalogue as Words
from tracereel.scenes.phrases import Phrase, figure, quote
from tracereel.scenes.provenance import provenance_of, stamp
from tracereel.scenes.stage import Stage
from tracereel.scenes.theme import GROUND
from tracereel.trace.catalogue import Catalogue
from tracereel.trace.measured import Run, measure, median_of
from tracereel.trace.storage import TraceError, replace_text

Paint = Callable[[Canvas, float], None]
Placed = TypeVar("Placed", bound=Mobject)

X264 = {
    "preset": "veryfast",
    "crf": "20",
    "thread_type": "frame",
    # Manim writes BT.601 without saying so, and players guess otherwise.
    "colorspace": "smpte170m",
    "color_range": "tv",
}
_OPENERS = ("xdg-open", "open", "cygstart")


class ReelScene(Scene):
    """A scene that replays recordings."""

    renderer: ReelRenderer

    def __init__(self, renderer: ReelRenderer | None = None, **options: Any):
        if config.preview and not _can_open():
            logger.info("Nothing here can open a film; it is rendered all the same.")
            config.preview = False
        if config.video_codec == "auto" and not config.transparent and "webm" not in str(config.format):
            config.video_encoder_options = {**X264, **config.video_encoder_options}
        # Manim keeps the width of a 16:9 frame whatever the resolution; and its cache of segments would leave frames
        # out of the ledger.
        config.frame_width = config.frame_height * config.pixel_width / config.pixel_height
        config.disable_caching = True
        config.background_color = ManimColor.from_rgb(GROUND)
        super().__init__(renderer=renderer or ReelRenderer(), **options)
        self.say = Words()
        self.stage = Stage.of_pixels(config.pixel_width, config.pixel_height)
        self.shown: dict[str, Run] = {}

    def render(self, preview: bool = False) -> bool:
        """Render; recordings that cannot be played end it with one line and exit code 2."""
        try:
            rerun = super().render(preview)
        except TraceError as error:
            print(f"tracereel: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        self._write_ledger()
        return rerun

    @cached_property
    def recordings(self) -> Catalogue:
        """The recordings that are played."""
        return Catalogue()

    def runs(self, case: str) -> list[Run]:
        """All repeats of a case."""
        found = self._runs.get(case)
        if found is None:
            found = self._runs[case] = [Run(recording.read()) for recording in self.recordings.case(case)]
            self.shown.update({run.trace.digest: run for run in found})
        return found

    @cached_property
    def _runs(self) -> dict[str, list[Run]]:
        return {}

    def run(self, case: str) -> Run:
        """The repeat of a case that is shown: the one with the median throughput."""
        return median_of(self.runs(case))

    def ask(self, query: str, numerator: Sequence[Run], denominator: Sequence[Run], style: str) -> Phrase:
        """A figure from two cases' repeats."""
        return figure(measure(query, [*numerator, *denominator], numerator=len(numerator)), style)

    def replay(self, paint: Paint, film_s: float, runs: Sequence[Run], *, fade: bool = True) -> None:
        """Play a painter for `film_s` seconds: `paint(canvas, s)` draws what is seen at second s of the replay."""
        film_time = ValueTracker(0.0)
        identity = " ".join(run.trace.digest for run in runs)
        layer = Layer(lambda canvas: paint(canvas, film_time.get_value()), identity)
        if fade:
            self.play(FadeIn(layer), run_time=0.5)
        else:
            self.add(layer)
        layer.add_updater(lambda mobject: None)  # makes it part of what is drawn anew in every frame
        self.play(film_time.animate.set_value(film_s), run_time=film_s, rate_func=linear)
        layer.clear_updaters()
        if fade:
            self.play(FadeOut(layer), run_time=0.5)
        # A tracker left in the scene would make everything that is added later move with it.
        self.remove(layer, film_time)

    def place(self, mobject: Placed, x: float, y: float) -> Placed:
        """Put a lettered line's start on the baseline at (x, y), in units from the frame's top left corner."""
        corner = np.array([-config.frame_width / 2, config.frame_height / 2, 0.0])
        mobject.shift(corner + np.array([x, -y, 0.0]) * unit())
        return mobject

    def quote(self, run: Run, query: str) -> Phrase:
        """What a run says of itself."""
        return quote(run.measure(query))

    def _write_ledger(self) -> None:
        """Write the ledger beside the film, and where it comes from into it."""
        path = getattr(self.renderer.file_writer, "final_file_path", None)
        ledger = self.renderer.ledger
        if path is None or not ledger.frames or not Path(path).is_file():
            return
        facts = provenance_of(list(self.shown.values()))
        file = LedgerFile(
            film=Path(path).name,
            frames=ledger.frames,
            frame_rate=float(config.frame_rate),
            provenance=facts,
            claims=ledger.claims(),
        )
        text = encode_ledger(file)
        replace_text(ledger_path(Path(path)), text)
        stamp(Path(path), {**facts, LEDGER_DIGEST: digest_of(text)})


def _can_open() -> bool:
    return os.name == "nt" or any(shutil.which(opener) for opener in _OPENERS)
