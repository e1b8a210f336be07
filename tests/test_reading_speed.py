"""Rhythm: captions stay until they are read, the film has its length, no picture stands still for long."""

import math
import unicodedata
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from films import SIZES
from tracereel.film import show
from tracereel.film.beats.you_are import REAL_TO_S
from tracereel.film.frames import BeatFrames
from tracereel.film.phrases import words
from tracereel.film.reading import reading_s
from tracereel.film.registry import find
from tracereel.film.settings import Brand, Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import FILMS, names, storyboard
from tracereel.film.window import Window
from tracereel.trace.recordings.index import FILM, PACKAGE_RECORDINGS

pytestmark = pytest.mark.slow

H100 = Path(__file__).parent / "data" / "h100"
SHOWS = {"cpu": Settings(device="cpu"), "cuda": Settings(device="cuda"), "h100": Settings(recordings=H100)}
"""With 8 slots and 64, the continuous run faster and slower."""
GROUPS = Settings(recordings=PACKAGE_RECORDINGS / "vllm-kinds" / "cpu" / "sliding-window.jsonl.zst")
"""Layers in groups, of which each has block tables of its own."""
SCENES = [name for name in names() if name not in FILMS]
OF_THE_FILM = [name for name in SCENES if find(name).suite == FILM]
TOLD = [
    *((name, "cpu") for name in SCENES),
    *(pytest.param(name, key, marks=pytest.mark.long) for name in OF_THE_FILM for key in ("cuda", "h100")),
    ("kv_cache_paging", "groups"),
]
"""Each scene with each recording that it tells something else of."""


IN_THE_FILM = {"two_of_eight", "decode_batching", "you_are", "same_position", "cut_out_the_red", "closing"}
"""What is looked at in the film, from each machine's recordings."""
TOLD_ALONE = [
    *((name, "cpu") for name in SCENES if name not in IN_THE_FILM),
    *((name, key) for name in OF_THE_FILM if name not in IN_THE_FILM for key in ("cuda", "h100")),
    ("kv_cache_paging", "groups"),
]


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
    assert {beat.name for beat in film[1]} == IN_THE_FILM
    takes_s = sum(beat.clock.film_s for beat in film[1])
    assert 60 <= takes_s <= 90
    answered_s = next(beat.clock.passages[0].film_s for beat in film[1] if beat.name == "you_are")
    assert takes_s - answered_s + REAL_TO_S <= 90, "however long the answer takes that is followed"


def test_no_picture_stands_still_for_long(film):
    stand_still(*film)


@pytest.mark.long
@pytest.mark.parametrize(("name", "key"), TOLD_ALONE)
def test_no_scene_stands_still_for_long(name, key):
    shown = Show(GROUPS if key == "groups" else SHOWS[key], (428, 240))
    stand_still(shown, storyboard(name, shown))


def stand_still(shown, beats):
    for beat in beats:
        found = longest_still(BeatFrames(beat, shown), beat.clock.film_s)
        assert found[1] - found[0] < 2.5, f"{beat.name} stands still from {found[0]} to {found[1]} s"


def test_a_ratio_of_runs_that_are_no_pairs_does_not_stand_still(tmp_path):
    for case, repeat in (("static", 1), ("continuous", 2)):
        name = f"{case}-{repeat}.jsonl.zst"
        (tmp_path / name).write_bytes((PACKAGE_RECORDINGS / "film" / "cpu" / name).read_bytes())
    shown = Show(Settings(recordings=tmp_path), (428, 240))
    beats = storyboard("cut_out_the_red", shown)
    assert "pairs" not in beats[0].captions[-1].phrase.text
    stand_still(shown, beats)


LOOK_S, STEP_S = 1.25, 0.25
"""Two looks that are so far apart fall into any stretch of 2.5 s; only where both are the same, it is looked closer."""


def longest_still(frames, film_s):
    """From which to which second of a beat nothing changes for longest, as far as looks every quarter second say."""
    picture = cache(lambda i: bytes(frames.at(i * STEP_S).get_data()))
    last, apart = math.ceil(film_s / STEP_S) - 1, round(LOOK_S / STEP_S)
    longest = 0, 0
    for one, other in pairwise(range(0, last + 1, apart)):
        if picture(one) == picture(other) and other > longest[1]:
            first, until = one, other
            while first and picture(first - 1) == picture(one):
                first -= 1
            while until < last and picture(until + 1) == picture(one):
                until += 1
            longest = max(longest, (first, until), key=lambda stretch: stretch[1] - stretch[0])
    return longest[0] * STEP_S, longest[1] * STEP_S


@pytest.mark.parametrize(("still", "seen"), [((3.0, 5.5), 2.5), ((3.0, 5.25), 2.25), ((7.5, 10.0), 2.25), ((0, 3), 3)])
def test_a_still_picture_is_found_wherever_it_is(still, seen):
    class Frames:
        def at(self, film_s):
            held = still[0] if still[0] <= film_s <= still[1] else film_s
            return SimpleNamespace(get_data=lambda: repr(held).encode())

    from_s, to_s = longest_still(Frames(), 10.0)
    assert to_s - from_s == seen
