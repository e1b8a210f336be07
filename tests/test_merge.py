"""Several replicas, one trace: times, slots, blocks and requests of each are where they were, on a common clock."""

from pathlib import Path

import fakes
import msgspec
import numpy as np
import pytest
from tracereel.cli.main import main
from tracereel.engine.config import EngineConfig
from tracereel.trace.analysis.metrics import Metrics
from tracereel.trace.check.invariants import check
from tracereel.trace.export.merge import MergeError, merge
from tracereel.trace.format.events import Header, ParallelInfo
from tracereel.trace.format.recorder import Recorder
from tracereel.trace.format.storage import TraceError
from tracereel.trace.state.columns import ABSENT, Trace
from tracereel.trace.state.replicas import over_replicas
from tracereel.trace.state.timeline import Timeline

REPLICAS = 2
CONFIG = EngineConfig(max_num_seqs=4, max_num_batched_tokens=24, num_blocks=20, block_size=4, max_model_len=64)


def replica_header(number: int) -> Header:
    return msgspec.structs.replace(
        fakes.header(CONFIG), parallel=ParallelInfo(data=REPLICAS, replica=number, devices=[f"device {number}"])
    )


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Two engines that took turns with the steps, and shared the requests."""
    paths = [tmp_path / f"replica-{number}.jsonl" for number in range(REPLICAS)]
    recorders = [Recorder(path, replica_header(number)) for number, path in enumerate(paths)]
    engines = [fakes.make_engine(CONFIG, recorder) for recorder in recorders]
    for i, request in enumerate(fakes.make_requests(14)):
        engines[i % REPLICAS].add(request)
    engines[1].cancel(6)
    while any(engine.has_work for engine in engines):
        for engine in engines:
            engine.step()
    for recorder in recorders:
        recorder.close()
    return paths


def answers(trace: Trace) -> dict[str, list[int]]:
    return {arrival.id: trace.steps.token_id[trace.tokens_of(i)].tolist() for i, arrival in enumerate(trace.arrivals)}


def edit_header(path: Path, **fields: object) -> Path:
    """The same records under another header, and without the end record, whose digest is another now."""
    first, *rest = path.read_bytes().splitlines()
    header = msgspec.json.decode(first) | fields
    path.write_bytes(b"\n".join([msgspec.json.encode(header), *rest[:-1], b""]))
    return path


def test_a_merged_trace_is_valid_and_holds_every_replica(parts, tmp_path):
    out = tmp_path / "run.jsonl.zst"
    merge(parts[::-1], out)
    report = check(out)
    assert report.ok, report.violations[:3]
    whole, sources = Trace.read(out), [Trace.read(path) for path in parts]
    assert [replica.replica for replica in whole.header.replicas] == [0, 1]
    assert [replica.digest for replica in whole.header.replicas] == [source.digest for source in sources]
    assert whole.header.slots == 8
    assert whole.header.parallel is not None
    assert whole.header.parallel.devices == ["device 0", "device 1"]
    assert len(whole.steps) == sum(len(source.steps) for source in sources)
    assert answers(whole) == answers(sources[0]) | answers(sources[1])
    assert Metrics(whole).idle_slot_steps == sum(Metrics(source).idle_slot_steps for source in sources)
    assert Metrics(whole).output_tokens == sum(Metrics(source).output_tokens for source in sources)


def test_the_state_of_a_merged_trace_is_that_of_its_replicas_side_by_side(parts, tmp_path):
    merge(parts, tmp_path / "run.jsonl")
    whole, sources = Trace.read(tmp_path / "run.jsonl"), [Trace.read(path) for path in parts]
    shifts = [
        source.header.clock.monotonic_ns - min(other.header.clock.monotonic_ns for other in sources)
        for source in sources
    ]
    timeline, timelines = Timeline(whole), [Timeline(source) for source in sources]
    for t_ns in range(0, timeline.end_ns, max(timeline.end_ns // 97, 1)):
        state = timeline.at(t_ns)
        own = [part.at(t_ns - shift) for part, shift in zip(timelines, shifts, strict=True)]
        for name in ("output_tokens", "num_waiting", "num_running", "num_finished", "started", "ended"):
            assert getattr(state, name) == sum(getattr(part, name) for part in own), name
        assert len(state.steps) == sum(len(part.steps) for part in own)
        assert (state.kv_used or 0) == sum(part.kv_used or 0 for part in own)
        occupancy = [
            (
                occupant
                and (
                    sources[i].arrivals[occupant.request].id,
                    occupant.computed_tokens,
                    occupant.output_tokens,
                    occupant.computes,
                )
            )
            for i, part in enumerate(own)
            for occupant in part.occupancy
        ]
        assert occupancy == [
            (
                occupant
                and (
                    whole.arrivals[occupant.request].id,
                    occupant.computed_tokens,
                    occupant.output_tokens,
                    occupant.computes,
                )
            )
            for occupant in state.occupancy
        ]
        assert {whole.arrivals[request].id for request in state.waiting} == {
            sources[i].arrivals[request].id for i, part in enumerate(own) for request in part.waiting
        }


def test_a_replica_that_was_cut_off_leaves_the_whole_cut(parts, tmp_path):
    lines = parts[1].read_bytes().splitlines(keepends=True)
    parts[1].write_bytes(b"".join(lines[: len(lines) // 2]))
    merge(parts, tmp_path / "run.jsonl")
    report = check(tmp_path / "run.jsonl")
    assert not report.violations
    assert report.cut


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", {"name": "fake", "weights": "random", "dtype": "none", "digest": "1" * 64}),
        ("workload", {"name": "test", "digest": "1" * 64}),
        ("config", {"max_model_len": 3}),
        ("policy", "static"),
        ("parallel", {"data": REPLICAS, "replica": 0}),
        ("parallel", None),
        ("clock", {"monotonic_ns": 5, "wall_ns": 5}),
    ],
)
def test_what_does_not_belong_together_is_refused_by_name(parts, tmp_path, field, value, capsys):
    edit_header(parts[1], **{field: value})
    with pytest.raises(MergeError, match=field):
        merge(parts, tmp_path / "run.jsonl")
    assert main(["merge", *map(str, parts), "-o", str(tmp_path / "run.jsonl")]) == 2
    assert field in capsys.readouterr().err
    assert not list(tmp_path.glob("run*"))


def test_the_same_requests_twice_are_no_replicas(parts, tmp_path):
    parts[1].write_bytes(parts[0].read_bytes())
    edit_header(parts[1], parallel={"data": REPLICAS, "replica": 1})
    with pytest.raises(MergeError, match=r"arrival\.id: 'request-0' is in both"):
        merge(parts, tmp_path / "run.jsonl")
    assert not list(tmp_path.glob("run*"))


def test_an_invalid_trace_is_not_merged(parts, tmp_path):
    parts[0].write_bytes(parts[0].read_bytes().replace(b'"waiting":', b'"waiting":1', 1))
    with pytest.raises(TraceError, match="not valid"):
        merge(parts, tmp_path / "run.jsonl")


def test_replicas_without_a_number_are_counted_as_they_are_named(parts, tmp_path, capsys):
    for path in parts:
        edit_header(path, parallel=None)
    assert main(["merge", *map(str, parts), "-o", str(tmp_path / "run.jsonl")]) == 0
    assert "2 replicas, 14 requests" in capsys.readouterr().out


def test_one_run_twice_is_no_merge(small_trace, tmp_path, capsys):
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(small_trace.read_bytes())
    assert main(["merge", str(small_trace), str(copy), "--out", str(tmp_path / "out.jsonl")]) == 2
    assert "are the same run; name each replica's trace once" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


def test_what_a_replica_lost_is_told_of_the_merged_trace(parts, tmp_path, capsys):
    lines = parts[0].read_bytes().splitlines(keepends=True)
    step = next(i for i, line in enumerate(lines) if b'"index":3,' in line)
    lost = msgspec.json.decode(lines[step])
    end = msgspec.json.decode(lines[-1])
    end |= {"steps": end["steps"] - 1, "output_tokens": end["output_tokens"] - sum(lost["sampled"]), "dropped": 1}
    parts[0].write_bytes(b"".join([*lines[:step], *lines[step + 1 : -1], msgspec.json.encode(end), b"\n"]))
    fakes.seal(parts[0])
    out = tmp_path / "out.jsonl"
    assert main(["merge", *map(str, parts), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "1 of" in said
    assert "a replica's recording lacks them, and so does this" in said
    assert Trace.read(out, allow_broken=True).missing_steps == 1


def test_what_is_held_and_waits_is_added_up_over_the_replicas(parts, tmp_path):
    out = tmp_path / "run.jsonl.zst"
    merge(parts, out)
    trace = Trace.read(out)
    steps, newest = trace.steps, {}
    sums = {"waiting": [], "kv_used": []}
    for step in range(len(steps)):
        newest[int(steps.replica[step])] = step
        for name, found in sums.items():
            found.append(sum(int(getattr(steps, name)[i]) for i in newest.values()))
    until_next = np.diff(steps.start_ns, append=steps.end_ns[-1:])
    metrics = Metrics(trace)
    assert metrics.waiting_peak == max(sums["waiting"]) > steps.waiting.max()
    assert metrics.kv_peak == max(sums["kv_used"]) > steps.kv_used.max()
    assert metrics.kv_mean == pytest.approx((sums["kv_used"] * until_next).sum() / until_next.sum())
    unknown = np.where(np.arange(len(steps)) == 2, ABSENT, steps.kv_used)
    assert over_replicas(trace, unknown).tolist().count(ABSENT) == 2, "until that replica says it again"
