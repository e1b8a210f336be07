"""A step's time is the device's, where it measured: an H100's recordings, and times made up so that they differ."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracereel.cli.main import main
from tracereel.trace.analysis.metrics import Distribution, Metrics
from tracereel.trace.analysis.moments import worst_pause
from tracereel.trace.analysis.queries import Run, decode_step_ms
from tracereel.trace.analysis.waterfall import waterfall
from tracereel.trace.state.columns import ABSENT, Trace
from tracereel.trace.state.device_spans import step_spans
from tracereel.trace.state.timeline import Timeline

H100 = Path(__file__).resolve().parent / "data" / "h100" / "film"
NAMES = ("continuous-2", "static-2", "online-1")


@pytest.fixture(scope="module")
def traces() -> dict[str, Trace]:
    return {name: Trace.read(H100 / f"{name}.jsonl.zst") for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_the_spans_are_the_devices_and_contradict_nothing_that_the_host_saw(traces, name):
    trace = traces[name]
    steps, residencies = trace.steps, trace.residencies
    assert trace.by_device
    assert (steps.end_ns - steps.start_ns == steps.device_ns).all()
    assert (steps.start_ns[1:] - steps.end_ns[:-1] == steps.device_gap_ns[1:]).all()
    late = steps.host_end_ns - steps.end_ns
    assert late.min() == 0, "the host was there at once for one step"
    assert late.max() > 10e6
    begun = np.where(steps.latency_ns == ABSENT, steps.host_start_ns, steps.host_end_ns - steps.latency_ns)
    assert (steps.start_ns > begun).all(), "no step ran before it was scheduled"
    arrived = np.array([arrival.arrival_ns for arrival in trace.arrivals])
    assert (residencies.from_ns >= arrived[residencies.request]).all()
    assert (residencies.from_ns == steps.start_ns[residencies.first_step]).all()
    assert (residencies.to_ns == steps.end_ns[residencies.last_step]).all()
    for request, (at_ns, _, _) in trace.endings.items():
        assert at_ns == trace.token_times(request)[-1]


def test_what_steps_and_tokens_took_comes_out_right(traces):
    trace = traces["continuous-2"]
    metrics, steps = Metrics(trace), trace.steps
    run = Run(trace)
    # Summed up in the plainest way: gaps of a request are sums of what the device did between two of its steps.
    ends = np.cumsum(steps.device_ns + np.concatenate([[0], steps.device_gap_ns[1:]]))
    gaps = [
        gap
        for request in range(len(trace.arrivals))
        for gap in np.diff(ends[steps.token_step[trace.tokens_of(request)]]).tolist()
    ]
    assert metrics.itl.p50 == pytest.approx(np.median(gaps) / 1e6)
    assert metrics.itl.p50 == pytest.approx(1.939, abs=0.01)
    of_64 = decode_step_ms([run], 64)
    assert np.median(of_64) == pytest.approx(1.13, abs=0.03)
    host = (steps.host_end_ns - steps.host_start_ns) / 1e6
    assert np.median(host[run.decode_rows == 64]) == pytest.approx(10.06, abs=0.5), "what the host's times said"
    fall = waterfall(traces["static-2"], trace)
    (faster,) = (part.saved_ms for part in fall.parts if part.name == "faster steps")
    assert -faster == pytest.approx(0.0005, abs=0.0005)
    late = Distribution.of(metrics.host_late_ms)
    assert late.p99 > 10 > late.p50


def test_the_worst_wait_is_charged_to_the_step_that_took_the_time(traces):
    trace = traces["online-1"]
    # By the host's times a decode that took 1.2 ms was 68 ms wide, and the prefill of 67 ms after it 1.8 ms.
    assert (trace.steps.host_end_ns - trace.steps.host_start_ns)[28] / 1e6 == pytest.approx(68, abs=1)
    assert Metrics(trace).step_ms[28:30] == pytest.approx([1.2, 67], abs=0.7)
    pause = worst_pause(trace)
    assert pause is not None
    assert pause.cause == "prefill"
    assert Metrics(trace).step_ms[pause.step] > 50


def test_states_follow_the_device(traces):
    trace = traces["online-1"]
    timeline = Timeline(trace)
    for step in (0, 28, 29, 200):
        middle = int(trace.steps.start_ns[step] + trace.steps.end_ns[step]) // 2
        assert timeline.at(middle).steps == (step,)
        assert timeline.steps_ended(int(trace.steps.end_ns[step])) == step + 1


@pytest.mark.slow
def test_every_output_says_that_the_host_was_late(traces, tmp_path, capsys):
    files = [str(H100 / f"{name}.jsonl.zst") for name in ("static-2", "continuous-2")]
    assert main(["inspect", files[1]]) == 0
    assert "the host came up to 44.2 ms later" in capsys.readouterr().out
    assert main(["compare", *files]) == 0
    out = capsys.readouterr().out
    assert f"{files[1]}: Steps and tokens have the device's times: the host came up to 44.2 ms later" in out
    assert main(["plot", *files, "--figure", "tokens", "--out", str(tmp_path)]) == 0
    assert "44.2 ms later" in " ".join((tmp_path / "tokens.svg").read_text().split())
    assert main(["export", files[1], "--out", str(tmp_path / "run.json")]) == 0
    assert "44.2 ms later" in json.dumps(json.loads((tmp_path / "run.json").read_text())["otherData"])


def columns(took, gaps, late, *, known=None, latency=None):
    """The columns of steps that a device made and a host saw so much later."""
    took, gaps, late = (np.array(values, dtype=np.int64) for values in (took, gaps, late))
    end = np.cumsum(took + gaps)
    host_end = end + late
    host_start = np.maximum(end - took, np.concatenate([[0], host_end[:-1]]))
    known = np.ones(len(took), bool) if known is None else np.array(known)
    return end, {
        "index": np.arange(len(took)),
        "replica": np.zeros(len(took), np.int64),
        "host_start_ns": np.minimum(host_start, host_end),
        "host_end_ns": host_end,
        "device_ns": np.where(known, took, ABSENT),
        "device_gap_ns": np.where(known, gaps, ABSENT),
        "latency_ns": np.full(len(took), 10**12) if latency is None else latency,
    }


durations = st.integers(1, 10**7)


@pytest.mark.slow
@given(st.lists(st.tuples(durations, st.integers(0, 10**7), st.integers(0, 10**8)), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_a_device_that_was_seen_in_time_once_is_found_again(made):
    took, gaps, late = (list(values) for values in zip(*made, strict=True))
    late[len(late) // 2] = 0
    end, given_columns = columns(took, gaps, late)
    start_ns, end_ns = step_spans(given_columns)
    assert (end_ns == end).all()
    assert (start_ns == end - np.array(took)).all()


@given(
    st.lists(st.tuples(durations, st.integers(0, 10**7), st.integers(0, 10**8), st.booleans()), min_size=1, max_size=40)
)
@settings(max_examples=100, deadline=None)
def test_steps_never_overlap_nor_end_after_the_host_saw_them(made):
    took, gaps, late, known = (list(values) for values in zip(*made, strict=True))
    _, given_columns = columns(took, gaps, late, known=known)
    host_end = np.maximum.accumulate(given_columns["host_end_ns"])
    given_columns["host_end_ns"] = host_end
    given_columns["host_start_ns"] = np.minimum(np.concatenate([[0], host_end[:-1]]), host_end)
    start_ns, end_ns = step_spans(given_columns)
    if not any(known):
        assert start_ns is given_columns["host_start_ns"]
        return
    assert (end_ns <= host_end).all()
    assert (start_ns <= end_ns).all()
    assert (start_ns[1:] >= end_ns[:-1]).all()


def test_a_device_that_contradicts_the_host_is_not_believed():
    # Steps of a second each where the host saw all of them within a millisecond.
    _, given_columns = columns([10**9] * 3, [0] * 3, [0] * 3)
    given_columns["host_end_ns"] = np.array([10, 20, 30]) * 100_000
    given_columns["host_start_ns"] = np.array([0, 10, 20]) * 100_000
    given_columns["latency_ns"] = np.full(3, ABSENT)
    start_ns, end_ns = step_spans(given_columns)
    assert start_ns is given_columns["host_start_ns"]
    assert end_ns is given_columns["host_end_ns"]


def test_a_trace_without_device_times_has_the_hosts(film_recordings):
    trace = Trace.read(film_recordings / "continuous-1.jsonl.zst")
    assert not trace.by_device
    assert trace.steps.start_ns is trace.steps.host_start_ns
    assert trace.caveats == ()
    assert not len(Metrics(trace).host_late_ms)
    assert dataclasses.replace(trace, cut="cut off after line 3: why").caveats == (
        "This recording is not whole: cut off after line 3: why.",
    )
