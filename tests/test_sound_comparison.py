"""A film's sound is held to the sound that its traces make: what a codec loses is no fault, another sound is one."""

import av
import numpy as np
import pytest
from tracereel.film.beat import Beat
from tracereel.film.clock import Script
from tracereel.film.phrases import words
from tracereel.film.provenance import stamp
from tracereel.film.sound import RATE, ticks
from tracereel.film.sound_comparison import sound_faults
from tracereel.trace.analysis.queries import Run

pytestmark = pytest.mark.slow

FILM_S = 4.0
CODECS = {".mp4": "mpeg4", ".webm": "libvpx"}


def heard(run, film_s=FILM_S):
    """The ticks of a run that plays within so many seconds."""
    clock = Script(run.timeline.begin_ns).run(run.timeline.end_ns, film_s).clock()
    return ticks([(0.0, Beat("any", words("any"), (), clock, (run,), lambda canvas, film_s: None))], FILM_S)


@pytest.fixture(scope="module")
def runs(film_recordings):
    return [Run.read(film_recordings / f"{case}-1.jsonl.zst") for case in ("continuous", "static")]


@pytest.fixture(scope="module")
def made(runs):
    return heard(runs[0])


def film_of(sound, folder, suffix=".mp4"):
    """A film of black frames with that sound."""
    film = folder / f"film{suffix}"
    with av.open(str(film), "w") as container:
        stream = container.add_stream(CODECS[suffix], rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(round(FILM_S * 5)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        container.mux(stream.encode(None))
    stamp(film, {}, (), sound)
    return film


@pytest.mark.parametrize("suffix", CODECS)
def test_what_a_codec_loses_is_no_fault(made, tmp_path, suffix):
    assert np.abs(made).max() > 0.1
    assert sound_faults(film_of(made, tmp_path, suffix), made) == []


def silenced(made):
    return np.where(np.arange(len(made))[:, None] < RATE * 2, made, 0)


def sides_swapped(made):
    return made[:, ::-1] * [0.3, 1.0]


FORGERIES = {
    "silence": np.zeros_like,
    "half of it silent": silenced,
    "late": lambda made: np.roll(made, RATE // 8, axis=0),
    "higher": lambda made: made[np.minimum(np.arange(len(made)) * 9 // 8, len(made) - 1)],
    "louder": lambda made: made * 1.9,
    "to one side": sides_swapped,
}


@pytest.mark.parametrize("what", FORGERIES)
def test_another_sound_is_found(made, tmp_path, what):
    (fault,) = sound_faults(film_of(FORGERIES[what](made).astype(np.float32), tmp_path), made)
    assert "its sound is not what the traces make" in fault


def test_the_sound_of_another_run_or_another_clock_is_found(made, runs, tmp_path):
    for other in (heard(runs[1]), heard(runs[0], FILM_S * 0.8)):
        (fault,) = sound_faults(film_of(other, tmp_path), made)
        assert "its sound is not what the traces make" in fault


def test_a_sound_that_ends_too_early_is_found(made, tmp_path):
    (fault,) = sound_faults(film_of(made[: RATE * 3], tmp_path), made)
    assert "its sound lasts 3" in fault


def test_a_tick_that_was_added_to_silence_is_found(made, tmp_path):
    quiet = made.copy()
    quiet[RATE * 2 :] = 0
    forged = quiet.copy()
    forged[RATE * 3 : RATE * 3 + RATE // 20] += made[RATE // 4 : RATE // 4 + RATE // 20]
    (fault,) = sound_faults(film_of(forged, tmp_path), quiet)
    assert "from 3.0 s on" in fault or "from 2.9 s on" in fault
