"""Which prefill stalled whom, and what bound the steps: recomputed from the raw lines, and as `inspect` says it."""

import json
import statistics
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
import zstandard
from films import SIZES
from tracereel.cli.main import main
from tracereel.film.frames import BeatFrames
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import storyboard
from tracereel.trace.analysis import stalls as analysis_stalls
from tracereel.trace.analysis.queries import Run
from tracereel.trace.analysis.stalls import stalls
from tracereel.trace.analysis.step_bounds import BOUNDS, bound_shares, step_bounds
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS
from tracereel.trace.state.columns import Trace

UNCHUNKED = PACKAGE_RECORDINGS / "chunked" / "cpu" / "unchunked-1.jsonl.zst"
CHUNKED = PACKAGE_RECORDINGS / "chunked" / "cpu" / "chunked-1.jsonl.zst"


def stalls_of_lines(path):
    """(step, request) -> its stall in ms, of the steps with a prefill, from the JSON alone."""
    lines = zstandard.ZstdDecompressor().stream_reader(path.open("rb")).read().decode().splitlines()
    steps = [record for record in map(json.loads, lines) if record["event"] == "step"]
    times = defaultdict(list)
    for step in steps:
        for request, sampled in zip(step["requests"], step.get("sampled", [1] * len(step["requests"])), strict=True):
            if sampled:
                times[request].append((step["index"], step["end_ns"]))
    gaps = {
        request: {index: at - before for (_, before), (index, at) in pairwise(seen)} for request, seen in times.items()
    }
    found = {}
    for step in steps:
        if "P" not in step["phases"]:
            continue
        for request, phase in zip(step["requests"], step["phases"], strict=True):
            if phase == "D" and step["index"] in gaps.get(request, {}):
                own = gaps[request]
                later = own[step["index"]] - statistics.median_low(own.values())
                found[step["index"], request] = max(later, 0) / 1e6
    return found


@pytest.mark.parametrize("path", [UNCHUNKED, CHUNKED], ids=lambda path: path.name)
def test_a_stall_is_a_gap_less_the_requests_median(path):
    want = stalls_of_lines(path)
    found = stalls(Trace.read(path))
    assert {stall.step for stall in found} == {step for step, _ in want}
    assert [stall.worst_ms for stall in found] == sorted((stall.worst_ms for stall in found), reverse=True)
    for stall in found:
        own = {request: ms for (step, request), ms in want.items() if step == stall.step}
        assert stall.decodes == len(own)
        assert stall.worst_ms == pytest.approx(max(own.values()))
        assert own[stall.worst] == pytest.approx(stall.worst_ms)
        assert stall.total_ms == pytest.approx(sum(own.values()))


def test_the_median_of_an_even_number_of_gaps_is_the_lower():
    values, group = np.array([9, 7, 1, 4, 2, 3]), np.array([0, 1, 0, 0, 0, 1], dtype=np.int32)
    assert analysis_stalls._medians(values, group).tolist() == [2, 3, 2, 2, 2, 3]


def test_equal_stalls_stand_in_the_order_of_their_steps(monkeypatch):
    of_members = analysis_stalls._stall_of_members
    monkeypatch.setattr(analysis_stalls, "_stall_of_members", lambda trace: np.minimum(of_members(trace), 0))
    found = [stall.step for stall in stalls(Trace.read(CHUNKED))]
    assert len(found) > 2
    assert found == sorted(found)


def test_a_long_prompt_stalls_less_in_chunks():
    whole, chunked = (stalls(Trace.read(path))[0].worst_ms for path in (UNCHUNKED, CHUNKED))
    assert chunked < whole


@pytest.mark.parametrize("path", [UNCHUNKED, CHUNKED], ids=lambda path: path.name)
def test_the_shares_are_of_the_steps_time(path):
    trace = Trace.read(path)
    shares = bound_shares(trace)
    assert tuple(shares) == BOUNDS
    assert sum(shares.values()) == pytest.approx(1)
    spans = trace.steps.end_ns - trace.steps.start_ns
    for i, name in enumerate(BOUNDS):
        assert shares[name] == pytest.approx(spans[step_bounds(trace) == i].sum() / spans.sum())


def test_inspect_says_both(capsys):
    assert main(("inspect", str(UNCHUNKED), "--stalls", "--json")) == 0
    facts = json.loads(capsys.readouterr().out)
    first = stalls(Trace.read(UNCHUNKED))[0]
    assert facts["stalls"][0]["worst"] == first.worst
    assert facts["stalls"][0]["worst_ms"] == pytest.approx(first.worst_ms)
    assert set(facts["step_bounds"]) == set(BOUNDS)
    assert main(("inspect", str(UNCHUNKED), "--stalls")) == 0
    out = capsys.readouterr().out
    assert f"R{first.worst}" in out
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


def test_nobody_is_stalled_by_a_request_that_is_read_alone():
    with pytest.raises(ValueError, match="no request decodes"):
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
