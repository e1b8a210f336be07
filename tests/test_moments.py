"""Moments are found in what happened, and a scene of one's own may ask queries of its own."""

import json
from pathlib import Path

import numpy as np
import pytest
import zstandard
from drawing import SIZE
from tracereel.film.frames import BeatFrames
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import storyboard
from tracereel.trace.analysis.moments import (
    even_handover,
    first_eviction,
    first_handover,
    first_sharing,
    long_prompt,
    worst_pause,
)
from tracereel.trace.analysis.queries import QUERIES, SUBJECTS, Run, lines_of_run, measure, query
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS


@pytest.fixture(scope="module")
def paging() -> Run:
    return Run.read(PACKAGE_RECORDINGS / "paging" / "cpu" / "prefix-caching-1.jsonl.zst")


def test_the_first_shared_prefix_is_in_both_block_tables(paging):
    sharing = first_sharing(paging.timeline)
    assert sharing is not None
    state = paging.timeline.at(sharing.at_ns)
    for block in sharing.blocks:
        assert {sharing.request, sharing.owner} <= set(state.block_holders[block])
    earlier = [
        int(at)
        for at, cached in zip(paging.trace.residencies.from_ns, paging.trace.residencies.cached, strict=True)
        if cached and at < sharing.at_ns
    ]
    for at in earlier:
        assert all(len(holders) == 1 for holders in paging.timeline.at(at).block_holders.values())


def test_the_first_eviction_is_one_after_which_tokens_are_computed_again(paging):
    eviction = first_eviction(paging.timeline)
    assert eviction is not None
    assert eviction.request in paging.timeline.at(eviction.at_ns).waiting
    again = paging.measure("recomputed_tokens", request=eviction.request, t_ns=eviction.back_ns)
    assert again.value > 0


@pytest.mark.parametrize("recordings", ["package", "h100"])
def test_the_even_handover_has_the_shortest_longest_step_around_it(recordings, film_recordings):
    folder = film_recordings if recordings == "package" else Path(__file__).parent / "data" / "h100" / "film"
    trace = Run.read(folder / "continuous-1.jsonl.zst").trace
    spans = trace.steps.end_ns - trace.steps.start_ns
    until = int(trace.steps.end_ns[-1]) // 4

    def unevenness(step):
        around = spans[step - 6 : step + 4]
        return around.max() / around.sum()

    found = even_handover(trace, 8, 6, 3, until)
    assert found is not None
    residencies, others = trace.residencies, []
    for i in range(len(residencies.request)):
        step = int(residencies.last_step[i]) + 1
        retaken = ((residencies.slot == residencies.slot[i]) & (residencies.first_step == step)).any()
        if residencies.slot[i] < 8 and residencies.to_ns[i] <= until and retaken and step >= 6:
            others.append(unevenness(step))
    assert len(others) > 3
    assert unevenness(found.taken_step) == pytest.approx(min(others))


def test_a_handover_is_the_very_next_step(film_recordings):
    trace = Run.read(film_recordings / "continuous-1.jsonl.zst").trace
    handover = first_handover(trace)
    assert handover is not None
    left, came = (
        int(np.flatnonzero((trace.residencies.request == request) & (trace.residencies.slot == handover.slot))[0])
        for request in (handover.left, handover.came)
    )
    assert trace.residencies.last_step[left] + 1 == handover.taken_step == trace.residencies.first_step[came]
    assert handover.ended_ns == min(
        int(end)
        for end, step, slot in zip(
            trace.residencies.to_ns, trace.residencies.last_step, trace.residencies.slot, strict=True
        )
        if ((trace.residencies.slot == slot) & (trace.residencies.first_step == step + 1)).any()
    )


def test_static_batches_hand_no_slot_over_and_a_film_of_equals_has_no_long_prompt(film_recordings):
    run = Run.read(film_recordings / "static-1.jsonl.zst")
    handover = first_handover(run.trace)
    # Only where a whole batch has ended at once.
    assert (
        handover is None
        or not (run.trace.residencies.to_ns > handover.ended_ns)[
            run.trace.residencies.first_step < handover.taken_step
        ].any()
    )
    assert first_eviction(run.timeline) is None
    assert first_sharing(run.timeline) is None


def test_the_long_prompt_comes_while_others_decode():
    run = Run.read(PACKAGE_RECORDINGS / "chunked" / "cpu" / "unchunked-1.jsonl.zst")
    request = long_prompt(run.timeline)
    assert request is not None
    assert run.trace.arrivals[request].prompt_tokens == max(a.prompt_tokens for a in run.trace.arrivals)


def test_the_worst_pause_is_the_longest_itl(film_recordings):
    run = Run.read(film_recordings / "online-1.jsonl.zst")
    pause = worst_pause(run.trace)
    assert pause is not None
    assert (pause.to_ns - pause.from_ns) / 1e6 == pytest.approx(float(run.metrics.itl_ms.max()))


def test_a_scene_of_ones_own_registers_its_query(film_recordings):
    run = Run.read(film_recordings / "continuous-1.jsonl.zst")

    @query
    def longest_output(run: Run):
        return int(run.metrics.output_lengths.max()), lines_of_run(run)

    try:
        value = measure("longest_output", [run])
        assert value.value == run.metrics.output_lengths.max()
        assert value.traces == (run.trace.digest,)
    finally:
        del QUERIES["longest_output"]


def test_a_querys_name_is_its_own():
    def waiting(run: Run):
        return 0, (1, 1)

    with pytest.raises(ValueError, match=r"'waiting' of tracereel\.trace\.analysis\.queries\.instants"):
        query(waiting)


def test_every_query_is_of_a_subject_and_says_what_it_gives():
    modules = {subject.__name__ for subject in SUBJECTS}
    for name, function in QUERIES.items():
        assert function.__module__ in modules, name
        assert function.__doc__, name


@pytest.mark.parametrize(
    ("recording", "cause"),
    [
        ("film/cpu/continuous-1", "prefill"),
        ("film/cpu/static-1", "prefill_apart"),
        ("film/cpu/same-position-1", "left_out"),
        ("sweep/cpu/continuous-4-1", "step"),
        ("sglang/cpu/tiny-gpt2", "preempted"),
    ],
)
def test_the_cause_of_the_worst_pause_is_what_the_records_say(recording, cause):
    run = Run.read(PACKAGE_RECORDINGS / f"{recording}.jsonl.zst")
    pause = worst_pause(run.trace)
    assert pause is not None
    assert pause.cause == cause
    lines = zstandard.ZstdDecompressor().stream_reader(run.trace.path.open("rb")).read().decode().splitlines()
    steps = [record for record in map(json.loads, lines) if record["event"] == "step"]
    between = [step for step in steps[: pause.step] if step["start_ns"] >= pause.from_ns]
    without = [step for step in between if pause.request not in step["requests"]]
    read = {"prefill": [steps[pause.step]], "prefill_apart": without}.get(cause, [])
    tokens = sum(n for step in read for n, phase in zip(step["computed"], step["phases"], strict=True) if phase == "P")
    assert run.measure("worst_pause_prefill_tokens").value == tokens
    assert bool(without) == (cause in ("prefill_apart", "left_out", "preempted"))
    assert bool(tokens) == (cause in ("prefill", "prefill_apart"))
    assert pause.first_step == (without[0]["index"] if cause in ("prefill_apart", "left_out") else pause.step)


@pytest.mark.parametrize(("case", "said"), [("static", "prefill_apart"), ("same-position", "left_out")])
def test_a_film_names_the_steps_that_left_a_request_out(case, said):
    settings = Settings(recordings=PACKAGE_RECORDINGS / "film" / "cpu" / f"{case}-1.jsonl.zst")
    (beat,) = storyboard("where_it_hurts", show := Show(settings, SIZE))
    assert {stated.key for stated in beat.captions[-1].phrase.stated} >= {f"where_it_hurts.{said}"}
    BeatFrames(beat, show).said_at(beat.clock.film_s)
