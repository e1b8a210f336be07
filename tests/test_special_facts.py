"""What only some engines say of a run: asked by query, on the title card in every shape, and not where it is not."""

from dataclasses import replace
from pathlib import Path

import pytest
from films import SIZES, laid_out
from tracereel.film.components.special_facts import special_rows
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrasebook
from tracereel.film.settings import Settings
from tracereel.film.theme import BODY
from tracereel.trace.analysis.queries import Run
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS

KINDS = PACKAGE_RECORDINGS / "vllm-kinds" / "cpu"
ROWS = {
    "lora": [
        "routing: LoRA requests: clerk 2, poet 3",
        "scheduling: max_loras 2",
        "KV cache: cached tokens: local 128",
    ],
    "speculation": [
        "scheduling: speculative_method ngram · speculative_tokens 3 · 150 of 189 drafts accepted, 0 invalid",
        "KV cache: cached tokens: local 160",
    ],
    "loading": [
        "scheduling: kv_connector WaitingConnector",
        "KV cache: cached tokens: external 448 · requests that waited for KV: 7",
    ],
    "prefill-decode": [
        "scheduling: kv_connector NixlConnector",
        "KV cache: cached tokens: external 432 · requests that waited for KV: 4 · transfers: 8, median 34.84 ms",
    ],
    "moe": [
        "routing: 2 layers of 8 experts, the busiest taken 3.6× the mean",
        "KV cache: cached tokens: local 160",
    ],
}


def rows_of(path: Path, room: float = 1e6) -> list[str]:
    return [f"{row.name.text}: {row.value.text}" for row in special_rows(Run.read(path), Phrasebook().say, room)]


@pytest.mark.parametrize("kind", ROWS)
def test_what_a_trace_says_beyond_others_is_a_row_for_each_subject(kind):
    assert rows_of(KINDS / f"{kind}.jsonl.zst") == ROWS[kind]


def test_a_trace_that_says_nothing_of_the_kind_has_no_row():
    run = next((PACKAGE_RECORDINGS / "film" / "cpu").glob("continuous*"))
    assert rows_of(run) == []


def test_facts_that_do_not_fit_into_a_row_are_whole_in_the_next():
    rows = rows_of(KINDS / "speculation.jsonl.zst", room=700)
    assert rows[:2] == [
        "scheduling: speculative_method ngram · speculative_tokens 3",
        "scheduling: 150 of 189 drafts accepted, 0 invalid",
    ]
    assert all(width(row.partition(": ")[2], BODY) <= 700 for row in rows)


def test_an_unknown_fact_is_refused():
    with pytest.raises(ValueError, match="no special fact is called 'weather'"):
        Run.read(KINDS / "lora.jsonl.zst").measure("special", fact="weather")


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("kind", ROWS)
def test_the_title_card_says_it_and_nothing_is_in_the_way(kind, size):
    _, frames = laid_out(
        "opening", size, texts=20, settings=replace(Settings(), recordings=KINDS / f"{kind}.jsonl.zst")
    )
    said = {thing.name for thing in frames[-1]}
    for row in ROWS[kind]:
        for fact in row.partition(": ")[2].split(" · "):
            assert any(fact in text for text in said), (fact, said)
