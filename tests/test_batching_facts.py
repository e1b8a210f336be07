"""What words say of runs in general holds of the run that they are said of."""

import dataclasses
import shutil

import msgspec
import pytest
from fakes import header, make_engine, make_requests, record_small_run
from tracereel.engine.config import EngineConfig
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import storyboard
from tracereel.trace.analysis.batching_facts import Refill, all_advance, came_together, refill
from tracereel.trace.analysis.pairs import apart, repeat_by_repeat
from tracereel.trace.format.recorder import Recorder
from tracereel.trace.recordings.index import ENVIRONMENT, RecordingIndex
from tracereel.trace.state.columns import Trace

POLICIES = {
    "continuous": (Refill.RUNNING, True),
    "static": (Refill.CLOSED, None),
    "same-position": (Refill.RUNNING, False),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_refills_and_advances_as_it_says(policy, film_recordings, tmp_path):
    expected, advance = POLICIES[policy]
    for trace in (recording.read() for recording in RecordingIndex(film_recordings).case(policy)):
        assert refill(trace) is expected
        assert advance is None or all_advance(trace) == advance
        assert came_together(trace)
    record_small_run(tmp_path / "run.jsonl", policy)
    assert refill(Trace.read(tmp_path / "run.jsonl")) is expected


def test_one_slot_is_taken_by_one_after_the_other(tmp_path):
    config = EngineConfig(max_num_seqs=1, max_num_batched_tokens=24, num_blocks=20, block_size=4, max_model_len=64)
    with Recorder(tmp_path / "run.jsonl", header(config)) as recorder:
        engine = make_engine(config, recorder)
        for request in make_requests(3):
            engine.add(request)
        while engine.has_work:
            engine.step()
    assert refill(Trace.read(tmp_path / "run.jsonl")) is Refill.ALONE


def test_nobody_takes_the_slot_of_the_only_one(tmp_path):
    record_small_run(tmp_path / "run.jsonl", count=1)
    assert refill(Trace.read(tmp_path / "run.jsonl")) is Refill.NEVER


def test_runs_lie_beside_each_other_as_their_clocks_say(film_recordings):
    index = RecordingIndex(film_recordings)
    runs = {case: [r.read() for r in index.case(case)] for case in ("static", "continuous")}
    assert apart([*runs["static"], *runs["continuous"]])
    assert repeat_by_repeat([*runs["static"], *runs["continuous"]])
    assert not apart([runs["static"][0], runs["static"][0]])
    swapped = [
        msgspec.structs.replace(t.header, run=msgspec.structs.replace(t.header.run, repeat=4 - i))
        for i, t in enumerate(runs["static"])
    ]
    backwards = [dataclasses.replace(t, header=h) for t, h in zip(runs["static"], swapped, strict=True)]
    assert not repeat_by_repeat([*backwards, *runs["continuous"]])
    assert not came_together(index.case("online")[0].read())


def captions_of(name, recordings, monkeypatch) -> list[str]:
    monkeypatch.setenv(ENVIRONMENT, str(recordings))
    beats = storyboard(name, Show(Settings(), (854, 480)))
    return [caption.phrase.text for beat in beats for caption in beat.captions]


@pytest.mark.parametrize("policy", POLICIES)
def test_the_pipeline_says_what_becomes_of_a_slot(policy, film_recordings, monkeypatch):
    said = " ".join(captions_of("pipeline_flow", film_recordings / f"{policy}-1.jsonl.zst", monkeypatch))
    assert "All requests wait for a slot from the start" in said
    assert ("stays empty until all of the batch have finished" in said) == (policy == "static")
    assert ("the next in line takes its slot" in said) == (policy != "static")
    assert ("that is continuous batching" in said) == (policy == "continuous")


@pytest.mark.slow
def test_pairs_are_said_to_be_made_in_turns_only_where_they_were(film_recordings, tmp_path, monkeypatch):
    said = captions_of("throughput_comparison", film_recordings, monkeypatch)
    assert said[-1].endswith("the median of paired runs, taken in turn.")
    for case in ("static", "continuous"):
        shutil.copy(film_recordings / f"{case}-1.jsonl.zst", tmp_path)
    assert captions_of("throughput_comparison", tmp_path, monkeypatch)[-1].endswith("one run of each.")
    (tmp_path / "static-1.jsonl.zst").unlink()
    shutil.copy(film_recordings / "same-position-1.jsonl.zst", tmp_path)
    assert "static" not in captions_of("throughput_comparison", tmp_path, monkeypatch)[-1].lower()
