"""One trace of several: the replicas of one engine, each recorded by its own process, joined on a common clock.

Knows headers, clocks and the row of records. Does not know what a record means beyond whose it is and when it was
(`invariants` checks each trace before it is let in). What does not belong together is refused by naming the field.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from tracereel.trace.check.invariants import violations
from tracereel.trace.check.report import Report
from tracereel.trace.format.decoding import decode_record
from tracereel.trace.format.events import Arrival, Clock, End, Finish, Header, ReplicaInfo, Step, encoder
from tracereel.trace.format.storage import LineReader, LineWriter, TraceError

SAME_MACHINE_NS = 10_000_000
"""Two clock pairs that agree within this are of one machine: its monotonic clock relates them."""

_SAME: dict[str, Callable[[Header], object]] = {
    "engine.name": lambda header: header.engine.name,
    "engine.version": lambda header: header.engine.version,
    "engine.commit": lambda header: header.engine.commit,
    "engine.source_digest": lambda header: header.engine.source_digest,
    "policy": lambda header: header.policy,
    "model.name": lambda header: header.model.name,
    "model.weights": lambda header: header.model.weights,
    "model.dtype": lambda header: header.model.dtype,
    "model.digest": lambda header: header.model.digest,
    "device.kind": lambda header: header.device.kind,
    "device.name": lambda header: header.device.name,
    "workload.name": lambda header: header.workload.name,
    "workload.digest": lambda header: header.workload.digest,
    "token_budget": lambda header: header.token_budget,
    "kv_block_tokens": lambda header: header.kv_block_tokens,
    "run": lambda header: header.run,
    "parallel.tensor": lambda header: header.parallel and header.parallel.tensor,
    "parallel.pipeline": lambda header: header.parallel and header.parallel.pipeline,
    "parallel.data": lambda header: header.parallel and header.parallel.data,
}


class MergeError(Exception):
    """Traces do not belong together; the message is one line and names the files and the field."""


@dataclass
class _Source:
    """One replica's trace: what was learnt of it, and how its numbers become those of the merged trace."""

    path: Path
    header: Header
    report: Report
    digest: str
    end_ns: int
    end: End | None
    number: int = 0
    shift_ns: int = 0
    first_slot: int = 0
    first_block: int = 0
    requests: list[int] = field(default_factory=list)


def merge(paths: Sequence[Path], out: Path) -> Header:
    """Join the traces of an engine's replicas into `out`; gives the new header.

    The merged trace has an end record if all of them had. Raises MergeError where they do not belong together or the
    result cannot be written, and TraceError where one cannot be read or is not valid; then nothing is written.
    """
    if len(paths) < 2:
        raise MergeError(f"{paths[0] if paths else 'nothing'}: one trace alone is no merge; name each replica's")
    if any(path.resolve() == out.resolve() for path in paths):
        raise MergeError(f"{out}: it is one of the traces to merge; name another file for the result")
    sources = [_inspect(path) for path in paths]
    _require_one_engine(sources)
    _number(sources)
    header = _place(sources)
    try:
        with LineWriter(out) as writer:
            _write(writer, header, sources)
    except OSError as error:
        raise MergeError(f"{out}: cannot be written ({error.strerror or error})") from None
    return header


def _write(writer: LineWriter, header: Header, sources: Sequence[_Source]) -> None:
    writer.write(encoder.encode(header) + b"\n")
    requests = steps = output_tokens = 0
    for event in _joined(sources):
        if isinstance(event, Arrival):
            requests += 1
        elif isinstance(event, Step):
            steps += 1
            output_tokens += sum(event.sampled)
        writer.write(encoder.encode(event) + b"\n")
    ends = [(source.end, source.shift_ns) for source in sources if source.end is not None]
    if len(ends) == len(sources):
        end = End(
            at_ns=max(end.at_ns + shift_ns for end, shift_ns in ends),
            requests=requests,
            steps=steps,
            output_tokens=output_tokens,
            digest=writer.digest.hexdigest(),
            dropped=sum(end.dropped for end, _ in ends),
        )
        writer.write(encoder.encode(end) + b"\n")


def _inspect(path: Path) -> _Source:
    """Check a trace and learn how long it is. Raises TraceError where it is not valid; a cut one is."""
    report = Report(path)
    wrong = next((found for found in violations(report) if found.rule != "loss"), None)
    if wrong is not None:
        raise TraceError(path, f"is not valid ({wrong}); see `tracereel check`")
    reader = LineReader(path)
    header: Header | None = None
    end: End | None = None
    end_ns = 0
    for _, line in reader:
        event = decode_record(line)
        if isinstance(event, Header):
            header = event
        elif isinstance(event, Step):
            end_ns = max(end_ns, event.end_ns)
        elif isinstance(event, Arrival):
            end_ns = max(end_ns, event.submitted_ns)
        elif isinstance(event, Finish):
            end_ns = max(end_ns, event.at_ns)
        else:
            end = event
    assert header is not None
    if header.replicas:
        raise MergeError(f"{path}: replicas: it is a merged trace itself; name the traces it was made of")
    return _Source(path, header, report, reader.digest if end else reader.digest_all, end_ns, end)


def _require_one_engine(sources: Sequence[_Source]) -> None:
    seen: dict[str, Path] = {}
    for source in sources:
        if source.digest in seen:
            raise MergeError(
                f"{seen[source.digest]} and {source.path} are the same run; name each replica's trace once"
            )
        seen[source.digest] = source.path
    first = sources[0]
    for other in sources[1:]:
        for name, value in _SAME.items():
            left, right = value(first.header), value(other.header)
            if left != right:
                raise MergeError(f"{first.path} and {other.path} differ in {name}: {left!r} and {right!r}")
        left_config, right_config = first.header.config, other.header.config
        for name in sorted({*left_config, *right_config}):
            if left_config.get(name) != right_config.get(name):
                raise MergeError(
                    f"{first.path} and {other.path} differ in config.{name}: {left_config.get(name)!r} and"
                    f" {right_config.get(name)!r}"
                )


def _number(sources: list[_Source]) -> None:
    """Give every trace its replica number: the header's, or its place where no header says one; sort by it."""
    if all(source.header.parallel is None for source in sources):
        for number, source in enumerate(sources):
            source.number = number
        return
    seen: dict[int, Path] = {}
    for source in sources:
        assert source.header.parallel is not None  # `parallel.data` is the same in all of them
        source.number = source.header.parallel.replica
        if source.number in seen:
            raise MergeError(f"{seen[source.number]} and {source.path}: parallel.replica is {source.number} in both")
        seen[source.number] = source.path
    sources.sort(key=lambda source: source.number)


def _place(sources: Sequence[_Source]) -> Header:
    """Relate the clocks, number slots and blocks through; gives the merged trace's header."""
    first = min(sources, key=lambda source: source.header.clock.wall_ns)
    for source in sources:
        source.shift_ns = max(_between(first.header.clock, source.header.clock), 0)
    for one in sources:
        for other in sources:
            if other.shift_ns > one.shift_ns + one.end_ns:
                raise MergeError(
                    f"{one.path} and {other.path}: clock: the first ended"
                    f" {(other.shift_ns - one.shift_ns - one.end_ns) / 1e9:.1f} s before the second began; they are not"
                    " of one run"
                )
    slot = block = 0
    blocks_known = all(source.header.kv_blocks is not None for source in sources)
    for source in sources:
        source.first_slot, source.first_block = slot, block
        slot += source.header.slots
        block += source.header.kv_blocks or 0
    replicas = [
        ReplicaInfo(
            replica=source.number,
            slots=source.header.slots,
            kv_blocks=source.header.kv_blocks if blocks_known else None,
            digest=source.digest,
        )
        for source in sources
    ]
    parallel = sources[0].header.parallel
    if parallel is not None:
        devices = [name for source in sources if source.header.parallel for name in source.header.parallel.devices]
        parallel = msgspec.structs.replace(parallel, replica=0, devices=devices)
    return msgspec.structs.replace(
        sources[0].header,
        slots=slot,
        kv_blocks=block if blocks_known else None,
        clock=first.header.clock,
        parallel=parallel,
        replicas=replicas,
    )


def _between(zero: Clock, clock: Clock) -> int:
    """Nanoseconds from one zero to the other: by the monotonic clock of one machine, else by the wall clocks."""
    wall, monotonic = clock.wall_ns - zero.wall_ns, clock.monotonic_ns - zero.monotonic_ns
    return monotonic if abs(wall - monotonic) <= SAME_MACHINE_NS else wall


def _joined(sources: Sequence[_Source]) -> Iterator[Arrival | Step | Finish]:
    """All records in the order of their beginning, numbered again."""
    requests, steps = 0, 0
    ids: dict[str, Path] = {}
    last_index = {source.number: -1 for source in sources}
    for _, _, source, event in heapq.merge(*map(_shifted, sources), key=lambda row: row[:2]):
        if isinstance(event, Arrival):
            if event.id in ids and ids[event.id] != source.path:
                raise MergeError(f"{ids[event.id]} and {source.path}: arrival.id: {event.id!r} is in both")
            ids[event.id] = source.path
            source.requests.append(requests)
            yield msgspec.structs.replace(event, request=requests, replica=source.number)
            requests += 1
        elif isinstance(event, Step):
            steps += event.index - last_index[source.number] - 1  # what a recorder dropped stays a gap
            last_index[source.number] = event.index
            yield _renumbered(event, source, steps)
            steps += 1
        else:
            yield msgspec.structs.replace(event, request=source.requests[event.request])


def _shifted(source: _Source) -> Iterator[tuple[int, int, _Source, Arrival | Step | Finish]]:
    """The records of one trace on the common clock, each with the time it is sorted by; their order stays as it was."""
    newest = 0
    shift = source.shift_ns
    for _, line in LineReader(source.path):
        event = decode_record(line)
        if isinstance(event, Step):
            newest = max(newest, event.start_ns + shift)
            event = msgspec.structs.replace(
                event,
                start_ns=event.start_ns + shift,
                end_ns=event.end_ns + shift,
                scheduled_ns=None if event.scheduled_ns is None else event.scheduled_ns + shift,
            )
        elif isinstance(event, Arrival):
            newest = max(newest, event.submitted_ns + shift)
            event = msgspec.structs.replace(
                event, arrival_ns=event.arrival_ns + shift, submitted_ns=event.submitted_ns + shift
            )
        elif isinstance(event, Finish):
            newest = max(newest, event.at_ns + shift)
            event = msgspec.structs.replace(event, at_ns=event.at_ns + shift)
        else:
            continue
        yield newest, source.number, source, event


def _renumbered(step: Step, source: _Source, index: int) -> Step:
    number, slot, block = source.requests, source.first_slot, source.first_block
    replace = msgspec.structs.replace

    def moved(each: Any) -> Any:
        return replace(each, request=number[each.request], blocks=[own + block for own in each.blocks])

    return replace(
        step,
        index=index,
        replica=source.number,
        requests=[number[request] for request in step.requests],
        slots=[own + slot for own in step.slots],
        preempted=[number[request] for request in step.preempted],
        admitted=[
            replace(admission, request=number[admission.request], slot=admission.slot + slot)
            for admission in step.admitted
        ],
        finished=[replace(ending, request=number[ending.request]) for ending in step.finished],
        blocks=[
            replace(grant, request=number[grant.request], blocks=[own + block for own in grant.blocks])
            for grant in step.blocks
        ],
        freed=[moved(release) for release in step.freed],
        group_blocks=[moved(grant) for grant in step.group_blocks],
        loading=[moved(each) for each in step.loading],
    )
