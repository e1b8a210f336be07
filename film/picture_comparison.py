"""Holds a film's frames to those that its traces draw: how many there are, when each is shown, and what is seen.

Knows redrawings and pictures. Not every frame is drawn: those in which something begins or ends to be said, and one at
random of every quarter of a second, so that nobody knows which are left out.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import av
import numpy as np
from tracereel.film.captions import cues_of
from tracereel.film.clip import hundredths_of
from tracereel.film.ledger import LedgerFile
from tracereel.film.pictures import Distance, Picture, distance, pictures, planes_of
from tracereel.film.redrawing import Redrawing
from tracereel.film.schedule import starts_of

_EVERY_S = 0.25
_STANDS_S = 0.3
"""A claim that is shorter on screen than this has no frame of its own among those that are drawn."""
_LIGHT, _COLOUR = (18.0, 48.0), (26.0, 48.0)
"""The least and the most distance that is a fault; between them it follows what encoding has cost this film."""
_NOISE, _NOISE_TIMES = 95, 1.8
"""The percentile of a film's distances that is its noise, and how many times that noise is a fault."""
_PALETTE_TIMES = 1.6
"""So much more a distance may be in a GIF, which has 256 colours."""
_AS_SHOWN_S = 0.0025
"""So far a frame may be from its time: containers count in milliseconds."""
_GIF_COUNTS_S = 0.006
"""A GIF counts in hundredths of a second."""


@dataclass(frozen=True)
class _Compared:
    """A frame that was compared, and how far its picture is from the drawn one."""

    frame: int
    apart: Distance

    def over(self, light: float, colour: float) -> float:
        """How many times farther it is than what is allowed; over 1 is a fault."""
        return max(self.apart.light / light, self.apart.colour / colour)


def picture_faults(
    film: Path,
    redrawing: Redrawing,
    ledger: LedgerFile,
    every_frame: bool,
    on_progress: Callable[[int, int], None],
) -> tuple[int, list[str]]:
    """How many frames were compared, and what is wrong with the film's pictures; makes all frames of the redrawing."""
    count = len(redrawing.shown)
    size, shown_s = _stream_of(film)
    if size != _size(redrawing):
        drawn, faults = set(), [f"the film is {size[0]}x{size[1]} pixels, it was made with {_size(redrawing)}"]
    else:
        drawn, faults = set(range(count)) if every_frame else _sample(redrawing, ledger), []
    reader = _Reader(film, drawn, _instants(redrawing))
    clip, found = redrawing.recipe.clip, []
    for i in range(count):
        pixels = redrawing.frame(i, drawn=i in drawn)
        picture = reader.at(i)
        if pixels is not None and picture is not None and picture.planes is not None:
            apart = distance(planes_of(pixels, clip.width if clip else None), picture.planes)
            found.append(_Compared(i, apart))
        on_progress(i + 1, count)
    faults += reader.faults()
    ends_s = reader.instants[-1] + reader.step_s
    if shown_s is not None and abs(shown_s - ends_s) > max(2 * reader.step_s, 0.05):
        faults.append(f"the film lasts {shown_s:.2f} s, its {count} frames {ends_s:.2f} s")
    bounds = _bounds(found, film.suffix == ".gif")
    return len(found), faults + _differing(found, bounds, ledger.frame_rate)


class _Reader:
    """The film's pictures by the instants at which they have to be shown; a GIF's stand until the next one."""

    def __init__(self, film: Path, wanted: set[int], instants: list[float]):
        self.instants, self.step_s = instants, instants[1] if len(instants) > 1 else 0.0
        self._holds = film.suffix == ".gif"
        self._pictures = pictures(film, None if self._holds else wanted)
        self._now: Picture | None = None
        self._next: Picture | None = None
        self._broken, self._missing, self._late = "", 0, ""
        self._advance()

    def at(self, i: int) -> Picture | None:
        """The picture that is shown as frame i; None where there is none, or another one."""
        due = self.instants[i]
        if self._holds:
            while self._next is not None and self._next.at_s <= due + _GIF_COUNTS_S:
                self._advance()
            return self._now
        self._advance()
        if self._now is None:
            self._missing += 1
        elif abs(self._now.at_s - due) > _AS_SHOWN_S and not self._late:
            self._late = f"frame {i} is shown at {self._now.at_s:.3f} s, it belongs at {due:.3f} s"
        return self._now

    def faults(self) -> list[str]:
        """What is wrong with the number of pictures and their times, once all that there should be were asked for."""
        extra = int(self._next is not None) + self._rest()
        found = [self._broken, self._late]
        if self._missing:
            found.append(f"the film ends {self._missing} frames too early")
        if extra:
            found.append(f"the film has {extra} frames too many")
        return [fault for fault in found if fault]

    def _rest(self) -> int:
        try:
            return sum(1 for _ in self._pictures)
        except av.FFmpegError:
            return 0

    def _advance(self) -> None:
        self._now = self._next
        try:
            self._next = next(self._pictures, None)
        except av.FFmpegError as error:
            self._next, self._broken = None, f"the film cannot be decoded ({error.strerror})"


def _stream_of(film: Path) -> tuple[tuple[int, int], float | None]:
    """The pictures' size in pixels, and how long they last in seconds where the file says so."""
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        lasts = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
        return (stream.width, stream.height), lasts


def _instants(redrawing: Redrawing) -> list[float]:
    """When each frame is to be shown, in seconds of the film."""
    clip = redrawing.recipe.clip
    step = 1 / redrawing.recipe.rate if clip is None else hundredths_of(clip.rate) / 100
    return [i * step for i in range(len(redrawing.shown))]


def _size(redrawing: Redrawing) -> tuple[int, int]:
    (wide, high), clip = redrawing.recipe.size, redrawing.recipe.clip
    return (wide, high) if clip is None else (clip.width, round(high * clip.width / wide))


def _sample(redrawing: Redrawing, ledger: LedgerFile) -> set[int]:
    """The frames that are drawn and compared."""
    clip = redrawing.recipe.clip
    rate, count = redrawing.recipe.rate if clip is None else clip.rate, len(redrawing.shown)
    frames = {0, count - 1}
    every = max(round(_EVERY_S * rate), 1)
    frames.update(random.randrange(first, min(first + every, count)) for first in range(0, count, every))
    for claim in ledger.claims:
        if claim.last - claim.first >= _STANDS_S * rate:
            frames.update((claim.first, claim.last))
    if clip is None:
        timed_beats = list(zip(starts_of(redrawing.beats, rate), redrawing.beats, strict=True))
        for cue in cues_of(timed_beats):
            frames.update((round(cue.from_s * rate), round((cue.from_s + cue.to_s) / 2 * rate)))
    return {frame for frame in frames if 0 <= frame < count}


def _differing(compared: list[_Compared], bounds: tuple[float, float], rate: float) -> list[str]:
    """The frames whose pictures are not what the traces draw; those that follow each other are one fault."""
    light, colour = bounds
    faults = []
    for differs, group in groupby(compared, lambda each: each.over(light, colour) > 1):
        if differs:
            frames = list(group)
            worst = max(frames, key=lambda each: each.over(light, colour))
            by_light = worst.apart.light / light > worst.apart.colour / colour
            x, y = worst.apart.light_at if by_light else worst.apart.colour_at
            first, last = frames[0].frame, frames[-1].frame
            faults.append(
                f"frames {first}-{last} ({first / rate:.1f} s): the picture is not what the traces draw, most of all in"
                f" frame {worst.frame} at {x},{y}"
            )
    return faults


def _bounds(compared: list[_Compared], palette: bool) -> tuple[float, float]:
    """The distances of brightness and of colour from which on a picture is another one."""
    if not compared:
        return _LIGHT[0], _COLOUR[0]
    light, colour = (
        min(max(least, _NOISE_TIMES * float(np.percentile(values, _NOISE))), most)
        for (least, most), values in (
            (_LIGHT, [each.apart.light for each in compared]),
            (_COLOUR, [each.apart.colour for each in compared]),
        )
    )
    return (light * _PALETTE_TIMES, colour * _PALETTE_TIMES) if palette else (light, colour)
