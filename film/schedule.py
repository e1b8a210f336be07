"""Which second of which beat each frame of a film shows, and how faint it is: what Manim plays, as plain values.

Knows beats and frame rates. Draws nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tracereel.film.beat import BEAT_FADE_S, Beat

_STEEPNESS = 10.0
"""Of the sigmoid by which Manim fades (its rate function `smooth`)."""


@dataclass(frozen=True)
class FilmFrame:
    """One frame: the beat by its place in the film, the second of its clock, and its opacity (0 to 1)."""

    beat: int
    film_s: float
    opacity: float = 1.0


def lengths_of(beat: Beat, rate: float) -> tuple[int, int, int]:
    """The frames in which a beat fades in, runs, and fades out, as Manim counts them."""
    fades, runs = _count(BEAT_FADE_S, rate), _count(beat.clock.film_s, rate)
    return fades, runs, fades


def schedule(beats: Sequence[Beat], rate: float) -> list[FilmFrame]:
    """Every frame of the film of these beats, at so many a second."""
    frames: list[FilmFrame] = []
    step = 1 / rate
    for i, beat in enumerate(beats):
        fades_in, runs, fades_out = lengths_of(beat, rate)
        film_s = beat.clock.film_s
        frames += [FilmFrame(i, 0.0, smooth(k * step / BEAT_FADE_S)) for k in range(fades_in)]
        # Written as Manim computes it: the ledger holds the nanosecond that this gives.
        frames += [FilmFrame(i, k * step / film_s * film_s) for k in range(runs)]
        frames += [FilmFrame(i, film_s, 1.0 - smooth(k * step / BEAT_FADE_S)) for k in range(fades_out)]
    return frames


def _count(seconds: float, rate: float) -> int:
    """The frames of an animation: one at its beginning, and one more for every step before its end."""
    step = 1 / rate
    return math.ceil(max(seconds, step) / step)


def starts_of(beats: Sequence[Beat], rate: float) -> list[float]:
    """The second of film at which each beat's own clock begins."""
    first, starts = 0, []
    for beat in beats:
        lengths = lengths_of(beat, rate)
        starts.append((first + lengths[0]) / rate)
        first += sum(lengths)
    return starts


def smooth(share: float) -> float:
    """0 to 1 for a share from 0 to 1, slow at both ends."""
    low = _sigmoid(-_STEEPNESS / 2)
    return min(max((_sigmoid(_STEEPNESS * (share - 0.5)) - low) / (1 - 2 * low), 0.0), 1.0)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))
