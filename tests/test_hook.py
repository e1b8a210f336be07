"""Something moves within the first second of every scene, and its first caption is there with its first frame."""

from dataclasses import replace

import numpy as np
import pytest
from films import SIZES
from tracereel.film.frames import BeatFrames
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import FILMS, names, storyboard
from tracereel.trace.format.storage import TraceError

pytestmark = pytest.mark.slow

SCENES = [name for name in names() if name not in FILMS]
SIZE = (428, 240)
_LEAST = 40
"""Pixels that differ, of about a hundred thousand: a dot that has moved."""


def beat_of(name, device, size=SIZE):
    show = Show(Settings(device=device), size)
    try:
        return show, storyboard(name, show)[0]
    except TraceError:
        pytest.skip(f"there is no recording of {device} for {name}")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", SCENES)
def test_something_moves_within_the_first_second(name, device):
    show, beat = beat_of(name, device)
    # Without title, caption and clock: what the scene itself shows.
    frames = BeatFrames(replace(beat, framed=False, follow=None), show)
    first, later = (np.frombuffer(frames.at(at_s).get_data(), dtype=np.uint8).astype(int) for at_s in (0.0, 0.9))
    moved = (np.abs(first - later).reshape(-1, 4).max(axis=1) > 16).sum()
    assert moved >= _LEAST


@pytest.mark.parametrize("name", SCENES)
def test_the_first_caption_is_there_with_the_first_frame(name):
    show, beat = beat_of(name, "cpu", SIZES["wide"])
    said = []
    BeatFrames(beat, show, note=lambda phrase, text: said.append(phrase)).said_at(0.0)
    assert beat.spoken()[0][2] in said
