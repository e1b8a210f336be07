"""A trace as tables: requests, steps, members of steps, output tokens, residencies in slots; Parquet or CSV.

What the trace does not say is null. Times are nanoseconds since the trace's zero, as in the trace itself. The header
goes with each Parquet file, as JSON under the key `tracereel.header` of its metadata, and under `tracereel.caveats`
what must be said of the trace: that it is cut off or broken, whose times it has. In CSV a text that a spreadsheet would
compute (it begins with =, +, -, @, a tab or a carriage return) has a ' before it; Parquet holds it as it is.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet
from tracereel.trace.analysis.metrics import Metrics
from tracereel.trace.analysis.step_bounds import BOUNDS, step_bounds
from tracereel.trace.export import Progress
from tracereel.trace.format.atomic import replacing, replacing_all
from tracereel.trace.format.locks import Lock
from tracereel.trace.state.columns import ABSENT, NEVER_NS, Trace

FORMATS = ("parquet", "csv")
_STRETCH = 2**14
"""Steps that are written together."""

Columns = dict[str, Any]


def write_tables(
    trace: Trace, folder: Path, file_format: str, progress: Progress = lambda done, total: None
) -> list[Path]:
    """Write all tables into `folder` as `requests.parquet` and so on, all of them or none; returns the files.

    `file_format` is one of FORMATS. Raises OSError, and LockedError where another process writes tables there.
    """
    metadata = {b"tracereel.header": msgspec.json.encode(trace.header), b"tracereel.digest": trace.digest.encode()}
    if trace.caveats:
        metadata[b"tracereel.caveats"] = msgspec.json.encode(trace.caveats)
    tables: dict[str, Callable[[], Iterator[Columns]]] = {
        "requests": lambda: iter([_requests(trace)]),
        "residencies": lambda: iter([_residencies(trace)]),
        "steps": lambda: iter([_steps(trace)]),
        "members": lambda: _members(trace, progress),
        "tokens": lambda: _tokens(trace),
    }
    files = [folder / f"{name}.{file_format}" for name in tables]
    # Tables of two traces must not stand side by side: they would be joined without a word.
    with Lock(files[0]), replacing_all(folder) as place:
        for file, rows in zip(files, tables.values(), strict=True):
            _write(rows(), place / file.name, file_format, metadata)
    return files


def _write(parts: Iterator[Columns], path: Path, file_format: str, metadata: dict[bytes, bytes]) -> None:
    with replacing(path) as partial, contextlib.ExitStack() as opened:
        writer: Any = None
        for part in parts:
            table = pa.table(part)
            if file_format == "csv":
                table = _without_formulas(table)
            if writer is None:
                schema = table.schema.with_metadata(metadata)
                kind = pyarrow.parquet.ParquetWriter if file_format == "parquet" else pyarrow.csv.CSVWriter
                writer = opened.enter_context(kind(str(partial), schema))
            writer.write_table(table.cast(schema))


def _without_formulas(table: pa.Table) -> pa.Table:
    """The table with a ' before each text that a spreadsheet would compute (OWASP, "CSV Injection")."""
    for i, column in enumerate(table.schema):
        if pa.types.is_string(column.type):
            safe = pyarrow.compute.replace_substring_regex(table[i], r"\A([=+\-@\t\r])", r"'\1")
            table = table.set_column(i, column, safe)
    return table


def _known(values: Any, absent: int = ABSENT) -> Any:
    """A column in which `absent` is null."""
    return pa.array(values, mask=np.asarray(values) == absent)


def _requests(trace: Trace) -> Columns:
    metrics, arrivals = Metrics(trace), trace.arrivals
    per_request: dict[str, np.ndarray[Any, Any]] = {}
    for name, requests in (
        ("queue_ms", metrics.admitted),
        ("ttft_ms", metrics.completed),
        ("tpot_ms", metrics.completed[metrics.output_lengths[metrics.completed] > 1]),
        ("e2el_ms", metrics.completed),
    ):
        column = np.full(len(arrivals), np.nan)
        column[requests] = getattr(metrics, name)
        per_request[name] = column
    endings = [trace.endings.get(request) for request in range(len(arrivals))]
    return {
        "request": pa.array(np.arange(len(arrivals)), pa.int32()),
        "id": pa.array([arrival.id for arrival in arrivals], pa.string()),
        "arrival_ns": pa.array([arrival.arrival_ns for arrival in arrivals], pa.int64()),
        "submitted_ns": pa.array([arrival.submitted_ns for arrival in arrivals], pa.int64()),
        "prompt_tokens": pa.array([arrival.prompt_tokens for arrival in arrivals], pa.int32()),
        "max_tokens": pa.array([arrival.max_tokens for arrival in arrivals], pa.int32()),
        "priority": pa.array([arrival.priority for arrival in arrivals], pa.int32()),
        "lora": pa.array([arrival.lora for arrival in arrivals], pa.string()),
        "replica": pa.array([arrival.replica if trace.header.replicas else None for arrival in arrivals], pa.int32()),
        "prompt": pa.array([arrival.prompt for arrival in arrivals], pa.string()),
        "output_tokens": pa.array(metrics.output_lengths, pa.int32()),
        **{name: pa.array(column, from_pandas=True) for name, column in per_request.items()},
        "ended_ns": pa.array([ending[0] if ending else None for ending in endings], pa.int64()),
        "reason": pa.array([ending[1] if ending else None for ending in endings], pa.string()),
    }


def _residencies(trace: Trace) -> Columns:
    residencies = trace.residencies
    # In a recording that lost steps a step's number is not its place in the file.
    index = trace.steps.index if len(trace.steps) else np.zeros(1, np.int64)
    return {
        "request": pa.array(residencies.request, pa.int32()),
        "slot": pa.array(residencies.slot, pa.int32()),
        "cached": pa.array(residencies.cached, pa.int32()),
        "first_step": pa.array(index[residencies.first_step]),
        "last_step": pa.array(index[residencies.last_step], mask=residencies.last_step == ABSENT),
        "preempted": pa.array(residencies.preempted),
        "from_ns": pa.array(residencies.from_ns),
        "to_ns": _known(residencies.to_ns, int(NEVER_NS)),
    }


def _steps(trace: Trace) -> Columns:
    steps = trace.steps
    decodes = np.concatenate([[0], np.cumsum(steps.member_decode, dtype=np.int64)])
    computed = np.concatenate([[0], np.cumsum(steps.member_computed, dtype=np.int64)])
    bounds = steps.first_member
    return {
        "step": pa.array(steps.index),
        "replica": _replica(trace, steps.replica),
        "start_ns": pa.array(steps.start_ns),
        "end_ns": pa.array(steps.end_ns),
        "host_end_ns": pa.array(steps.host_end_ns),
        "scheduled_ns": _known(steps.scheduled_ns),
        "device_ns": _known(steps.device_ns),
        "batch": pa.array(steps.batch),
        "decodes": pa.array(np.diff(decodes[bounds])),
        "computed_tokens": pa.array(np.diff(computed[bounds])),
        "output_tokens": pa.array(steps.sampled),
        "padding": pa.array(steps.padding),
        "waiting": pa.array(steps.waiting),
        "running": pa.array(steps.running),
        "kv_used": _known(steps.kv_used),
        "bound": _coded(step_bounds(trace), BOUNDS),
    }


def _replica(trace: Trace, places: Any) -> Any:
    """The replicas' numbers of a merged trace, by their places in its header; null where there is but one engine."""
    numbers = np.array([replica.replica for replica in trace.header.replicas] or [ABSENT])
    return _known(numbers[places])


def _coded(codes: Any, names: Sequence[str]) -> Any:
    """Texts, of which each value is a number in `names`."""
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names)).cast(pa.string())


def _stretches(trace: Trace) -> Iterator[tuple[int, int]]:
    """(first, end) of the steps that are written together; one empty stretch where there is no step."""
    total = len(trace.steps)
    for first in range(0, max(total, 1), _STRETCH):
        yield first, min(first + _STRETCH, total)


def _members(trace: Trace, progress: Progress) -> Iterator[Columns]:
    steps = trace.steps
    for first, end in _stretches(trace):
        rows = slice(int(steps.first_member[first]), int(steps.first_member[end]))
        unknown = np.broadcast_to(np.int16(ABSENT), rows.stop - rows.start)
        drafted = unknown if steps.member_drafted is None else steps.member_drafted[rows]
        yield {
            "step": pa.array(np.repeat(steps.index[first:end], steps.batch[first:end])),
            "request": pa.array(steps.member_request[rows]),
            "slot": pa.array(steps.member_slot[rows]),
            "phase": _coded(steps.member_decode[rows].astype(np.int8), ("prefill", "decode")),
            "position": pa.array(steps.member_position[rows]),
            "computed": pa.array(steps.member_computed[rows]),
            "sampled": pa.array(steps.member_sampled[rows]),
            "drafted": _known(drafted),
        }
        progress(end, len(steps))


def _tokens(trace: Trace) -> Iterator[Columns]:
    steps = trace.steps
    texts = pa.array(steps.texts, pa.string())
    so_far = np.zeros(len(trace.arrivals), np.int64)
    for first, end in _stretches(trace):
        members = slice(int(steps.first_member[first]), int(steps.first_member[end]))
        rows = slice(int(steps.first_token[first]), int(steps.first_token[end]))
        request = np.repeat(steps.member_request[members], steps.member_sampled[members])
        order = np.argsort(request, kind="stable")
        begins = np.flatnonzero(np.diff(request[order], prepend=-1))
        counts = np.diff(begins, append=len(request))
        place = np.empty(len(request), np.int64)
        place[order] = np.arange(len(request)) - np.repeat(begins, counts)
        who = request[order][begins]
        step = np.repeat(np.arange(first, end), steps.sampled[first:end])
        code = steps.token_text[rows]
        yield {
            "request": pa.array(request, pa.int32()),
            "token": pa.array(place + so_far[request]),
            "step": pa.array(steps.index[step]),
            "time_ns": pa.array(steps.end_ns[step]),
            "token_id": _known(steps.token_id[rows]),
            "text": pa.DictionaryArray.from_arrays(_known(code), texts).cast(pa.string()),
        }
        so_far[who] += counts
