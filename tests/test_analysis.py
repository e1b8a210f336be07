"""What a trace adds up to, against formulas written down elsewhere and against the records themselves."""

import itertools
import json
import math
from pathlib import Path

import fakes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracereel.trace.metrics import Distribution, Metrics, SloError, parse_slo
from tracereel.trace.trace import Trace


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
    for record in records:
        if record["event"] == "step":
            for request, sampled in zip(record["requests"], record["sampled"], strict=True):
                tokens[request] += [record["end_ns"] / 1e9] * sampled
            success |= {ending["request"] for ending in record.get("finished", [])}
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
        from tracereel.trace.storage import LineReader

        path.write_bytes(b"".join(line + b"\n" for _, line in LineReader(trace.path)))
    metrics = Metrics(Trace.read(path))
    limits = {"ttft": float(np.median(metrics.ttft_ms)), "tpot": float(np.percentile(metrics.tpot_ms, 70))}
    theirs = vllm_bench_serve(path, limits)
    assert 0 < metrics.goodput(limits) < metrics.request_throughput
    assert metrics.goodput(limits) == pytest.approx(theirs["goodput"])
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
    from tracereel.trace.timeline import Timeline

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
