"""What a film says it was made from: enough to make it again, as texts in its metadata.

Knows names, settings and digests. Reads no trace and draws nothing.
"""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from tracereel.film.settings import ALLOW_BROKEN, VOICE, Settings
from tracereel.film.show import Show
from tracereel.film.window import NAMES as WINDOW

_SIZE = re.compile(r"([0-9]{2,4})x([0-9]{2,4})")
_RECORDINGS = re.compile(r"[\w.-]{1,100}(:[0-9a-f]{64}){1,500}")
_VOICE = re.compile(r"piper:[^:\x00-\x1f\x7f]{1,200}:[0-9a-f]{64}")
_SIDES, _RATES = (16, 7680), (0.1, 240.0)
_NEAR = 1e-6
"""What rounding may add to a number of frames."""
_SETTINGS = ("theme", "accent", "language", "captions", "sound", "narration")
_UNUSUAL = (*WINDOW, ALLOW_BROKEN, VOICE)
"""Settings that are said where they were asked for."""
_CLIP = ("clip_from", "clip_to", "clip_rate", "clip_width")
NAMES = frozenset(
    ("scene", "code", "size", "rate", "transparent", "brand", "recordings", *_SETTINGS, *_UNUSUAL, *_CLIP)
)
"""Every entry of a film's metadata that belongs to its recipe."""


class RecipeError(Exception):
    """A film does not say from what it was made; the message is one line."""


@dataclass(frozen=True)
class Clip:
    """The part of a film that a moving picture shows, in so many frames a second, so many pixels wide."""

    from_s: float
    to_s: float
    rate: float
    width: int

    def frames(self, rate: float, count: int) -> list[int]:
        """Which of a film's `count` frames, `rate` a second, it shows: the first at or after each of its instants."""
        frames: list[int] = []
        while (frame := math.ceil((self.from_s + len(frames) / self.rate) * rate - _NEAR)) < min(
            count, math.ceil(self.to_s * rate - _NEAR)
        ):
            frames.append(frame)
        return frames


@dataclass(frozen=True)
class Recipe:
    """From what a film is made: its scene, its frames, its settings, its recordings, and the code that made it.

    `recordings` are the digests of each suite's traces in the order of their files; `brand` is the digest of the
    brand's and the fonts' files, empty where there are none. `clip` says which part of the film this is.
    """

    scene: str
    code: str
    size: tuple[int, int]
    rate: float
    transparent: bool
    settings: Mapping[str, str]
    brand: str = ""
    recordings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    clip: Clip | None = None

    @classmethod
    def of(cls, scene: str, show: Show, rate: float, *, transparent: bool = False) -> "Recipe":
        """The recipe of a film of that scene, after its beats have been made."""
        settings = show.settings
        return cls(
            scene,
            code_digest(),
            show.pixels,
            float(rate),
            transparent,
            settings.facts,
            files_digest(settings),
            show.recorded,
        )

    @property
    def facts(self) -> dict[str, str]:
        """The recipe as texts by name."""
        clip = self.clip
        parts = (repr(clip.from_s), repr(clip.to_s), repr(clip.rate), str(clip.width)) if clip else ()
        return {
            "scene": self.scene,
            "code": self.code,
            "size": f"{self.size[0]}x{self.size[1]}",
            "rate": repr(self.rate),
            "transparent": "on" if self.transparent else "off",
            **self.settings,
            "brand": self.brand,
            "recordings": " ".join(":".join((suite, *digests)) for suite, digests in self.recordings.items()),
            **dict(zip(_CLIP, parts, strict=False)),
        }

    def clipped(self, clip: Clip) -> "Recipe":
        """The recipe of a part of the film."""
        return replace(self, clip=clip)

    @classmethod
    def read(cls, facts: Mapping[str, str]) -> "Recipe":
        """From the texts of a film's metadata, which are untrusted. Raises RecipeError that names the entry."""
        if "scene" not in facts:
            raise RecipeError("the film does not say from what it was made")
        missing = sorted(NAMES - facts.keys() - {*_CLIP, *_UNUSUAL})
        if missing:
            raise RecipeError(f"the film's metadata lacks {', '.join(missing)}")
        size = _SIZE.fullmatch(facts["size"])
        if not size:
            raise RecipeError(f"size: {facts['size'][:40]!r} is not WIDTHxHEIGHT")
        if VOICE in facts and not _VOICE.fullmatch(facts[VOICE]):
            raise RecipeError(f"{VOICE}: {facts[VOICE][:40]!r} is not piper, a model's name and its digest")
        recordings = {}
        for text in facts["recordings"].split():
            if not _RECORDINGS.fullmatch(text):
                raise RecipeError(f"recordings: {text[:40]!r} is not a suite and its traces' digests")
            suite, *digests = text.split(":")
            recordings[suite] = tuple(digests)
        clip = None
        if _CLIP[0] in facts:
            from_s, to_s = (_number(facts, name, (0.0, 86_400.0)) for name in _CLIP[:2])
            clip = Clip(from_s, to_s, _number(facts, _CLIP[2], _RATES), int(_number(facts, _CLIP[3], _SIDES)))
        return cls(
            facts["scene"],
            facts["code"],
            (_side(size[1]), _side(size[2])),
            _number(facts, "rate", _RATES),
            facts["transparent"] == "on",
            {name: facts[name] for name in (*_SETTINGS, *_UNUSUAL) if name in facts},
            facts["brand"],
            recordings,
            clip,
        )


def _side(text: str) -> int:
    if not _SIDES[0] <= int(text) <= _SIDES[1]:
        raise RecipeError(f"size: {text} is not a number of pixels from {_SIDES[0]} to {_SIDES[1]}")
    return int(text)


def _number(facts: Mapping[str, str], name: str, bounds: tuple[float, float]) -> float:
    try:
        value = float(facts[name])
    except (ValueError, KeyError):
        raise RecipeError(f"{name}: {facts.get(name, '')[:40]!r} is not a number") from None
    if not bounds[0] <= value <= bounds[1]:
        raise RecipeError(f"{name}: {value:g} is not from {bounds[0]:g} to {bounds[1]:g}")
    return value


@cache
def code_digest() -> str:
    """SHA-256 (hex) of the source that decides what a film shows: this package's rooms trace, film and scenes."""
    digest = hashlib.sha256()
    here = Path(__file__).resolve().parent
    rooms = (here, here.parent / "trace", here.parent / "scenes")
    for path in (*(path for room in rooms for path in sorted(room.rglob("*.py"))), *sorted(here.glob("text/*.toml"))):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def files_digest(settings: Settings) -> str:
    """SHA-256 (hex) of the brand's and the fonts' files; empty where there are none."""
    if not settings.files:
        return ""
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in settings.files)).hexdigest()
