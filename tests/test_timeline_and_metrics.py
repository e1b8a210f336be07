"""State at t against a plain replay of the records, and metrics against their definitions."""

import dataclasses
import json
from pathlib import Path

import fakes
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracereel.trace.analysis.comparable import NotComparableError
from tracereel.trace.analysis.metrics import Distribution, Metrics
from tracereel.trace.analysis.pairs import throughput_ratio
from tracereel.trace.analysis.queries import Run, UnknownQueryError, evaluate, measure
from tracereel.trace.format.events import RunInfo
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS
from tracereel.trace.state.columns import Trace
from tracereel.trace.state.timeline import Timeline


class Replay:
    """The state at t, computed record by record in the plainest way."""

    def __init__(self, path: Path, t_ns: int):
        self.waiting: list[int] = []
        self.slots: dict[int, int] = {}
        self.tables: dict[int, list[int]] = {}
        self.tokens: dict[int, int] = {}
        self.finished: list[int] = []
        self.computed: dict[int, int] = {}
        self.kv_used = 0
        self.output_tokens = 0
        self.running_step = None
        records = [json.loads(line) for line in path.read_bytes().splitlines()]
        for record in records:
            if record["event"] == "arrival" and record["arrival_ns"] <= t_ns:
                self.waiting.append(record["request"])
                self.tokens[record["request"]] = 0
            if record["event"] == "finish" and record["at_ns"] <= t_ns:
                self.leave(record["request"])
                self.finished.append(record["request"])
            if record["event"] == "step":
                self.step(record, t_ns)

    def leave(self, request: int) -> None:
        self.slots = {slot: who for slot, who in self.slots.items() if who != request}
        self.waiting = [who for who in self.waiting if who != request]
        self.tables[request] = []
        self.computed[request] = 0

    def step(self, record: dict, t_ns: int) -> None:
        if record["start_ns"] > t_ns:
            return
        for request in record.get("preempted", []):
            self.leave(request)
            self.waiting = sorted([request, *self.waiting], key=lambda who: (self.tokens[who] == 0, who))
        for admission in record.get("admitted", []):
            self.waiting.remove(admission["request"])
            self.slots[admission["slot"]] = admission["request"]
            self.computed[admission["request"]] = 0
        for grant in record.get("blocks", []):
            self.tables.setdefault(grant["request"], []).extend(grant["blocks"])
        self.kv_used = record["kv_used"]
        if record["end_ns"] > t_ns:
            self.running_step = record["index"]
            return
        self.running_step = None
        columns = zip(record["requests"], record["computed"], record["sampled"], strict=True)
        for request, computed, sampled in columns:
            self.tokens[request] += sampled
            self.output_tokens += sampled
            self.computed[request] += computed
        for ending in record.get("finished", []):
            self.leave(ending["request"])
            self.finished.append(ending["request"])


@pytest.fixture(scope="module")
def timeline(small_trace):
    return Timeline(Trace.read(small_trace))


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_state_at_t_is_the_replay_of_the_records(timeline, small_trace, data):
    steps = timeline.trace.steps
    edges = sorted({*steps.start_ns.tolist(), *steps.end_ns.tolist(), 0})
    t_ns = data.draw(
        st.one_of(
            st.integers(0, timeline.end_ns + 1000), st.sampled_from(edges), st.sampled_from(edges).map(lambda t: t - 1)
        )
    )
    want, state = Replay(small_trace, t_ns), timeline.at(t_ns)
    assert state.step == want.running_step
    assert state.output_tokens == want.output_tokens
    assert {occupant.slot: occupant.request for occupant in state.occupancy if occupant} == want.slots
    assert list(state.waiting) == want.waiting
    assert state.num_waiting == len(want.waiting)
    assert state.num_running == len(want.slots)
    assert sorted(state.finished) == sorted(want.finished)
    assert state.num_finished == len(want.finished)
    assert state.kv_used == want.kv_used
    for request, tokens in want.tokens.items():
        assert state.output_tokens_of(request) == tokens
        assert list(state.block_table(request)) == want.tables.get(request, [])
    for occupant in state.occupancy:
        if occupant:
            assert occupant.computed_tokens == want.computed[occupant.request]
            assert occupant.output_tokens == want.tokens[occupant.request]


def test_going_back_in_time_gives_the_same_state(timeline):
    middle = timeline.end_ns // 2
    before = timeline.at(middle).occupancy
    timeline.at(timeline.end_ns).occupancy  # noqa: B018
    assert timeline.at(middle).occupancy == before


def test_metrics_are_their_definitions(small_trace):
    trace = Trace.read(small_trace)
    metrics = Metrics(trace)
    records = [json.loads(line) for line in small_trace.read_bytes().splitlines()]
    arrivals = {r["request"]: r["arrival_ns"] for r in records if r["event"] == "arrival"}
    times: dict[int, list[int]] = {}
    for record in records:
        if record["event"] == "step":
            for request, count in zip(record["requests"], record["sampled"], strict=True):
                times.setdefault(request, []).extend([record["end_ns"]] * count)
    answered = sorted(times)
    assert metrics.ttft_ms == pytest.approx([(times[r][0] - arrivals[r]) / 1e6 for r in answered])
    assert metrics.e2el_ms == pytest.approx([(times[r][-1] - arrivals[r]) / 1e6 for r in answered])
    assert metrics.tpot_ms == pytest.approx(
        [(times[r][-1] - times[r][0]) / 1e6 / (len(times[r]) - 1) for r in answered if len(times[r]) > 1]
    )
    gaps = [(b - a) / 1e6 for r in answered for a, b in zip(times[r], times[r][1:], strict=False)]
    assert sorted(metrics.itl_ms) == pytest.approx(sorted(gaps))
    count = sum(map(len, times.values()))
    duration = (max(t[-1] for t in times.values()) - min(arrivals.values())) / 1e9
    assert metrics.output_throughput == pytest.approx(count / duration)
    steps = [r for r in records if r["event"] == "step"]
    assert metrics.idle_slot_steps == sum(4 - len(r["requests"]) for r in steps)
    weights = [r["end_ns"] - r["start_ns"] for r in steps]
    busy = sum(len(r["requests"]) * w for r, w in zip(steps, weights, strict=True))
    assert metrics.slot_occupancy == pytest.approx(busy / (4 * sum(weights)))
    assert metrics.preemptions == sum(len(r.get("preempted", [])) for r in steps)


def test_percentiles_are_numpys():
    values = np.array([1.0, 2.0, 10.0, 50.0])
    found = Distribution.of(values)
    assert (found.n, found.p50, found.p90) == (4, 6.0, pytest.approx(38.0))
    assert Distribution.of(np.array([])).p50 is None


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    runs: dict[str, list[Run]] = {}
    for repeat in range(3):
        for case in ("continuous", "static"):
            path = folder / f"{case}-{repeat}.jsonl"
            run = RunInfo(suite="test", case=case, repeat=repeat, repeats=3)
            fakes.record_small_run(path, case, run)
            runs.setdefault(case, []).append(Run.read(path))
    return runs


def test_ratios_pair_runs_of_the_same_repeat(pairs):
    top, bottom = pairs["continuous"], pairs["static"]
    ratio = throughput_ratio([run.trace for run in reversed(top)], [run.trace for run in bottom])
    each = [a.metrics.output_throughput / b.metrics.output_throughput for a, b in zip(top, bottom, strict=True)]
    assert ratio.pairs == pytest.approx(each)
    assert (ratio.median, min(ratio.pairs), max(ratio.pairs), ratio.n) == (
        pytest.approx(np.median(each)),
        pytest.approx(min(each)),
        pytest.approx(max(each)),
        3,
    )


def test_runs_that_do_not_belong_together_are_refused_by_the_field(pairs):
    other = pairs["static"][0].trace
    device = msgspec.structs.replace(other.header.device, name="another machine")
    foreign = msgspec.structs.replace(other.header, device=device)
    changed = dataclasses.replace(other, header=foreign)
    with pytest.raises(NotComparableError, match=r"device\.name: 'a test' and 'another machine'"):
        throughput_ratio([pairs["continuous"][0].trace], [changed])


def test_a_measured_value_can_be_obtained_again(pairs):
    run = pairs["continuous"][0]
    t_ns = run.timeline.end_ns // 2
    for query in ("waiting", "running", "finished", "output_tokens", "idle_slot_steps", "batch"):
        value = run.measure(query, t_ns=t_ns)
        assert evaluate(value.query, [run], dict(value.args))[0] == value.value
        assert value.traces == (run.trace.digest,)
        assert 1 <= value.lines[0] <= value.lines[1]
    ratio = measure("throughput_ratio_median", [*pairs["continuous"], *pairs["static"]], numerator=3)
    assert len(ratio.traces) == 6
    with pytest.raises(UnknownQueryError):
        run.measure("made_up")


def test_a_step_runs_from_its_start_until_before_its_end(small_trace):
    trace = Trace.read(small_trace)
    timeline, steps = Timeline(trace), trace.steps
    for step in range(len(steps)):
        start, end = int(steps.start_ns[step]), int(steps.end_ns[step])
        assert timeline.running_steps(start) == timeline.running_steps(end - 1) == (step,)
        assert step not in timeline.running_steps(end)


def test_blocks_that_a_trace_does_not_count_are_not_known():
    path = PACKAGE_RECORDINGS / "llama-cpp" / "cpu" / "film-12.jsonl.zst"
    timeline = Timeline(Trace.read(path))
    assert timeline.kv_used_at((timeline.begin_ns + timeline.end_ns) // 2) is None
