"""Captions that were agreed on are said in those words; a free block's contents are kept only where they can be."""

import pytest
from films import SIZES
from tracereel.film.frames import BeatFrames
from tracereel.film.phrases import Phrasebook, words
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import storyboard

GIVEN = {
    "en": {
        "pipeline_flow.leave": "A finished request leaves at once; the next in line takes its slot.",
        "pipeline_flow.arrive": "Requests arrive at any time and queue for a slot.",
        "two_of_eight.rows": "The engine can write N answers at once. Each row is a slot: one place in the batch.",
        "same_position.why": "Some engines can only batch answers that are equally long so far.",
        "kv_cache_paging.kept": "free, contents kept",
        "kv_cache_paging.reserved": "reserved, not yet filled",
    },
    "zh": {
        "two_of_eight.idle_while_waiting": "有请求在等却空着的槽步",
        "strip.slower": "放慢 N 倍播放",
    },
}


@pytest.mark.parametrize("language", GIVEN)
def test_the_agreed_words_are_said(language):
    book = Phrasebook(language)
    for key, text in GIVEN[language].items():
        assert book.say(key, slots=words("N"), factor=words("N")).text == text


def test_a_closed_batch_takes_no_new_requests_in_chinese():
    book = Phrasebook("zh")
    assert all(
        "整批不再接纳新请求" in book.say(key).text for key in ("two_of_eight.closed", "decode_batching.static_is")
    )


@pytest.mark.parametrize("shape", SIZES)
def test_every_look_of_a_block_is_named(shape):
    show = Show(Settings(device="cpu"), SIZES[shape])
    (beat,) = storyboard("kv_cache_paging", show)
    phrases = []
    BeatFrames(beat, show, note=lambda phrase, text: phrases.append(text)).said_at(2.0)
    assert {"held", "shared", "free", "free, contents kept", "reserved, not yet filled"} <= set(phrases)


def test_contents_are_kept_only_where_prefixes_are_found_again():
    show = Show(Settings(device="cpu"), SIZES["wide"])
    shared, plain = storyboard("kv_cache_paging", show)[0].runs
    assert [run.measure("caches_prefixes").value for run in (shared, plain)] == [1, 0]
