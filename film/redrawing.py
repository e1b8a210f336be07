"""A film made again from its recipe and the traces it names: its beats, any of its frames, and its ledger.

Knows recipes, traces and beats. Does not know the film's file.
"""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import cairo
import numpy as np
import numpy.typing as npt
from tracereel.film.beat import Beat
from tracereel.film.frames import BeatFrames
from tracereel.film.ledger import Ledger
from tracereel.film.recipe import Recipe, RecipeError, files_digest
from tracereel.film.schedule import schedule
from tracereel.film.settings import VOICE, Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import storyboard
from tracereel.film.voices import Voice
from tracereel.trace.format.storage import TraceError
from tracereel.trace.recordings.index import Recording, RecordingIndex, read_digest, read_header, traces_below

Pixels = npt.NDArray[np.uint8]
"""Shape (height, width, 4), blue first; the fourth is the alpha, or nothing."""


class Traces:
    """Trace files by their digests; `paths` are files and folders. A digest is computed when it is first needed.

    Raises TraceError where a path is not there.
    """

    def __init__(self, paths: Iterable[Path]):
        paths = list(paths)
        for path in paths:
            if not path.exists():
                raise TraceError(path, "there is no such file or folder")
        self._files = iter([file for path in paths for file in (traces_below(path) if path.is_dir() else [path])])
        self._found: dict[str, Path] = {}

    def find(self, digest: str) -> Path | None:
        """The file of that digest, or None. Raises TraceError where a file cannot be read."""
        while digest not in self._found:
            path = next(self._files, None)
            if path is None:
                return None
            self._found.setdefault(read_digest(path), path)
        return self._found[digest]


class Redrawing:
    """The film that a recipe makes of traces.

    Raises RecipeError where a trace or the brand's files are not among those given, UnknownSceneError, SettingsError,
    TraceError and NotComparableError as making it does.
    """

    def __init__(
        self,
        recipe: Recipe,
        traces: Traces,
        brand: Path | None = None,
        fonts: tuple[Path, ...] = (),
        voice: Voice | None = None,
    ):
        self.recipe = recipe
        self.show = Show(
            replace(_settings(recipe, brand, fonts), voice=voice or Voice()), recipe.size, _indexes(recipe, traces)
        )
        self.beats: list[Beat] = storyboard(recipe.scene, self.show)
        self.film = schedule(self.beats, recipe.rate)
        self.shown = (
            self.film
            if recipe.clip is None
            else [self.film[i] for i in recipe.clip.frames(recipe.rate, len(self.film))]
        )
        """The frames that the film shows, or the part of it."""
        self.ledger = Ledger()
        self._painted = [
            BeatFrames(beat, self.show, note=self.ledger.note, ground=not recipe.transparent) for beat in self.beats
        ]

    def frame(self, i: int, *, drawn: bool) -> Pixels | None:
        """Make frame i, which comes after i - 1, and enter it into the ledger; its pixels where it is to be drawn."""
        frame = self.shown[i]
        painted = self._painted[frame.beat]
        pixels = None
        if drawn:
            pixels = pixels_of(painted.at(frame.film_s))
        else:
            painted.said_at(frame.film_s)
        self.ledger.frame()
        return pixels


def pixels_of(surface: cairo.ImageSurface) -> Pixels:
    """The pixels of a drawn frame."""
    rows = np.frombuffer(surface.get_data(), np.uint8).reshape(surface.get_height(), -1, 4)
    return np.ascontiguousarray(rows[:, : surface.get_width()])


def _settings(recipe: Recipe, brand: Path | None, fonts: tuple[Path, ...]) -> Settings:
    asked = {name: text for name, text in recipe.settings.items() if name not in ("accent", VOICE)}
    files = {"brand": str(brand) if brand else "", "fonts": os.pathsep.join(map(str, fonts))}
    settings = Settings.read({**asked, **files})
    if files_digest(settings) != recipe.brand:
        raise RecipeError(
            "the film was made with a brand or fonts of its own: name their files with --brand and --font"
            if recipe.brand
            else "the film was made without a brand and without fonts of its own"
        )
    if settings.palette.codes["accent"] != recipe.settings["accent"]:
        raise RecipeError(f"accent: the film says {recipe.settings['accent'][:20]!r}, its brand has another")
    return settings


def _indexes(recipe: Recipe, traces: Traces) -> dict[str, RecordingIndex]:
    indexes = {}
    for suite, digests in recipe.recordings.items():
        files = [traces.find(digest) for digest in digests]
        lacking = [digest[:12] for digest, file in zip(digests, files, strict=True) if file is None]
        if lacking:
            raise RecipeError(f"trace {', '.join(lacking)} is not among the traces given")
        indexes[suite] = RecordingIndex.of([Recording(file, read_header(file)) for file in files if file])
    return indexes
