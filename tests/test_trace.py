"""The trace: what is written is read, what is cut is known for it, and what cannot be is found with its line."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from bisect import bisect_right
from pathlib import Path

import fakes
import jsonschema
import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tracereel.engine.config import EngineConfig
from tracereel.trace.check.invariants import check
from tracereel.trace.format import events
from tracereel.trace.format.decoding import MalformedRecordError, decode_record
from tracereel.trace.format.recorder import Recorder, RecordingError
from tracereel.trace.format.schema import PUBLISHED, json_schema, published_text
from tracereel.trace.format.storage import MAX_LINE_BYTES, LineReader, LineWriter, TraceError
from tracereel.trace.state.columns import ABSENT, Trace


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def write_lines(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_the_small_run_holds_what_it_is_meant_to(small_trace):
    trace = Trace.read(small_trace)
    assert check(small_trace).ok
    assert trace.residencies.preempted.any()
    assert {reason for _, reason, _ in trace.endings.values()} >= {"abort", "length"}
    assert any(
        "P" in record["phases"] and "D" in record["phases"] for record in lines_of(small_trace) if "phases" in record
    )


OPTIONAL_TIMES_AND_COUNTS = ("scheduled_ns", "device_ns", "device_gap_ns", "latency_ns", "kv_used")


def test_what_only_some_steps_say_is_a_column_with_gaps(tmp_path, small_trace):
    records = lines_of(small_trace)
    first, second = [record for record in records if record["event"] == "step"][:2]
    for number, name in enumerate(OPTIONAL_TIMES_AND_COUNTS):
        first.pop(name, None)
        second[name] = number + 1
    steps = Trace.read(write_lines(tmp_path / "run.jsonl", records), allow_broken=True).steps
    columns = [getattr(steps, name)[:2].tolist() for name in OPTIONAL_TIMES_AND_COUNTS]
    assert columns == [[ABSENT, 1], [ABSENT, 2], [ABSENT, 3], [ABSENT, 4], [ABSENT, 5]]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst"])
def test_plain_and_compressed_files_hold_the_same(tmp_path, small_trace, name):
    path = tmp_path / name
    with LineWriter(path) as writer:
        writer.write(small_trace.read_bytes())
    assert Trace.read(path).digest == Trace.read(small_trace).digest
    assert check(path).ok
    assert not list(tmp_path.glob("*.partial"))


def flushed_line_by_line(source: Path, path: Path) -> tuple[bytes, list[int]]:
    """Written by the recorder's own writer: the file's bytes, and how long it was once each record had been flushed."""
    ends = []
    with LineWriter(path) as writer:
        for line in source.read_bytes().splitlines(keepends=True):
            writer.write(line)
            writer.flush()
            ends.append(writer.partial.stat().st_size)
    return path.read_bytes(), ends


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst"])
def test_cut_at_any_byte_it_is_read_up_to_its_last_whole_record(tmp_path, name):
    source, path = tmp_path / "source.jsonl", tmp_path / "cut.jsonl"
    with Recorder(source, fakes.header(EngineConfig())) as recorder:
        run_small(recorder, count=1)
    lines = source.read_bytes().splitlines()
    kinds = [json.loads(line)["event"] for line in lines]
    content, ends = flushed_line_by_line(source, tmp_path / name)
    for size in range(len(content)):
        path.write_bytes(content[:size])
        whole = bisect_right(ends, size)
        kept = [line for _, line in LineReader(path)]
        assert whole <= len(kept) <= whole + 1  # a block of zstd may be out before its last bytes, which say nothing
        assert kept == lines[: len(kept)]
        if not kept:
            with pytest.raises(TraceError):
                Trace.read(path)
            continue
        report, trace = check(path), Trace.read(path)
        assert not report.violations
        assert len(trace.steps) == report.steps == kinds[: len(kept)].count("step")
        assert len(trace.arrivals) == report.requests == kinds[: len(kept)].count("arrival")
        if len(kept) < len(lines):
            assert report.cut
            assert report.cut == trace.cut
            assert f"cut off after line {len(kept)}" in trace.cut


@pytest.mark.slow
def test_a_killed_recording_is_readable_and_leaves_the_old_one_alone(tmp_path):
    path = tmp_path / "run.jsonl.zst"
    fakes.record_small_run(path)
    before = path.read_bytes()
    script = textwrap.dedent(
        f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).with_name("support"))!r})
        import fakes
        from tracereel.engine.config import EngineConfig
        from tracereel.engine.request import Request, SamplingParams
        from tracereel.trace.format.recorder import Recorder
        config = EngineConfig(max_num_seqs=2, max_model_len=4000, num_blocks=600)
        recorder = Recorder({str(path)!r}, fakes.header(config))
        engine = fakes.make_engine(config, recorder)
        engine.add(Request("r", (1, 2), SamplingParams(max_tokens=3000, min_tokens=3000)))
        while engine.has_work:
            engine.step()
            time.sleep(0.002)
            if engine.metrics().steps == 300:
                print("now", flush=True)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    assert path.read_bytes() == before
    (left,) = path.parent.glob("run.*.jsonl.zst.partial")
    partial = Trace.read(left)
    assert partial.cut
    assert 50 < len(partial.steps) < 3000
    assert not check(left).violations


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingError, match="cannot be created"):
        Recorder(tmp_path / "file" / "run.jsonl", fakes.header(EngineConfig()))


def run_small(recorder: Recorder, count: int = 6) -> None:
    engine = fakes.make_engine(EngineConfig(), recorder)
    for request in fakes.make_requests(count):
        engine.add(request)
    while engine.has_work:
        engine.step()


def slow_writer(monkeypatch, seconds: float) -> None:
    write = LineWriter.write

    def slowly(self, lines):
        time.sleep(seconds)
        write(self, lines)

    monkeypatch.setattr(LineWriter, "write", slowly)


@pytest.mark.parametrize("later", [False, True])
def test_a_full_buffer_drops_steps_and_says_how_many(tmp_path, monkeypatch, later):
    slow_writer(monkeypatch, 0.05)
    path = tmp_path / "run.jsonl"
    recorder = Recorder(path, fakes.header(EngineConfig()), capacity=4, when_full="drop")
    if later:
        record = recorder.record
        monkeypatch.setattr(recorder, "record", lambda event: recorder.record_later(lambda: [event]))
        assert record != recorder.record
    run_small(recorder)
    recorder.close()
    trace = Trace.read(path, allow_broken=True)
    assert trace.end is not None
    assert len(trace.arrivals) == 6
    assert trace.end.dropped > 0
    assert trace.end.steps == len(trace.steps)
    assert trace.missing_steps == trace.end.dropped
    report = check(path)
    assert {violation.rule for violation in report.violations} == {"loss"}
    assert "missing" in report.violations[0].message


def test_a_full_buffer_waits_where_nothing_may_be_lost(tmp_path, monkeypatch):
    slow_writer(monkeypatch, 0.02)
    path = tmp_path / "run.jsonl"
    with Recorder(path, fakes.header(EngineConfig()), capacity=4) as recorder:
        run_small(recorder)
    assert check(path).ok


def test_a_folder_that_vanishes_is_told_while_the_engine_runs(tmp_path):
    path = tmp_path / "folder" / "run.jsonl"
    recorder = Recorder(path, fakes.header(EngineConfig()))
    shutil.rmtree(path.parent)

    def run_on() -> None:
        for _ in range(400):
            run_small(recorder, count=1)
            time.sleep(0.01)

    with pytest.raises(RecordingError, match="not there any more"):
        run_on()
    with pytest.raises(RecordingError, match="not there any more"):
        recorder.close()


def test_an_engine_may_go_on_unrecorded(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    recorder = Recorder(tmp_path / "file" / "run.jsonl", fakes.header(EngineConfig()), on_fault="continue")
    run_small(recorder)
    with pytest.raises(RecordingError, match="cannot be created"):
        recorder.close()
    assert len(caplog.records) == 1
    assert "the engine goes on unrecorded" in caplog.text


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_device_that_is_full_stops_the_engine_or_not(tmp_path, caplog):
    for on_fault in ("stop", "continue"):
        path = tmp_path / f"{on_fault}.jsonl"
        path.write_text("an earlier recording")
        recorder = Recorder(path, fakes.header(EngineConfig()), on_fault=on_fault)
        with open("/dev/full", "wb") as full:
            os.dup2(full.fileno(), recorder._writer._file.fileno())
        raised = False
        for _ in range(100):
            try:
                run_small(recorder, count=1)
            except RecordingError as error:
                raised = "No space left" in str(error)
                break
            time.sleep(0.01)
        assert raised == (on_fault == "stop")
        with pytest.raises(RecordingError, match="No space left"):
            recorder.close()
        assert path.read_text() == "an earlier recording"
    assert len(caplog.records) == 1


def change(number: int, **fields):
    """A change of one record, for the table below."""

    def apply(records: list[dict]) -> int:
        records[number].update(fields)
        return number + 1

    return apply


def step_where(records: list[dict], condition) -> int:
    return next(i for i, record in enumerate(records) if record["event"] == "step" and condition(record))


def change_step(condition, edit):
    """A change of the first step that fits."""

    def apply(records: list[dict]) -> int:
        i = step_where(records, condition)
        edit(records[i])
        return i + 1

    return apply


def drop(condition):
    def apply(records: list[dict]) -> int:
        i = next(i for i, record in enumerate(records) if condition(record))
        del records[i]
        return i + 1

    return apply


def put(field, index, value):
    return lambda record: record[field].__setitem__(index, value)


def whole(field, value):
    return lambda record: record.__setitem__(field, value)


def decodes(record):
    return record["phases"].startswith("D") and record["index"] > 2


WRONG = {
    "a member at the wrong position": (change_step(decodes, put("positions", 0, 1)), "tokens"),
    "a member in another's slot": (change_step(decodes, put("slots", 0, 3)), "slots"),
    "a slot that is not there": (
        change_step(lambda record: record.get("admitted"), lambda record: record["admitted"][0].update(slot=99)),
        "slots",
    ),
    "a token before the prefill is done": (
        change_step(
            lambda r: 0 in r["sampled"],
            lambda r: (put("sampled", r["sampled"].index(0), 1)(r), r.pop("tokens"), r.pop("texts")),
        ),
        "tokens",
    ),
    "nothing computed": (change_step(decodes, put("computed", 0, 0)), "tokens"),
    "over the token budget": (change_step(decodes, put("computed", 0, 25)), "budget"),
    "a step that ends before it starts": (change_step(decodes, whole("end_ns", 0)), "times"),
    "a step that starts in another": (change_step(decodes, whole("start_ns", 0)), "times"),
    "a schedule outside its step": (change_step(decodes, whole("scheduled_ns", 2**40)), "times"),
    "a longer queue than there is": (change_step(decodes, whole("waiting", 99)), "queues"),
    "more running than there are": (change_step(decodes, whole("running", 99)), "queues"),
    "blocks that nobody holds": (change_step(decodes, whole("kv_used", 19)), "blocks"),
    "a block of another": (
        change_step(
            lambda record: record["index"] > 1 and record.get("blocks"),
            lambda record: record["blocks"][0].update(blocks=[0] * len(record["blocks"][0]["blocks"])),
        ),
        "blocks",
    ),
    "a block that is not there": (
        change_step(lambda record: record.get("blocks"), lambda record: record["blocks"][0].update(blocks=[99])),
        "blocks",
    ),
    "a missing step": (drop(lambda record: record["event"] == "step" and record["index"] == 3), "loss"),
    "a missing arrival": (drop(lambda record: record["event"] == "arrival"), "lifecycle"),
    "an end that nobody reached": (
        change_step(
            decodes, lambda record: record.setdefault("finished", []).append({"request": 11, "reason": "stop"})
        ),
        "lifecycle",
    ),
    "a wrong count at the end": (change(-1, output_tokens=1), "counts"),
    "a column too short": (change_step(decodes, lambda record: record["computed"].pop()), "format"),
    "a phase that is none": (change_step(decodes, whole("phases", "X")), "format"),
    "a negative time": (change_step(decodes, whole("start_ns", -1)), "format"),
    "a text for a number": (change_step(decodes, whole("index", "three")), "format"),
    "an unknown record": (change(1, event="surprise"), "format"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_found_with_its_line(tmp_path, small_trace, name):
    edit, expected_rule = WRONG[name]
    records = lines_of(small_trace)
    line = edit(records)
    report = check(write_lines(tmp_path / "wrong.jsonl", records))
    found = [violation for violation in report.violations if violation.rule == expected_rule]
    assert found, f"{[str(violation) for violation in report.violations]}"
    if line > 0:
        assert found[0].line == line or expected_rule in ("lifecycle", "loss")


def test_a_changed_byte_shows_in_the_digest(tmp_path, small_trace):
    content = small_trace.read_bytes().replace(b'"prompt 3"', b'"prompt 4"')
    path = tmp_path / "changed.jsonl"
    path.write_bytes(content)
    assert [violation.rule for violation in check(path).violations] == ["digest"]


def test_the_limit_stops_the_list(tmp_path, small_trace):
    records = [record for record in lines_of(small_trace) if record["event"] != "arrival"]
    report = check(write_lines(tmp_path / "bad.jsonl", records), limit=3)
    assert len(report.violations) == 3
    assert not report.complete


def test_another_schema_is_one_clear_line(tmp_path, small_trace):
    records = lines_of(small_trace)
    records[0]["schema"] = 2
    records[0]["slots"] = {"new": "meaning"}
    path = write_lines(tmp_path / "new.jsonl", records)
    with pytest.raises(TraceError, match=r"line 1: schema: this file is of trace schema 2"):
        Trace.read(path)
    assert "schema 2" in check(path).violations[0].message


def test_unknown_fields_are_ignored(tmp_path, small_trace):
    records = lines_of(small_trace)
    for record in records:
        record["future"] = {"field": [1, 2]}
    path = write_lines(tmp_path / "future.jsonl", records)
    fakes.seal(path)
    trace = Trace.read(path)
    assert len(trace.steps) == len(Trace.read(small_trace).steps)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"{}\n",
        b"not json\n",
        b"[" * 100_000,
        b"[" * 100_000 + b"\n",
        b"\x28\xb5\x2f\xfd garbage",
        b"\xff\xfe\n",
        b'{"event":"head\xff"}\n',
    ],
)
def test_what_is_no_trace_is_one_line(tmp_path, content):
    path = tmp_path / "nothing.jsonl"
    path.write_bytes(content)
    with pytest.raises(TraceError) as error:
        Trace.read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_bomb_is_refused_before_it_goes_off(tmp_path):
    path = tmp_path / "bomb.jsonl.zst"
    pack = zstandard.ZstdCompressor(level=19).compressobj()
    piece = b" " * 2**24
    path.write_bytes(b"".join(pack.compress(piece) for _ in range(64)) + pack.flush())
    assert path.stat().st_size < 2**20
    with pytest.raises(TraceError, match="expands more than 250 times"):
        Trace.read(path)


@pytest.mark.slow
def test_a_line_without_end_is_refused_whatever_the_file_is(tmp_path, small_trace):
    head, *rest = small_trace.read_bytes().splitlines(keepends=True)
    path = tmp_path / "long.jsonl"
    path.write_bytes(head + b" " * (MAX_LINE_BYTES + 1) + b"".join(rest))
    with pytest.raises(TraceError, match=f"line 2: the line is over {MAX_LINE_BYTES} bytes"):
        Trace.read(path)
    path.write_bytes(head + b" " * (MAX_LINE_BYTES + 2**21))
    with pytest.raises(TraceError, match=f"line 2: the line is over {MAX_LINE_BYTES} bytes"):
        Trace.read(path)


@pytest.mark.slow
@given(seed=st.integers(0, 10**9), flips=st.integers(1, 6))
@settings(max_examples=300, deadline=None)
def test_broken_files_end_in_a_verdict(tmp_path_factory, small_trace, seed, flips):
    import random

    rng = random.Random(seed)
    content = bytearray(small_trace.read_bytes())
    for _ in range(flips):
        kind = rng.randrange(4)
        at = rng.randrange(len(content))
        if kind == 0:
            content[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del content[at : at + rng.randrange(1, 80)]
        elif kind == 2:
            content[at:at] = content[at : at + rng.randrange(1, 200)]
        else:
            content[at:at] = rng.choice([b"99999999999999999999", b"-1", b"null", b"[[[", b'"', b"\n", b"1e400"])
    path = tmp_path_factory.getbasetemp() / "broken.jsonl"
    path.write_bytes(bytes(content))
    try:
        report = check(path, limit=50)
        # The digest covers all but the end record; there a changed time may go unnoticed.
        changed = bytes(content).splitlines()[:-1] != small_trace.read_bytes().splitlines()[:-1]
        assert report.violations or report.cut or not changed
    except TraceError:
        pass
    with contextlib.suppress(TraceError):
        Trace.read(path)


ROOM = Path(events.__file__).resolve().parents[1]


def test_schema_in_words_names_every_field_and_no_other():
    text = (ROOM / "SCHEMA.md").read_text()
    sections = {part.split("\n", 1)[0].strip(): part for part in text.split("\n## ")[1:]}
    for struct in (events.Header, events.Arrival, events.Step, events.Finish, events.End):
        tag = struct.__struct_config__.tag
        rows = [line.split("`")[1] for line in sections[tag].splitlines() if line.startswith("| `")]
        assert sorted(rows) == sorted(struct.__struct_fields__), tag
    parts = {
        ("header", "engine"): events.EngineInfo,
        ("header", "model"): events.ModelInfo,
        ("header", "device"): events.DeviceInfo,
        ("header", "workload"): events.WorkloadInfo,
        ("header", "clock"): events.Clock,
        ("header", "run"): events.RunInfo,
        ("header", "parallel"): events.ParallelInfo,
        ("header", "replicas"): events.ReplicaInfo,
        ("header", "kv_groups"): events.KvGroup,
        ("step", "freed"): events.GroupRelease,
        ("step", "group_blocks"): events.GroupGrant,
        ("step", "loading"): events.Loading,
        ("step", "transfers"): events.Transfer,
        ("step", "graph"): events.GraphPadding,
        ("step", "admitted"): events.Admission,
        ("step", "finished"): events.Ending,
        ("step", "blocks"): events.BlockGrant,
    }
    for (section, field), struct in parts.items():
        row = next(line for line in sections[section].splitlines() if line.startswith(f"| `{field}` "))
        for name in struct.__struct_fields__:
            assert f"`{name}`" in row, (field, name)
    assert f"schema version {events.SCHEMA_VERSION}" in text


def test_the_json_schema_that_is_shipped_is_that_of_the_types():
    assert PUBLISHED.read_text() == published_text(), "run: python -m tracereel.trace.format.schema > trace/schema.json"


def accepted_by_both(record: dict) -> bool:
    """Does a record fit the types? And the JSON Schema says the same."""
    try:
        decode_record(msgspec.json.encode(record))
        fits = True
    except MalformedRecordError:
        fits = False
    assert jsonschema.Draft202012Validator(json_schema()).is_valid(record) == fits, record
    return fits


@pytest.mark.slow
def test_json_schema_and_types_accept_and_refuse_the_same(small_trace):
    for record in {tuple(record): record for record in lines_of(small_trace)}.values():
        assert accepted_by_both(record)
        assert accepted_by_both(record | {"unknown": 1})
        for field in record:
            without = {name: value for name, value in record.items() if name != field}
            wrong = [
                record | {field: value} for value in (None, -1, 2**70, "x" * 600, [1.5], [{}], {"schema": "no"}, 2)
            ]
            assert not all(accepted_by_both(changed) for changed in [without, *wrong])


def test_the_example_is_whole_valid_and_explained_line_by_line():
    example = ROOM / "example.jsonl"
    lines = example.read_text().splitlines()
    assert len(lines) < 30
    assert check(example).ok
    page = (ROOM.parent / "docs" / "trace-example.md").read_text()
    shown = [line for block in page.split("```json\n")[1:] for line in block.split("```")[0].splitlines()]
    assert shown == lines
    kinds = {json.loads(line)["event"] for line in lines}
    assert kinds == {"header", "arrival", "step", "finish", "end"}
