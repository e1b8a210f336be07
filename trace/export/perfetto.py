"""A trace as Chrome JSON (the Trace Event Format) that ui.perfetto.dev opens.

One process; a thread for the steps and one for each slot, in which a request's residency encloses its steps; an
asynchronous span for each request, from its arrival to its end, that encloses its waits and its residencies; counters
for the queue, the batch, the KV blocks and the output tokens. Written event by event: a long trace needs no more memory
than it has.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tracereel.trace.analysis.step_bounds import BOUNDS, WORDS, step_bounds
from tracereel.trace.analysis.summary import provenance
from tracereel.trace.export import Progress
from tracereel.trace.format.storage import LineWriter
from tracereel.trace.format.text import request_label
from tracereel.trace.state.columns import ABSENT, NEVER_NS, Trace
from tracereel.trace.state.replicas import over_replicas

PROCESS = 1
STEPS = 1
"""The thread of the steps; of a merged trace the first replica's, the others' follow, then the slots'."""
_REPORT_STEPS = 1024

Event = dict[str, Any]
_encoder = msgspec.json.Encoder()


def write_perfetto(trace: Trace, path: Path, progress: Progress = lambda done, total: None) -> None:
    """Write the trace to `path`, whole or not at all. Raises OSError."""
    facts = {name: value for name, value in provenance(trace).items() if value is not None and name != "file"}
    with LineWriter(path) as writer:
        writer.write(b'{"displayTimeUnit":"ms","otherData":' + _encoder.encode(facts) + b',"traceEvents":[\n')
        separator = b""
        for event in _events(trace, progress):
            writer.write(separator + _encoder.encode(event))
            separator = b",\n"
        writer.write(b"\n]}\n")


def _events(trace: Trace, progress: Progress) -> Iterator[Event]:
    yield from _names(trace)
    yield from _requests(trace)
    yield from _residencies(trace)
    yield from _steps(trace, progress)


def _us(ns: int) -> float:
    return ns / 1000


def _event(kind: str, name: str, at_ns: int, thread: int = STEPS, **more: Any) -> Event:
    return {"ph": kind, "name": name, "ts": _us(at_ns), "pid": PROCESS, "tid": thread, **more}


def _slice(name: str, from_ns: int, to_ns: int, thread: int, **args: Any) -> Event:
    return _event("X", name, from_ns, thread, dur=_us(to_ns - from_ns), args=args)


def _names(trace: Trace) -> Iterator[Event]:
    header = trace.header
    yield _event("M", "process_name", 0, args={"name": f"{header.engine.name} · {header.policy}"})
    steps = [f"steps of replica {replica.replica}" for replica in header.replicas] or ["steps"]
    threads = [*steps, *(f"slot {slot}" for slot in range(header.slots))]
    for i, name in enumerate(threads):
        yield _event("M", "thread_name", 0, STEPS + i, args={"name": name})
        yield _event("M", "thread_sort_index", 0, STEPS + i, args={"sort_index": i})


def _slot_thread(trace: Trace, slot: int) -> int:
    return STEPS + max(len(trace.header.replicas), 1) + slot


def _end_ns(trace: Trace) -> int:
    """When the trace ends: nothing that has no end of its own can be drawn beyond it."""
    last = int(trace.steps.end_ns.max()) if len(trace.steps) else 0
    return max(last, *(arrival.arrival_ns for arrival in trace.arrivals), 0)


def _requests(trace: Trace) -> Iterator[Event]:
    """For each request a span from arrival to end, and within it its waits and residencies one after the other."""
    residencies, last_ns = trace.residencies, _end_ns(trace)
    order = np.argsort(residencies.request, kind="stable")
    bounds = np.searchsorted(residencies.request[order], np.arange(len(trace.arrivals) + 1)).tolist()
    for request, arrival in enumerate(trace.arrivals):
        at_ns, reason, _ = trace.endings.get(request, (last_ns, "cut off", 0))

        def span(kind: str, name: str, at: int, request: int = request, **args: Any) -> Event:
            return _event(kind, name, at, cat="request", id=request, args=args)

        name = request_label(request)
        yield span("b", name, arrival.arrival_ns, id=arrival.id, prompt_tokens=arrival.prompt_tokens)
        waits_from = arrival.arrival_ns
        for residency in order[bounds[request] : bounds[request + 1]].tolist():
            from_ns, to_ns = int(residencies.from_ns[residency]), min(int(residencies.to_ns[residency]), last_ns)
            yield from _within(span, "waiting", waits_from, from_ns)
            yield from _within(span, "running", from_ns, to_ns, slot=int(residencies.slot[residency]))
            waits_from = to_ns
        if waits_from < at_ns:
            yield from _within(span, "waiting", waits_from, at_ns)
        yield span("e", name, max(at_ns, waits_from), reason=reason)


def _within(span: Any, name: str, from_ns: int, to_ns: int, **args: Any) -> Iterable[Event]:
    return (span("b", name, from_ns, **args), span("e", name, to_ns)) if to_ns > from_ns else ()


def _residencies(trace: Trace) -> Iterator[Event]:
    residencies, last_ns = trace.residencies, _end_ns(trace)
    columns = zip(
        *(
            column.tolist()
            for column in (
                residencies.request,
                residencies.slot,
                residencies.cached,
                residencies.from_ns,
                residencies.to_ns,
            )
        ),
        strict=True,
    )
    for request, slot, cached, from_ns, to_ns in columns:
        to_ns = last_ns if to_ns == NEVER_NS else to_ns
        arrival = trace.arrivals[request]
        yield _slice(request_label(request), from_ns, to_ns, _slot_thread(trace, slot), id=arrival.id, cached=cached)


def _steps(trace: Trace, progress: Progress) -> Iterator[Event]:
    steps = trace.steps
    waiting, running, kv_used = (
        over_replicas(trace, column) for column in (steps.waiting, steps.running, steps.kv_used)
    )
    by_end = np.argsort(steps.end_ns, kind="stable")
    tokens_out = np.empty(len(steps), dtype=np.int64)
    tokens_out[by_end] = np.cumsum(steps.sampled[by_end])
    bounds = step_bounds(trace).tolist()
    for i in range(len(steps)):
        start, end, scheduled = int(steps.start_ns[i]), int(steps.end_ns[i]), int(steps.scheduled_ns[i])
        index, members = int(steps.index[i]), steps.members(i)
        batch = members.stop - members.start
        thread, replica = STEPS + int(steps.replica[i]), _replica_name(trace, i)
        facts = {"index": index, "batch": batch, "padding": int(steps.padding[i]), "bound by": WORDS[BOUNDS[bounds[i]]]}
        yield _slice("step", start, end, thread, **facts)
        # By the device's times a schedule lies before its step, not in it.
        if scheduled != ABSENT and not trace.by_device:
            yield _slice("schedule", start, scheduled, thread)
        decodes = int(steps.member_decode[members].sum())
        yield _counter("queue", start, waiting=int(waiting[i]), running=int(running[i]))
        yield _counter(f"batch{replica}", start, decode=decodes, prefill=batch - decodes)
        if kv_used[i] != ABSENT:
            yield _counter("KV blocks", start, used=int(kv_used[i]))
        yield from _members(trace, i, members)
        yield _counter("output tokens", end, total=int(tokens_out[i]))
        if i % _REPORT_STEPS == 0 or i + 1 == len(steps):
            progress(i + 1, len(steps))


def _replica_name(trace: Trace, step: int) -> str:
    """Which replica made a step, to be put after a name; nothing where there is but one."""
    replicas = trace.header.replicas
    return f" of replica {replicas[int(trace.steps.replica[step])].replica}" if replicas else ""


def _members(trace: Trace, i: int, members: slice) -> Iterator[Event]:
    steps = trace.steps
    start, end, token = int(steps.start_ns[i]), int(steps.end_ns[i]), int(steps.first_token[i])
    columns = (steps.member_request, steps.member_slot, steps.member_decode, steps.member_position)
    amounts = (steps.member_computed, steps.member_sampled)
    for request, slot, decode, position, computed, sampled in zip(
        *(column[members].tolist() for column in (*columns, *amounts)), strict=True
    ):
        args = {"request": request, "position": position, "computed": computed, "sampled": sampled}
        codes = steps.token_text[token : token + sampled].tolist()
        if sampled and ABSENT not in codes:
            args["text"] = "".join(steps.texts[code] for code in codes)
        token += sampled
        yield _slice("decode" if decode else "prefill", start, end, _slot_thread(trace, slot), **args)


def _counter(name: str, at_ns: int, **values: int) -> Event:
    return _event("C", name, at_ns, args=values)
