"""A film's still: the one frame that tells what it is about, as a PNG next to it. Knows beats and their frames."""

from collections.abc import Sequence
from pathlib import Path

from tracereel.film.beat import Beat
from tracereel.film.frames import BeatFrames
from tracereel.film.show import Show
from tracereel.trace.format.atomic import replacing


def still_of(beats: Sequence[Beat]) -> tuple[Beat, float]:
    """The beat and the second of a film's still: the first that a beat names, else the end of the first beat."""
    beat = next((beat for beat in beats if beat.still_s is not None), beats[0])
    return beat, beat.clock.film_s - 0.1 if beat.still_s is None else beat.still_s


def write_still(film: Path, beats: Sequence[Beat], show: Show) -> None:
    """Write `<film>.png`, its suffix left out."""
    beat, second = still_of(beats)
    with replacing(film.with_suffix(".png")) as part:
        BeatFrames(beat, show).at(second).write_to_png(str(part))
