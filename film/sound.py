"""What a film sounds like: each token a soft tick at its measured time, in its request's pitch; and the captions read.

Synthesised with numpy; nothing is composed. A local voice engine reads (`voices`), where one is installed. Knows beats
and their clocks; draws nothing.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from tracereel.film.beat import Beat
from tracereel.film.captions import Cue
from tracereel.film.clock import FilmClock
from tracereel.film.settings import Settings
from tracereel.film.voices import Mono, Voice
from tracereel.trace.analysis.queries import Run

Samples = npt.NDArray[np.float32]
"""Shape (samples, 2): left and right, -1 to 1."""

RATE = 48_000
_TICK_S = 0.09
_PENTATONIC = (0, 2, 4, 7, 9)
_LOWEST_HZ = 261.63
_OCTAVES = 2
_OVERTONE, _DECAY, _ATTACK_S = 0.3, 55.0, 0.002
"""How loud a tick's overtone is next to its tone, how fast it dies away (1/s), and how long it takes to begin."""
_LOUDNESS = 0.22
"""How loud one tick is: where many come at once the sum is bent towards 1."""
_UNDER_VOICE = 0.35
"""How loud ticks are under a voice."""
_MARGIN = 1.05
"""How much faster than it has to a voice reads that would run into the next caption."""
_FASTEST = 260 / 165
"""How many times as fast as usual a voice reads at most."""


def soundtrack(
    settings: Settings, timed_beats: Sequence[tuple[float, Beat]], cues: Sequence[Cue], film_s: float
) -> Samples | None:
    """What the settings ask to be heard of beats that begin at these seconds; None where that is nothing."""
    tracks = []
    if settings.sound:
        # Under a voice the ticks stay in the background.
        tracks.append(ticks(timed_beats, film_s) * (_UNDER_VOICE if settings.narration else 1.0))
    if settings.narration:
        tracks.append(narration(settings.voice, cues, film_s, settings.language))
    return np.sum(tracks, axis=0).clip(-1, 1).astype(np.float32) if tracks else None


def ticks(timed_beats: Sequence[tuple[float, Beat]], film_s: float) -> Samples:
    """The soundtrack of the measurement: a tick a token, where the beat's clock shows the moment at which it came.

    A token sounds from where its row is, the first slot from the left. Several runs share the width, in their order.
    """
    track = np.zeros((round(film_s * RATE) + RATE, 2), dtype=np.float32)
    for start, beat in timed_beats:
        if not beat.framed:
            continue
        heard = list(dict.fromkeys(beat.runs))
        for i, run in enumerate(heard):
            seconds = times_in_film(beat.clock, run, heard[0])
            requests = run.trace.steps.token_request
            if beat.heard is not None:
                seconds = np.where(requests == beat.heard, seconds, np.nan)
            _strike(track, start + seconds, requests, (i + pans(run)) / len(heard))
    # Where many tokens come at once they are louder, but never distorted.
    loud: Samples = np.tanh(track[: round(film_s * RATE)] * _LOUDNESS)
    return loud


def times_in_film(clock: FilmClock, run: Run, main: Run) -> npt.NDArray[np.float64]:
    """The second of the beat at which each token of a run is shown to come; nan where it is not shown.

    Every run counts from its own beginning, as the pictures do; the clock is that of `main`.
    """
    steps = run.trace.steps
    at_ns = steps.end_ns[steps.token_step] - run.timeline.begin_ns + main.timeline.begin_ns
    film = np.full(len(at_ns), np.nan)
    second = 0.0
    for passage in clock.passages:
        span = passage.to_ns - passage.from_ns
        if span:
            inside = (at_ns > passage.from_ns) & (at_ns <= passage.to_ns)
            film[inside] = second + passage.film_s * (at_ns[inside] - passage.from_ns) / span
        second += passage.film_s
    return film


def pans(run: Run) -> npt.NDArray[np.float64]:
    """Where each token of a run sounds from: 0 left to 1 right, the middle of its row's share."""
    steps = run.trace.steps
    # A member by its step and request; a token of no member sounds from the middle.
    wide = max(len(run.trace.arrivals), 1)
    members = steps.member_step.astype(np.int64) * wide + steps.member_request
    tokens = steps.token_step.astype(np.int64) * wide + steps.token_request
    if not len(members):
        return np.full(len(tokens), 0.5)
    order = np.argsort(members, kind="stable")
    found = order[np.searchsorted(members, tokens, sorter=order).clip(0, len(order) - 1)]
    slots = run.trace.header.slots
    return np.where(members[found] == tokens, (steps.member_slot[found] + 0.5) / slots, 0.5)


def _strike(
    track: Samples,
    seconds: npt.NDArray[np.float64],
    requests: npt.NDArray[np.int32],
    pan: npt.NDArray[np.float64],
) -> None:
    kernels = [_tick(pitch)[:, None] for pitch in range(len(_PENTATONIC) * _OCTAVES)]
    sides = np.stack([np.cos(pan * np.pi / 2), np.sin(pan * np.pi / 2)], axis=1).astype(np.float32)
    for second, request, side in zip(seconds.tolist(), requests.tolist(), sides, strict=True):
        if second == second:
            kernel = kernels[request % len(kernels)] * side
            first = round(second * RATE)
            end = min(first + len(kernel), len(track))
            track[first:end] += kernel[: end - first]


def _tick(pitch: int) -> npt.NDArray[np.float32]:
    """A soft tick: a tone with an overtone that dies away."""
    octave, degree = divmod(pitch, len(_PENTATONIC))
    hertz = _LOWEST_HZ * 2 ** (octave + _PENTATONIC[degree] / 12)
    t = np.arange(round(_TICK_S * RATE)) / RATE
    tone = np.sin(2 * np.pi * hertz * t) + _OVERTONE * np.sin(4 * np.pi * hertz * t)
    return (tone * np.exp(-t * _DECAY) * np.minimum(t / _ATTACK_S, 1)).astype(np.float32)


def narration(voice: Voice, cues: Sequence[Cue], film_s: float, language: str) -> Samples:
    """The captions read aloud, each from its second on; faster where it would run into the next one.

    Raises SoundError where the voice is not installed, or cannot speak the language.
    """
    voice.ready(language)
    track = np.zeros((round(film_s * RATE), 2), dtype=np.float32)
    for cue in cues:
        room = cue.to_s - cue.from_s
        spoken = _resampled(*voice.say(cue.text, language, 1.0))
        if len(spoken) / RATE > room:
            pace = min(len(spoken) / RATE / room * _MARGIN, _FASTEST)
            spoken = _resampled(*voice.say(cue.text, language, pace))
        first = round(cue.from_s * RATE)
        end = min(first + min(len(spoken), round(room * RATE)), len(track))
        track[first:end] += spoken[: end - first, None]
    return track


def _resampled(samples: Mono, rate: int) -> Mono:
    at = np.arange(round(len(samples) * RATE / rate)) * rate / RATE
    found: Mono = np.interp(at, np.arange(len(samples)), samples).astype(np.float32)
    return found
