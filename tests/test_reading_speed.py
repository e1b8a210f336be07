"""Rhythm: captions stay until they are read, the film has its length, no picture stands still for long."""

import unicodedata
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from films import SIZES
from tracereel.film import show
from tracereel.film.frames import BeatFrames
from tracereel.film.phrases import words
from tracereel.film.reading import reading_s
from tracereel.film.settings import Brand, Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import FILMS, names, storyboard, suite_of
from tracereel.film.window import Window
from tracereel.trace.recordings.index import FILM, PACKAGE_RECORDINGS

pytestmark = pytest.mark.slow

H100 = Path(__file__).parent / "data" / "h100"
SHOWS = {"cpu": Settings(device="cpu"), "cuda": Settings(device="cuda"), "h100": Settings(recordings=H100)}
"""With 8 slots and 64, the continuous run faster and slower."""
GROUPS = Settings(recordings=PACKAGE_RECORDINGS / "vllm-kinds" / "cpu" / "sliding-window.jsonl.zst")
"""Layers in groups, of which each has block tables of its own."""
SCENES = [name for name in names() if name not in FILMS]
OF_THE_FILM = [name for name in SCENES if suite_of(name) == FILM]
TOLD = [
    *((name, "cpu") for name in SCENES),
    *(pytest.param(name, key, marks=pytest.mark.long) for name in OF_THE_FILM for key in ("cuda", "h100")),
    ("kv_cache_paging", "groups"),
]
"""Each scene with each recording that it tells something else of."""


@cache
def show_of(key, language):
    settings = GROUPS if key == "groups" else SHOWS[key]
    with pytest.MonkeyPatch.context() as patch:
        # No words are painted here: no face with the language's characters is needed.
        patch.setattr(show, "can_set", lambda text: True)
        return Show(replace(settings, language=language), SIZES["wide"])


@pytest.fixture(scope="module", params=SHOWS)
def film(request):
    shown = Show(SHOWS[request.param], SIZES["wide"])
    return shown, storyboard("continuous_batching", shown)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(("name", "key"), TOLD)
def test_a_caption_stays_until_it_is_read(name, key, language):
    spoken = [said for beat in storyboard(name, show_of(key, language)) for said in beat.spoken()]
    assert spoken
    for from_s, to_s, phrase in spoken:
        # A wide character is half as quick to read as a letter: 9 of them a second, or 18 letters.
        wide = sum(unicodedata.east_asian_width(char) in "WF" for char in phrase.text)
        reads = (len(phrase.text) + wide) / (to_s - from_s)
        assert reads <= 18 + 1e-6, f"{reads:.1f} letters a second from {from_s:.1f} s: {phrase.text}"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("a" * 18, 1), ("字" * 9, 1), ("字a", 3 / 18), ("，", 2 / 18), ("é×µ", 3 / 18), ("", 0)],
)
def test_what_reading_takes(text, seconds):
    assert reading_s(words(text)) == pytest.approx(seconds)


@pytest.mark.parametrize("scene", ["decode_batching", "pipeline_flow", "kv_cache_paging"])
def test_the_captions_of_a_stretch_stay_until_they_are_read(scene):
    stretch = Window.read({"from": "0.4", "to": "0.5"})
    for beat in storyboard(scene, Show(Settings(device="cpu", window=stretch), SIZES["wide"])):
        assert len(beat.captions) == 2
        for from_s, to_s, phrase in beat.spoken():
            assert to_s - from_s >= reading_s(phrase) - 1e-9, phrase.text


def test_a_brands_long_words_stay_until_they_are_read():
    long = words("a claim that is as long as a brand may make it, with words and words and words")
    beats = storyboard("opening", Show(Settings(brand=Brand(title=long, claim=long)), SIZES["wide"]))
    for from_s, to_s, phrase in beats[0].spoken():
        assert to_s - from_s >= reading_s(phrase) - 1e-9


def test_the_film_takes_60_to_90_seconds(film):
    assert 60 <= sum(beat.clock.film_s for beat in film[1]) <= 90


def test_no_picture_stands_still_for_long(film):
    stand_still(*film)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in names() if name not in FILMS])
def test_no_scene_stands_still_for_long(name):
    shown = Show(SHOWS["cpu"], (428, 240))
    stand_still(shown, storyboard(name, shown))


def stand_still(shown, beats):
    for beat in beats:
        frames, still_s, before = BeatFrames(beat, shown), 0.0, None
        for i in range(int(beat.clock.film_s * 2)):
            picture = bytes(frames.at(i / 2).get_data())
            still_s = still_s + 0.5 if picture == before else 0.0
            before = picture
            assert still_s < 2.5, f"{beat.name} stands still at {i / 2} s"
