"""Which second of which beat each frame of a film shows: what Manim plays, as plain values.

Beats follow each other without a fade, so that no frame is empty. Knows beats and frame rates. Draws nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tracereel.film.beat import Beat


@dataclass(frozen=True)
class FilmFrame:
    """One frame: the beat by its place in the film, and the second of its clock."""

    beat: int
    film_s: float


def frames_of(beat: Beat, rate: float) -> int:
    """The frames of a beat, as Manim counts those of an animation: one at its beginning, and one more for every step
    before its end."""
    step = 1 / rate
    return math.ceil(max(beat.clock.film_s, step) / step)


def schedule(beats: Sequence[Beat], rate: float) -> list[FilmFrame]:
    """Every frame of the film of these beats, at so many a second."""
    step = 1 / rate
    # Written as Manim computes it: the ledger holds the nanosecond that this gives.
    return [
        FilmFrame(i, k * step / beat.clock.film_s * beat.clock.film_s)
        for i, beat in enumerate(beats)
        for k in range(frames_of(beat, rate))
    ]


def starts_of(beats: Sequence[Beat], rate: float) -> list[float]:
    """The second of film at which each beat's own clock begins."""
    first, starts = 0, []
    for beat in beats:
        starts.append(first / rate)
        first += frames_of(beat, rate)
    return starts
