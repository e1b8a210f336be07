"""Is a film's sound the one that its traces make? Holds the decoded track to the one that is made again.

Both are compared in stretches of a tenth of a second: what a codec loses is a fraction of what is heard there, a tick
that is moved, left out, added or of another pitch is as loud as the tick itself. Knows samples and containers.
"""

from pathlib import Path

import av
import numpy as np
from tracereel.film.sound import RATE, Samples

_STRETCH = RATE // 10
_SHARE = 0.6
"""The most that may differ, as a share of how loud the stretch and those next to it are; codecs lost 0.32 at most."""
_LEAST = 0.02
"""A stretch that is less loud (root mean square, 0 to 1) is held to this: codecs hiss where there is silence."""
_LENGTH_S = 0.15


def sound_faults(film: Path, made: Samples) -> list[str]:
    """What is wrong with a film's only track of sound. Raises av.FFmpegError where it cannot be decoded."""
    heard, lasts_s = _decoded(film, len(made))
    if abs(lasts_s - len(made) / RATE) > _LENGTH_S:
        return [f"its sound lasts {lasts_s:.2f} s, its pictures {len(made) / RATE:.2f} s"]
    loud, apart = _loudness(made), _loudness(heard - made)
    around = np.max([loud, np.roll(loud, 1, 0), np.roll(loud, -1, 0)], axis=0)
    wrong = np.flatnonzero((apart > _SHARE * np.maximum(around, _LEAST)).any(axis=1))
    if not len(wrong):
        return []
    first, worst = wrong[0] * _STRETCH / RATE, wrong[int(apart[wrong].max(axis=1).argmax())] * _STRETCH / RATE
    return [f"its sound is not what the traces make from {first:.1f} s on, most of all at {worst:.1f} s"]


def _loudness(samples: Samples) -> Samples:
    """The root mean square of each stretch and side. Shapes: (samples, 2), (stretches, 2)."""
    count = -(-len(samples) // _STRETCH)
    padded = np.zeros((count * _STRETCH, 2), dtype=np.float32)
    padded[: len(samples)] = samples
    loud: Samples = np.sqrt((padded.reshape(count, _STRETCH, 2) ** 2).mean(axis=1))
    return loud


def _decoded(film: Path, count: int) -> tuple[Samples, float]:
    """The first `count` samples, silence after the last one, and how long the sound lasts in seconds."""
    heard, at = np.zeros((count, 2), dtype=np.float32), 0
    with av.open(str(film)) as container:
        even = av.AudioResampler("fltp", "stereo", RATE)
        for frame in container.decode(audio=0):
            for part in even.resample(frame):
                samples = part.to_ndarray().T
                heard[at : at + len(samples)] = samples[: max(count - at, 0)]
                at += len(samples)
    return heard, at / RATE
