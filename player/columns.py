"""A trace as the columns that a page holds: what happened, in the fewest bytes that a browser reads quickly.

    4 bytes: length of the head (little endian) · head (JSON) · the columns' bytes one after the other

The head lists the columns as [name, bytes a value, is it differences?, values] and holds the texts. A value of 8 bytes
is a float64, of fewer a signed integer. The bytes of integers are stored in planes, all lowest bytes first: gzip finds
more in them. Times are nanoseconds since `begin_ns`. Knows traces; not how the page shows them.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import asdict

import msgspec
import numpy as np
from tracereel.film.colours import RequestColours
from tracereel.player.errors import PlayerError
from tracereel.player.spans import spans_of
from tracereel.trace.analysis.step_bounds import step_bounds
from tracereel.trace.state.columns import ABSENT, NEVER_NS, Ints, Trace
from tracereel.trace.state.timeline import Timeline

LONGEST_NS = 2**53
"""What a browser's numbers count without a gap."""


def packed(trace: Trace, timeline: Timeline) -> bytes:
    """The columns of a trace as bytes; the same trace gives the same bytes. Raises PlayerError for 104 days of run."""
    columns, texts = _columns(trace, timeline.begin_ns), _texts(trace)
    entries, parts = [], []
    for name, column in columns.items():
        differs, width, data = _encoded(name, column)
        entries.append((name, width, differs, len(column)))
        parts.append(data)
    head = msgspec.json.encode({"columns": entries, **texts})
    return struct.pack("<I", len(head)) + head + b"".join(parts)


def _columns(trace: Trace, begin_ns: int) -> Mapping[str, Ints]:
    steps, residencies, spans = trace.steps, trace.residencies, spans_of(trace)
    requests = range(len(trace.arrivals))
    reasons = _reasons(trace)
    arrivals = trace.arrivals
    return {
        "step.index": steps.index,
        "step.start": steps.start_ns - begin_ns,
        "step.end": steps.end_ns - begin_ns,
        "step.device": steps.device_ns,
        "step.waiting": steps.waiting,
        "step.running": steps.running,
        "step.padding": steps.padding,
        "step.kv": steps.kv_used,
        "step.replica": steps.replica,
        "step.bound": step_bounds(trace),
        "request.arrival": _ints(arrival.arrival_ns for arrival in arrivals) - begin_ns,
        "request.prompt_tokens": _ints(arrival.prompt_tokens for arrival in arrivals),
        "request.max_tokens": _ints(ABSENT if a.max_tokens is None else a.max_tokens for a in arrivals),
        "request.priority": _ints(arrival.priority for arrival in arrivals),
        "request.colour": _ints(RequestColours([trace]).indices),
        "request.end": _ints(trace.endings[r][0] - begin_ns if r in trace.endings else ABSENT for r in requests),
        "request.reason": _ints(reasons.index(trace.endings[r][1]) if r in trace.endings else ABSENT for r in requests),
        "stay.request": residencies.request,
        "stay.slot": residencies.slot,
        "stay.cached": residencies.cached,
        "stay.first_step": residencies.first_step,
        "stay.last_step": residencies.last_step,
        "stay.preempted": residencies.preempted.astype(np.int64),
        "stay.from": residencies.from_ns - begin_ns,
        "stay.to": np.where(residencies.to_ns == NEVER_NS, ABSENT, residencies.to_ns - begin_ns),
        **{f"span.{name}": column for name, column in asdict(spans).items()},
        **_tokens(trace),
    }


def _tokens(trace: Trace) -> Mapping[str, Ints]:
    """The output tokens by request: the numbers of their texts, and their ids where a text is not known."""
    order, _ = trace.token_order
    text = trace.steps.token_text[order].astype(np.int64)
    known = not (text == ABSENT).any()
    return {"token.text": text, "token.id": text[:0] if known else trace.steps.token_id[order].astype(np.int64)}


def _texts(trace: Trace) -> Mapping[str, list[str] | list[str | None]]:
    return {
        "texts": list(trace.steps.texts),
        "ids": [arrival.id for arrival in trace.arrivals],
        "prompts": [arrival.prompt for arrival in trace.arrivals],
        "reasons": _reasons(trace),
    }


def _reasons(trace: Trace) -> list[str]:
    return sorted({reason for _, reason, _ in trace.endings.values()})


def _ints(values: Iterable[int]) -> Ints:
    return np.fromiter(values, dtype=np.int64)


def _encoded(name: str, column: Ints) -> tuple[bool, int, bytes]:
    """(is it differences?, bytes a value, the bytes), whichever is narrower; a column starts from 0."""
    if len(column) and int(np.abs(column).max()) >= LONGEST_NS:
        raise PlayerError(f"{name}: a value of {int(np.abs(column).max())} is more than a browser can count (2^53)")
    differences = np.diff(column, prepend=0)
    plain, differing = _width(column), _width(differences)
    if differing < plain:
        return True, differing, _planes(differences, differing)
    return False, plain, _planes(column, plain)


def _width(column: Ints) -> int:
    for width in (1, 2, 4):
        limit = np.iinfo(f"i{width}")
        if not len(column) or (int(column.min()) >= limit.min and int(column.max()) <= limit.max):
            return width
    return 8


def _planes(column: Ints, width: int) -> bytes:
    if width == 8:
        return column.astype("<f8").tobytes()
    return column.astype(f"<i{width}").view(np.uint8).reshape(len(column), width).T.tobytes()
