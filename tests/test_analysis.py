"""What a trace adds up to, against formulas written down elsewhere and against the records themselves."""

import dataclasses
import itertools
import json
import math
from pathlib import Path

import fakes
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from retimed import record
from tracereel.cli.main import main
from tracereel.trace.analysis.comparable import NotComparableError, require_comparable
from tracereel.trace.analysis.compare import estimate, group_runs
from tracereel.trace.analysis.diff import NothingInCommonError, differences, parting
from tracereel.trace.analysis.metrics import Distribution, Metrics, SloError, parse_slo
from tracereel.trace.analysis.pairs import pairs_of
from tracereel.trace.analysis.step_bounds import bound_shares
from tracereel.trace.analysis.summary import provenance
from tracereel.trace.analysis.waterfall import waterfall
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS
from tracereel.trace.state.columns import Trace


def vllm_bench_serve(path: Path, limits_ms: dict[str, float]) -> dict[str, float]:
    """What `vllm bench serve` would print for these time stamps.

    Its formulas, in our own words: vllm/benchmarks/serve.py, `calculate_metrics` (and RequestFuncOutput of
    vllm/benchmarks/lib/endpoint_request_func.py), vLLM at def9ce85ba1079af970a58ed3d42dd861ae35d58. Seconds inside,
    milliseconds out; requests that failed count for nothing but are not divided out of the duration.
    """
    records = [json.loads(line) for line in path.read_bytes().splitlines()]
    start = {r["request"]: r["arrival_ns"] / 1e9 for r in records if r["event"] == "arrival"}
    tokens: dict[int, list[float]] = {request: [] for request in start}
    success = set()
    for event in records:
        if event["event"] == "step":
            for request, sampled in zip(event["requests"], event["sampled"], strict=True):
                tokens[request] += [event["end_ns"] / 1e9] * sampled
            success |= {ending["request"] for ending in event.get("finished", [])}
    duration = max(times[-1] for times in tokens.values() if times) - min(start.values())
    ttfts, tpots, all_tpots, itls, e2els = [], [], [], [], []
    for request in sorted(success):
        times = tokens[request]
        latency, ttft = times[-1] - start[request], times[0] - start[request]
        tpot = (latency - ttft) / (len(times) - 1) if len(times) > 1 else 0
        tpots += [tpot] if len(times) > 1 else []
        all_tpots.append(tpot)
        itls += [b - a for a, b in itertools.pairwise(times)]
        ttfts.append(ttft)
        e2els.append(latency)
    samples = {"ttft": ttfts, "tpot": all_tpots, "e2el": e2els}
    good = sum(all(samples[name][i] <= limit / 1000 for name, limit in limits_ms.items()) for i in range(len(success)))
    found = {
        "request_throughput": len(success) / duration,
        "goodput": good / duration,
        "output_throughput": sum(len(tokens[request]) for request in success) / duration,
    }
    for name, values in (("ttft", ttfts), ("tpot", tpots), ("itl", itls), ("e2el", e2els)):
        found[f"mean_{name}"] = np.mean(values) * 1000
        found[f"median_{name}"] = np.median(values) * 1000
        for p in (50, 90, 99):
            found[f"p{p}_{name}"] = np.percentile(values, p) * 1000
    return found


@pytest.mark.parametrize("where", ["recorded", "small"])
def test_latencies_throughput_and_goodput_are_those_of_vllm_bench_serve(where, small_trace, film_recordings, tmp_path):
    if where == "small":
        path = small_trace
    else:
        trace = Trace.read(film_recordings / "online-1.jsonl.zst")
        path = tmp_path / "online.jsonl"
        from tracereel.trace.format.storage import LineReader

        path.write_bytes(b"".join(line + b"\n" for _, line in LineReader(trace.path)))
    metrics = Metrics(Trace.read(path))
    # Not a request's own latency to the last bit: theirs are in floating seconds, ours in whole nanoseconds.
    above = 1 + 1e-9
    limits = {
        "ttft": float(np.median(metrics.ttft_ms)) * above,
        "tpot": float(np.percentile(metrics.tpot_ms, 70)) * above,
    }
    theirs = vllm_bench_serve(path, limits)
    goodput = Metrics(metrics.trace, limits).goodput
    assert metrics.goodput is None, "no limit is given"
    assert 0 < goodput < metrics.request_throughput
    assert goodput == pytest.approx(theirs["goodput"])
    assert metrics.request_throughput == pytest.approx(theirs["request_throughput"])
    assert metrics.output_throughput == pytest.approx(theirs["output_throughput"])
    ours = {
        "ttft": Distribution.of(metrics.ttft_ms),
        "tpot": Distribution.of(metrics.tpot_ms),
        "itl": metrics.itl,
        "e2el": Distribution.of(metrics.e2el_ms),
    }
    for name, found in ours.items():
        assert found.mean == pytest.approx(theirs[f"mean_{name}"], rel=1e-6)
        assert found.p50 == pytest.approx(theirs[f"median_{name}"], rel=1e-6)
        for p in ("p50", "p90", "p99"):
            assert getattr(found, p) == pytest.approx(theirs[f"{p}_{name}"], rel=1e-6)


def test_a_request_that_was_cut_short_has_no_latency(tmp_path):
    path = tmp_path / "cancelled.jsonl"
    fakes.record_small_run(path, count=6)
    lines = path.read_bytes().splitlines()
    metrics = Metrics(Trace.read(path))
    assert len(metrics.ttft_ms) == len(metrics.completed) == 5
    # The same run, cut off in the middle: whoever had not ended is left out.
    path.write_bytes(b"\n".join(lines[: len(lines) // 2]) + b"\n")
    cut = Metrics(Trace.read(path))
    assert len(cut.completed) < 5
    assert len(cut.e2el_ms) == len(cut.completed)


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 4)), max_size=20))
@settings(max_examples=200, deadline=None)
def test_a_counted_sample_has_numpys_percentiles(pairs):
    counted = sorted(dict(pairs).items())
    values = np.array([value for value, _ in counted], dtype=float)
    counts = np.array([count for _, count in counted], dtype=np.int64)
    written_out = np.repeat(values, counts)
    found = Distribution.of_counts(values, counts)
    assert found.n == len(written_out)
    if found.n:
        want = np.percentile(written_out, [50, 90, 99])
        assert (found.p50, found.p90, found.p99) == pytest.approx(tuple(want))
        assert found.mean == pytest.approx(written_out.mean())


def test_queue_and_kv_are_the_integral_over_the_states(small_trace):
    from tracereel.trace.state.timeline import Timeline

    trace = Trace.read(small_trace)
    metrics, timeline = Metrics(trace), Timeline(trace)
    begin, end = trace.span_ns
    edges = {begin, end, *(a.arrival_ns for a in trace.arrivals), *(at for at, _, _ in trace.endings.values())}
    edges |= set(trace.steps.start_ns.tolist()) | set(trace.steps.end_ns.tolist())
    times = sorted(t for t in edges if begin <= t <= end)
    area = sum(timeline.at(a).num_waiting * (b - a) for a, b in itertools.pairwise(times))
    assert metrics.waiting_mean == pytest.approx(area / (end - begin))
    starts = [*trace.steps.start_ns.tolist(), end]
    used = trace.steps.kv_used.tolist()
    held = sum(u * (b - a) for u, a, b in zip(used, starts[:-1], starts[1:], strict=True))
    assert metrics.kv_mean == pytest.approx(held / (end - starts[0]))
    assert max(used) == metrics.kv_peak


@pytest.mark.parametrize("text", ["", "ttft", "ttft=", "ttft=-1", "ttft=nan", "ttft=inf", "speed=3", "ttft=1,ttft=2"])
def test_limits_that_cannot_be_are_refused(text):
    with pytest.raises(SloError, match="ttft=200,tpot=50"):
        parse_slo(text)
    assert parse_slo("ttft=200, tpot=50") == {"ttft": 200.0, "tpot": 50.0}
    assert math.isclose(parse_slo("e2el=1e3")["e2el"], 1000)


def rows(entry: dict) -> int:
    return entry["phases"].count("D") + entry.get("padding", 0)


def saved(fall) -> dict[str, float]:
    return {part.name: part.saved_ms for part in fall.parts}


def test_the_parts_of_a_waterfall_add_up_and_bear_the_right_names(tmp_path):
    static = record(tmp_path / "s.jsonl", "static")
    continuous = record(tmp_path / "c.jsonl", "continuous")
    # Every step costs the same: all of it is refilling, and no more than the ceiling.
    fall = waterfall(static, continuous)
    assert sum(saved(fall).values()) == pytest.approx(fall.before_ms - fall.after_ms)
    assert fall.parts[-1].speedup == pytest.approx(fall.speedup)
    assert fall.parts[0].speedup == pytest.approx(len(static.steps) / len(continuous.steps))
    assert 1 < fall.parts[0].speedup <= fall.ceiling
    assert [part.saved_ms for part in fall.parts[1:]] == pytest.approx([0, 0, 0], abs=1e-9)
    # The same steps, each in half the time: all of it is faster steps.
    fast = record(tmp_path / "f.jsonl", "continuous", step_ns=lambda record: 500_000)
    fall = waterfall(continuous, fast)
    assert fall.ceiling is None, "it is that of static batches"
    assert fall.speedup == pytest.approx(2)
    assert fall.priced == 1
    assert saved(fall) == pytest.approx(
        {"refilling slots": 0, "larger batches": 0, "faster steps": fall.after_ms, "outside steps": 0}, abs=1e-9
    )


def test_larger_batches_are_told_from_faster_steps(tmp_path):
    # A step costs 1 ms and 0.1 ms a row: a step of twice the rows is dearer, a row in it cheaper.
    cost = lambda entry: 1_000_000 + 100_000 * rows(entry)  # noqa: E731
    few = record(tmp_path / "2.jsonl", "continuous", slots=2, step_ns=cost)
    many = record(tmp_path / "6.jsonl", "continuous", slots=6, step_ns=cost)
    fall = waterfall(few, many)
    assert sum(saved(fall).values()) == pytest.approx(fall.before_ms - fall.after_ms)
    assert saved(fall)["larger batches"] > 0
    assert saved(fall)["faster steps"] == pytest.approx(0, abs=1e-9)
    assert saved(fall)["refilling slots"] < 0, "six slots stand empty longer at the end than two"
    assert 0 < fall.priced < 1
    # And with it each step in nine tenths of the time: only what both have measured can show it.
    faster = record(tmp_path / "9.jsonl", "continuous", slots=6, step_ns=lambda entry: int(0.9 * cost(entry)))
    assert saved(waterfall(few, faster))["faster steps"] > 0


def test_time_between_steps_is_a_part_of_its_own(tmp_path):
    busy = record(tmp_path / "busy.jsonl", "continuous")
    now, lines = 0, []
    for line in (tmp_path / "busy.jsonl").read_bytes().splitlines():
        entry = json.loads(line)
        if entry["event"] == "step":
            entry |= {"start_ns": now, "scheduled_ns": now, "end_ns": now + 1_000_000}
            now += 3_000_000
        lines.append(json.dumps(entry))
    (tmp_path / "idle.jsonl").write_text("\n".join(lines) + "\n")
    fakes.seal(tmp_path / "idle.jsonl")
    fall = waterfall(Trace.read(tmp_path / "idle.jsonl"), busy)
    assert saved(fall)["outside steps"] == pytest.approx(fall.before_ms - fall.after_ms)


def groups(tmp_path, order: str, noise=lambda i: 1.0) -> list:
    """Runs of two cases in the given order of letters, their clocks a second apart."""
    traces, repeats = [], {"static": 0, "continuous": 0}
    for i, letter in enumerate(order):
        policy = {"s": "static", "c": "continuous"}[letter]
        path = tmp_path / f"{i}.jsonl"
        trace = record(path, policy, repeat=repeats[policy], step_ns=lambda entry, i=i: int(1e6 * noise(i)))
        clock = msgspec.structs.replace(trace.header.clock, wall_ns=i * 10**9)
        traces.append(dataclasses.replace(trace, header=msgspec.structs.replace(trace.header, clock=clock)))
        repeats[policy] += 1
    found = group_runs(traces)
    return sorted(found, key=lambda group: group.label, reverse=True)


def test_runs_are_grouped_and_paired_only_where_they_were_made_in_turns(tmp_path):
    static, continuous = groups(tmp_path, "scscsc")
    assert [static.label, continuous.label] == ["static", "continuous"]
    assert len(static.traces) == len(continuous.traces) == 3
    assert pairs_of(static.traces, continuous.traces) == [(0, 0), (1, 1), (2, 2)]
    static, continuous = groups(tmp_path, "ssscc")
    assert pairs_of(static.traces, continuous.traces) == []


def test_an_interval_is_that_of_the_pairs(tmp_path):
    # The machine gets slower and slower: the runs differ, the pairs do not.
    static, continuous = groups(tmp_path, "scscscsc", noise=lambda i: 1 + i // 2)
    found = estimate(static, continuous, "output_throughput")
    want = len(static.traces[0].steps) / len(continuous.traces[0].steps)
    assert (found.ratio, found.low, found.high) == pytest.approx((want, want, want))
    assert (found.n, found.paired, found.moved) == (4, True, True)
    static, continuous = groups(tmp_path, "ssccsscc", noise=lambda i: 1 + i % 2)
    found = estimate(static, continuous, "output_throughput")
    assert not found.paired
    assert found.low < found.ratio < found.high
    assert estimate(*groups(tmp_path, "sc"), "output_throughput").low is None
    assert estimate(static, continuous, "preemptions") is None, "a ratio to nothing is none"


def test_what_is_not_known_to_be_the_same_is_refused(tmp_path):
    trace = record(tmp_path / "a.jsonl", "static")
    workload = msgspec.structs.replace(trace.header.workload, digest=None)
    unknown = dataclasses.replace(trace, header=msgspec.structs.replace(trace.header, workload=workload))
    with pytest.raises(NotComparableError, match=r"neither .* says its workload\.digest"):
        require_comparable([unknown, dataclasses.replace(unknown, digest="f" * 64)])


def test_groups_of_one_name_are_told_apart_by_what_differs(tmp_path):
    traces = [record(tmp_path / f"{slots}.jsonl", "static", slots=slots) for slots in (2, 4)]
    assert [group.label for group in group_runs(traces)] == ["static (slots 2)", "static (slots 4)"]


def test_a_difference_says_where_schedules_part_and_who_gained(tmp_path):
    old = record(tmp_path / "old.jsonl", "continuous")
    same = record(tmp_path / "same.jsonl", "continuous", step_ns=lambda entry: 500_000)
    (found,) = differences([old], [same])
    assert found.parting is None
    assert found.metrics["output_throughput"].ratio == pytest.approx(2)
    assert len(found.requests) == 12
    assert all(change.new_ms == pytest.approx(change.old_ms / 2) for change in found.requests)
    fewer = record(tmp_path / "fewer.jsonl", "continuous", slots=3)
    (found,) = differences([old], [fewer])
    assert found.parting.step == 1, "the first step of both is full by its token budget"
    assert found.parting.new == ()
    assert found.parting.old == (
        f"request-3 in slot 3 prefills {old.arrivals[3].prompt_tokens} tokens from position 0",
    )
    changes = [change.new_ms - change.old_ms for change in found.requests]
    assert changes == sorted(changes)
    # In the plainest way: step by step, as sets.
    static = record(tmp_path / "static.jsonl", "static")
    parted = parting(old, static)
    rows_of = [
        [
            set(zip(*(getattr(t.steps, f"member_{c}")[t.steps.members(i)].tolist() for c in COLUMNS), strict=True))
            for i in range(len(t.steps))
        ]
        for t in (old, static)
    ]
    want = next(i for i, (a, b) in enumerate(zip(*rows_of, strict=False)) if a != b)
    assert parted.step == want
    assert len(parted.old) == len(rows_of[0][want] - rows_of[1][want])
    assert len(parted.new) == len(rows_of[1][want] - rows_of[0][want])


COLUMNS = ("request", "slot", "decode", "position", "computed")


def test_requests_are_matched_by_id_not_by_number(tmp_path):
    old = record(tmp_path / "old.jsonl", "continuous")
    renamed = tuple(msgspec.structs.replace(arrival, id=f"other-{arrival.id}") for arrival in old.arrivals)
    assert parting(old, old) is None
    assert parting(old, dataclasses.replace(old, arrivals=renamed)).step == 0
    assert _changes([old], [dataclasses.replace(old, arrivals=renamed)]) == ()


def _changes(old, new):
    (found,) = differences(old, new)
    return found.requests


def test_a_difference_needs_a_case_in_common(tmp_path):
    a, b, c = (record(tmp_path / f"{policy}.jsonl", policy) for policy in ("static", "continuous", "same-position"))
    with pytest.raises(NothingInCommonError, match="static there, continuous, same-position here"):
        list(differences([a], [b, c]))
    assert [found.new.label for found in differences([a], [b])] == ["continuous"]
    twin = record(tmp_path / "twin.jsonl", "static", slots=3)
    with pytest.raises(NothingInCommonError, match="different runs of one case"):
        list(differences([a, twin], [a]))


def test_a_difference_says_what_bound_the_steps_before_and_after(capsys):
    old, new = (
        PACKAGE_RECORDINGS / "film/cpu/static-1.jsonl.zst",
        PACKAGE_RECORDINGS / "film/cpu/continuous-1.jsonl.zst",
    )
    shares = [bound_shares(Trace.read(path)) for path in (old, new)]
    assert main(("diff", str(old), str(new))) == 0
    out = capsys.readouterr().out
    assert out.startswith("continuous (new) against static (old)")
    (policy,) = [line.split() for line in out.splitlines() if line.startswith("policy ")]
    before, after = (f"{100 * share['policy']:.1f}" for share in shares)
    assert policy == ["policy", before, after, f"-{before}"]
    assert main(("diff", str(old), str(new), "--json")) == 0
    assert json.loads(capsys.readouterr().out)["step_bounds"] == ({"old": shares[0], "new": shares[1]})


def test_one_thread_is_no_threads():
    trace = Trace.read(PACKAGE_RECORDINGS / "vllm-kinds/cpu/loading.jsonl.zst")
    assert provenance(trace)["device"].endswith("(cpu), 1 thread")
