"""Rhythm: captions stay until they are read, the film has its length, no picture stands still for long."""

from pathlib import Path

import pytest
from films import SIZES
from tracereel.film.frames import BeatFrames
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import FILMS, names, storyboard

pytestmark = pytest.mark.slow

H100 = Path(__file__).parent / "data" / "h100"
FASTEST = 18.05
"""Characters a second."""
SHOWS = {"cpu": Settings(device="cpu"), "cuda": Settings(device="cuda"), "h100": Settings(recordings=H100)}
"""With 8 slots and 64, the continuous run faster and slower."""


@pytest.fixture(scope="module", params=SHOWS)
def film(request):
    show = Show(SHOWS[request.param], SIZES["wide"])
    return show, storyboard("continuous_batching", show)


def test_a_caption_stays_until_it_is_read(film):
    for beat in film[1]:
        for from_s, to_s, phrase in beat.spoken():
            reads = len(phrase.text) / (to_s - from_s)
            assert reads <= FASTEST, f"{beat.name}: {reads:.1f} characters a second: {phrase.text}"


def test_the_film_takes_60_to_90_seconds(film):
    assert 60 <= sum(beat.clock.film_s for beat in film[1]) <= 90


def test_no_picture_stands_still_for_long(film):
    stand_still(*film)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in names() if name not in FILMS])
def test_no_scene_stands_still_for_long(name):
    show = Show(SHOWS["cpu"], (428, 240))
    stand_still(show, storyboard(name, show))


def stand_still(show, beats):
    for beat in beats:
        frames, still_s, before = BeatFrames(beat, show), 0.0, None
        for i in range(int(beat.clock.film_s * 2)):
            picture = bytes(frames.at(i / 2).get_data())
            still_s = still_s + 0.5 if picture == before else 0.0
            before = picture
            assert still_s < 2.5, f"{beat.name} stands still at {i / 2} s"
