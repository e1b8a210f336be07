"""Which prefill stalled whom, and what bound the steps: recomputed from the raw lines, and as `inspect` says it."""

import json
import statistics
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
import zstandard
from films import SIZES
from retimed import record
from tracereel.cli.main import main
from tracereel.film.frames import BeatFrames
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import storyboard
from tracereel.trace.analysis import stalls as analysis_stalls
from tracereel.trace.analysis.queries import Run
from tracereel.trace.analysis.stalls import stalls
from tracereel.trace.analysis.step_bounds import BOUNDS
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS
from tracereel.trace.state.columns import Trace

UNCHUNKED = PACKAGE_RECORDINGS / "chunked" / "cpu" / "unchunked-1.jsonl.zst"
CHUNKED = PACKAGE_RECORDINGS / "chunked" / "cpu" / "chunked-1.jsonl.zst"
KINDS = [
    *(UNCHUNKED, CHUNKED),
    *(PACKAGE_RECORDINGS / "film" / "cpu" / f"{policy}-1.jsonl.zst" for policy in ("static", "same-position")),
    PACKAGE_RECORDINGS / "paging" / "cpu" / "no-prefix-caching-1.jsonl.zst",  # preempts
    PACKAGE_RECORDINGS / "sglang" / "cpu" / "tiny-gpt2.jsonl.zst",  # prefills in steps of its own
]


def stalls_of_lines(path):
    """(step, request) -> its stall in ms by that step's prefill, from the JSON alone."""
    lines = zstandard.ZstdDecompressor().stream_reader(path.open("rb")).read().decode().splitlines()
    steps = [record for record in map(json.loads, lines) if record["event"] == "step"]
    prefills = {step["index"] for step in steps if "P" in step["phases"]}
    took = {now["index"]: now["end_ns"] - before["end_ns"] for before, now in pairwise(steps)}
    tokens, preempted = defaultdict(list), defaultdict(list)
    for step in steps:
        for request in step.get("preempted", []):
            preempted[request].append(step["index"])
        for request, phase, sampled in zip(step["requests"], step["phases"], step["sampled"], strict=True):
            if sampled:
                tokens[request].append((step["index"], step["end_ns"], phase))
    found = {}
    for request, seen in tokens.items():
        median = statistics.median_low(b[1] - a[1] for a, b in pairwise(seen)) if len(seen) > 1 else 0
        for (before, before_ns, _), (after, after_ns, phase) in pairwise(seen):
            between = [index for index in range(before + 1, after + 1) if index in prefills]
            lost = any(before < index <= after for index in preempted[request])
            if phase == "D" and between and not lost:
                prefilling = sum(took[index] for index in between)
                late = min(max(after_ns - before_ns - median, 0), prefilling)
                for index in between:
                    found[index, request] = late * took[index] / prefilling / 1e6
    return found


@pytest.mark.parametrize("path", KINDS, ids=lambda path: path.name)
def test_a_stall_is_what_the_prefills_made_a_token_later_than_the_median(path):
    want = stalls_of_lines(path)
    found = stalls(Trace.read(path))
    assert {stall.step for stall in found} == {step for step, _ in want}
    assert [stall.worst_ms for stall in found] == sorted((stall.worst_ms for stall in found), reverse=True)
    for stall in found:
        own = {request: ms for (step, request), ms in want.items() if step == stall.step}
        assert stall.decodes == len(own)
        assert stall.worst_ms == pytest.approx(max(own.values()), abs=1e-5)
        assert own[stall.worst] == pytest.approx(stall.worst_ms, abs=1e-5)
        assert stall.total_ms == pytest.approx(sum(own.values()), abs=1e-4)


def made(path, steps):
    """A trace of steps [(ms, phases, requests), ...] one right after the other; each gives its members a token."""
    record(path, "continuous")  # for its header
    header = json.loads(path.read_bytes().splitlines()[0])
    header["workload"].pop("requests", None)
    lines = [header]
    for request in (0, 1, 2):
        lines.append(
            {
                "event": "arrival",
                "request": request,
                "id": str(request),
                "arrival_ns": 0,
                "submitted_ns": 0,
                "prompt_tokens": 8,
            }
        )
    now, entered = 0, set()
    for index, (ms, phases, requests) in enumerate(steps):
        admitted = [{"request": request, "slot": request} for request in requests if request not in entered]
        entered.update(requests)
        ones = [1] * len(requests)
        lines.append(
            {
                "event": "step",
                "index": index,
                "start_ns": now,
                "end_ns": now + ms * 10**6,
                "requests": list(requests),
                "slots": list(requests),
                "phases": phases,
                "positions": ones,
                "computed": ones,
                "sampled": ones,
                "waiting": 0,
                "running": len(entered),
                "admitted": admitted,
            }
        )
        now += ms * 10**6
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return Trace.read(path)


def told(trace):
    return {(s.step, s.worst): (s.prefills, s.decodes, s.worst_ms, s.total_ms) for s in stalls(trace)}


def test_a_prefill_in_a_step_of_its_own_stalls_those_that_it_leaves_out(tmp_path):
    """R1 gets tokens after 10, 10, and 30 + 20 + 10 ms: 50 ms late, by a prefill of 30 ms and one of 20 ms."""
    steps = [(10, "P", [0]), (10, "D", [0]), (10, "D", [0]), (30, "P", [1]), (20, "P", [2]), (10, "DDD", [0, 1, 2])]
    # R2 got its token with its own prefill: then 20 + 10 ms pass, its only gap, which is its median.
    assert told(made(tmp_path / "t.jsonl", steps)) == {(3, 0): ((1,), 1, 30, 30), (4, 0): ((2,), 2, 20, 20)}


def test_a_request_that_waits_for_its_turn_is_stalled_no_longer_than_the_prefill_took(tmp_path):
    """R1 is left out for 40 ms of other requests' decodes and a prefill of 15 ms: 55 + 10 - 10 ms late, 15 by it."""
    steps = [
        *((10, "P", [0]), (10, "D", [0]), (10, "D", [0])),
        *((15, "P", [1]), (20, "D", [1]), (20, "D", [1]), (10, "D", [0])),
    ]
    assert told(made(tmp_path / "t.jsonl", steps)) == {(3, 0): ((1,), 1, 15, 15)}


def test_the_median_of_an_even_number_of_gaps_is_the_lower():
    values, group = np.array([9, 7, 1, 4, 2, 3]), np.array([0, 1, 0, 0, 0, 1], dtype=np.int32)
    assert analysis_stalls._medians(values, group).tolist() == [2, 3, 2, 2, 2, 3]


def test_equal_stalls_stand_in_the_order_of_their_steps(tmp_path):
    steps = [(10, "P", [0]), (10, "D", [0]), (10, "D", [0]), (20, "DP", [0, 1]), (10, "D", [0]), (20, "DP", [0, 2])]
    steps += [(10, "D", [0])] * 3
    assert [(stall.step, stall.worst_ms) for stall in stalls(made(tmp_path / "t.jsonl", steps))] == [(3, 10), (5, 10)]


def test_a_long_prompt_stalls_less_in_chunks():
    whole, chunked = (stalls(Trace.read(path))[0].worst_ms for path in (UNCHUNKED, CHUNKED))
    assert chunked < whole


def test_inspect_says_both(capsys):
    assert main(("inspect", str(UNCHUNKED), "--stalls", "--json")) == 0
    facts = json.loads(capsys.readouterr().out)
    first = stalls(Trace.read(UNCHUNKED))[0]
    assert facts["stalls"][0]["worst"] == first.worst
    assert facts["stalls"][0]["worst_ms"] == pytest.approx(first.worst_ms)
    assert set(facts["step_bounds"]) == set(BOUNDS)
    assert main(("inspect", str(UNCHUNKED), "--stalls")) == 0
    out = capsys.readouterr().out
    # Called as in a film: R1 is request 0.
    (row,) = [line.split() for line in out.splitlines() if line.split()[:1] == [str(first.step)]]
    assert row[2:6:3] == [f"R{first.prefills[0] + 1}", f"R{first.worst + 1}"]
    assert "nobody waiting" in out


@pytest.mark.parametrize("path", [UNCHUNKED, CHUNKED], ids=lambda path: path.name)
def test_what_a_prefill_does_to_the_others_is_asked_by_request(path):
    run = Run.read(path)
    request = max(range(len(run.trace.arrivals)), key=lambda i: run.trace.arrivals[i].prompt_tokens)
    lines = zstandard.ZstdDecompressor().stream_reader(path.open("rb")).read().decode().splitlines()
    steps = [record for record in map(json.loads, lines) if record["event"] == "step"]
    own = {
        s["index"] for s in steps for r, p in zip(s["requests"], s["phases"], strict=True) if (r, p) == (request, "P")
    }
    want = {key: ms for key, ms in stalls_of_lines(path).items() if key[0] in own}
    longest = max(want, key=want.get)
    assert run.measure("longest_stall_ms", request=request).value == pytest.approx(want[longest])
    who = int(run.measure("longest_stalled", request=request).value[1:]) - 1
    assert max(ms for (_, other), ms in want.items() if other == who) == pytest.approx(want[longest])
    assert run.measure("all_stalls_ms", request=request).value == pytest.approx(sum(want.values()))


def test_what_a_step_costs_is_one_requests_doing_where_it_prefills_no_other():
    assert Run.read(CHUNKED).measure("is_prefilled_alone", request=7).value
    sglang = Run.read(KINDS[-1])
    assert [sglang.measure("is_prefilled_alone", request=request).value for request in (2, 5)] == [0, 1]


def test_it_is_known_where_a_request_is_left_out_of_steps():
    """Where an engine prefills in steps of its own, and where groups of requests take turns."""
    left_out = [not Run.read(path).measure("decodes_leave_out_no_step").value for path in KINDS]
    assert left_out == [False, False, True, True, False, True]


def test_nobody_is_stalled_by_a_request_that_is_read_alone():
    with pytest.raises(ValueError, match="no request was decoding"):
        Run.read(UNCHUNKED).measure("longest_stall_ms", request=0)


def test_the_film_says_who_is_stalled_and_what_it_comes_to():
    show = Show(Settings(device="cpu"), SIZES["wide"])
    (beat,) = storyboard("chunked_prefill", show)
    whole, chunks = (
        sum(ms for (step, _), ms in stalls_of_lines(run.trace.path).items() if step in _reading(run, 7))
        for run in beat.runs
    )
    said = beat.captions[-1].phrase
    assert {stated.key for stated in said.stated} == {f"chunked_prefill.stalls_{'more' if whole < chunks else 'less'}"}
    assert f"read whole, {whole:,.0f} ms" in said.text
    assert f"{chunks:,.0f} ms" in said.text
    phrases = []
    BeatFrames(beat, show, note=lambda phrase, text: phrases.append(phrase)).said_at(beat.clock.film_s)
    queries = [figure.source.query for phrase in phrases for figure in phrase.figures]
    assert queries.count("longest_stalled") == queries.count("longest_stall_ms") == 2


def _reading(run, request):
    steps = run.trace.steps
    return set(steps.member_step[(steps.member_request == request) & ~steps.member_decode].tolist())
