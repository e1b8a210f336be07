"""The records of a trace file, as columns that grow while they are read.

Knows records and arrays. Does not check that they make sense together (`check`) and leaves times as they stand.
"""

from array import array
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tracereel.trace.format.decoding import MalformedRecordError, decode_record
from tracereel.trace.format.events import Arrival, End, Event, Finish, GroupGrant, GroupRelease, Header, Step
from tracereel.trace.format.storage import LineReader, TraceError
from tracereel.trace.state.values import ABSENT, NEVER_NS, Ints


class _Column:
    """An integer column that grows by lists: narrow (16 bits) until a value does not fit, where that is asked for."""

    def __init__(self, *, narrow: bool = False):
        self._values = array("h" if narrow else "i")

    def add(self, entries: list[int]) -> None:
        """Append all of them."""
        try:
            self._values.fromlist(entries)
        except OverflowError:
            self._values = array("i", self._values)
            self._values.fromlist(entries)

    def freeze(self) -> npt.NDArray[Any]:
        """The whole column, without a copy."""
        dtype = np.dtype(f"i{self._values.itemsize}")
        return np.frombuffer(self._values, dtype=dtype) if len(self._values) else np.empty(0, dtype)


class _Codes(dict[str, int]):
    """Numbers texts in the order in which they are first asked for."""

    def __missing__(self, text: str) -> int:
        code = self[text] = len(self)
        return code


def _int64(values: "array[int]") -> Ints:
    return np.frombuffer(values, dtype=np.int64) if len(values) else np.empty(0, np.int64)


def _append(columns: "dict[str, array[int]]", *row: int) -> None:
    for column, value in zip(columns.values(), row, strict=True):
        column.append(value)


_MAY_LACK = ("scheduled_ns", "device_ns", "device_gap_ns", "latency_ns", "kv_used")
"""The fields of a step that are columns of their own name, with ABSENT where a step does not say."""
_may_lack = attrgetter(*_MAY_LACK)
_STEP_SCALARS = (
    *("line", "index", "host_start_ns", "host_end_ns"),
    *_MAY_LACK,
    *("waiting", "running", "padding", "replica", "first_member", "first_token"),
)


@dataclass(frozen=True)
class Records:
    """All records of a file as columns, their times as they stand there; `Trace` says what each column means."""

    header: Header
    arrivals: tuple[Arrival, ...]
    arrival_lines: tuple[int, ...]
    steps: dict[str, Any]
    residencies: dict[str, npt.NDArray[Any]]
    grants: dict[str, Ints]
    group_grants: dict[str, Ints]
    group_releases: dict[str, Ints]
    loading: dict[str, Ints]
    endings: dict[int, tuple[int, str, int]]
    end: End | None
    cut: str | None
    digest: str
    digest_agrees: bool
    """False where the end record states another digest than that of the records before it."""


def load(path: Path, *, tokens: bool) -> Records:
    """Read a file; without `tokens` as if it did not say their ids and texts.

    Raises TraceError where it is no trace, or a record is malformed or contradicts those before it.
    """
    return _Loader(path, tokens=tokens).load()


class _Loader:
    """Feeds the records of a file into growing arrays, then freezes them."""

    def __init__(self, path: Path, *, tokens: bool):
        self.path = path
        self.keeps_tokens = tokens
        self.reader = LineReader(path)
        self.header: Header | None = None
        self.end: End | None = None
        self.arrivals: list[Arrival] = []
        self.arrival_lines: list[int] = []
        self.endings: dict[int, tuple[int, str, int]] = {}
        self.places: dict[int, int] = {0: 0}
        self.scalars = array("q")
        self.steps = self.members = self.new_tokens = 0
        self.requests, self.positions = _Column(), _Column()
        self.slots, self.computed, self.sampled = _Column(narrow=True), _Column(narrow=True), _Column(narrow=True)
        self.drafted: _Column | None = None
        self.phases = bytearray()
        self.token_id, self.token_text = _Column(), _Column()
        self.text_codes = _Codes()
        self.residencies: dict[str, list[int]] = {
            name: []
            for name in ("request", "slot", "cached", "first_step", "last_step", "preempted", "from_ns", "to_ns")
        }
        self.open_residencies: dict[int, int] = {}
        self.grants = {name: array("q") for name in ("step", "request", "block")}
        self.group_grants = {name: array("q") for name in ("step", "request", "group", "place", "block")}
        self.group_releases = {name: array("q") for name in ("step", "request", "group", "block")}
        self.loading = {name: array("q") for name in ("step", "request", "blocks")}

    def fail(self, message: str, line: int) -> TraceError:
        return TraceError(self.path, message, line)

    def load(self) -> Records:
        number = 0
        for number, line in self.reader:
            try:
                event = decode_record(line)
            except MalformedRecordError as error:
                raise self.fail(str(error), number) from None
            self.add(event, number)
        if self.header is None:
            raise TraceError(self.path, self.reader.cut or "the file holds no header record; is it a trace?")
        cut = self.reader.cut
        if self.end is None:
            cut = cut or "there is no end record"
            cut = f"cut off after line {number}: {cut}"
        return self.freeze(cut)

    def add(self, event: Event, number: int) -> None:
        if self.header is None:
            if not isinstance(event, Header):
                raise self.fail("the first record is not a header", number)
            self.header = event
            self.places = {replica.replica: i for i, replica in enumerate(event.replicas)} or {0: 0}
        elif self.end is not None:
            raise self.fail("a record after the end record", number)
        elif isinstance(event, Step):
            self.add_step(event, number)
        elif isinstance(event, Arrival):
            if event.request != len(self.arrivals):
                raise self.fail(
                    f"request: expected {len(self.arrivals)} (the next arrival), got {event.request}", number
                )
            self.arrivals.append(event)
            self.arrival_lines.append(number)
        elif isinstance(event, Finish):
            self.known(event.request, number)
            if event.request in self.endings:
                raise self.fail(f"request {event.request} ends twice", number)
            self.close_residency(event.request, self.steps - 1, event.at_ns, False)
            self.endings[event.request] = (event.at_ns, event.reason, number)
        elif isinstance(event, End):
            self.end = event
        else:
            raise self.fail("a second header", number)

    def known(self, request: int, number: int) -> None:
        if request >= len(self.arrivals):
            raise self.fail(f"request {request} has not arrived", number)

    def slot(self, slot: int, number: int) -> None:
        assert self.header is not None
        if slot >= self.header.slots:
            raise self.fail(f"slot {slot} of {self.header.slots}", number)

    def add_step(self, step: Step, number: int) -> None:
        members = len(step.requests)
        slots, phases, positions = step.slots, step.phases, step.positions
        computed, sampled = step.computed, step.sampled
        if not len(slots) == len(phases) == len(positions) == len(computed) == len(sampled) == members:
            for name in ("slots", "phases", "positions", "computed", "sampled"):
                if len(getattr(step, name)) != members:
                    raise self.fail(f"{name}: {len(getattr(step, name))} entries for {members} requests", number)
        new_tokens = sum(step.sampled)
        if step.tokens is not None and len(step.tokens) != new_tokens:
            raise self.fail(f"tokens: {len(step.tokens)} entries for {new_tokens} sampled tokens", number)
        if step.drafted is not None and len(step.drafted) != members:
            raise self.fail(f"drafted: {len(step.drafted)} entries for {members} requests", number)
        if step.texts is not None and len(step.texts) != new_tokens:
            raise self.fail(f"texts: {len(step.texts)} entries for {new_tokens} sampled tokens", number)
        if members:
            self.known(max(step.requests), number)
            self.slot(max(slots), number)
        if step.replica not in self.places:
            raise self.fail(f"replica: {step.replica} is not among those of the header", number)
        i = self.steps
        self.scalars.fromlist(
            [
                *(number, step.index, step.start_ns, step.end_ns),
                *[ABSENT if value is None else value for value in _may_lack(step)],
                *(step.waiting, step.running, step.padding, self.places[step.replica], self.members, self.new_tokens),
            ]
        )
        self.requests.add(step.requests)
        self.slots.add(slots)
        self.positions.add(positions)
        self.computed.add(computed)
        self.sampled.add(sampled)
        self.phases += phases.encode()
        self.add_drafts(step)
        if self.keeps_tokens:
            self.add_tokens(step, new_tokens)
        self.steps += 1
        self.members += members
        self.new_tokens += new_tokens
        for request in step.preempted:
            self.known(request, number)
            self.close_residency(request, i - 1, step.start_ns, True)
        for admission in step.admitted:
            self.known(admission.request, number)
            self.slot(admission.slot, number)
            self.open_residency(admission.request, admission.slot, admission.cached, i, step.start_ns)
        for grant in step.blocks:
            self.known(grant.request, number)
            self.grants["step"].extend([i] * len(grant.blocks))
            self.grants["request"].extend([grant.request] * len(grant.blocks))
            self.grants["block"].extend(grant.blocks)
        if step.group_blocks or step.freed or step.loading:
            self.add_groups(step, number)
        for ending in step.finished:
            self.known(ending.request, number)
            self.close_residency(ending.request, i, step.end_ns, False)
            self.endings[ending.request] = (step.end_ns, ending.reason, number)

    def add_groups(self, step: Step, number: int) -> None:
        """What only some engines say: tables by group of layers, and requests that wait for KV from elsewhere."""
        i = self.steps - 1
        groups = len(self.header.kv_groups) if self.header is not None else 0
        changes: list[GroupGrant | GroupRelease] = [*step.group_blocks, *step.freed]
        for change in changes:
            self.known(change.request, number)
            if change.group >= groups:
                raise self.fail(f"group {change.group} of {groups} in header.kv_groups", number)
        for grant in step.group_blocks:
            for place, block in enumerate(grant.blocks, grant.place):
                _append(self.group_grants, i, grant.request, grant.group, place, block)
        for release in step.freed:
            for block in release.blocks:
                _append(self.group_releases, i, release.request, release.group, block)
        for each in step.loading:
            self.known(each.request, number)
            _append(self.loading, i, each.request, len(each.blocks))

    def add_tokens(self, step: Step, count: int) -> None:
        unknown = [ABSENT] * count
        self.token_id.add(unknown if step.tokens is None else step.tokens)
        self.token_text.add(unknown if step.texts is None else list(map(self.text_codes.__getitem__, step.texts)))

    def add_drafts(self, step: Step) -> None:
        """Draft tokens make a column only where a step has them; it then holds ABSENT for those that do not say."""
        members = len(step.requests)
        if self.drafted is None:
            if step.drafted is None:
                return
            self.drafted = _Column(narrow=True)
            self.drafted.add([ABSENT] * self.members)
        self.drafted.add([ABSENT] * members if step.drafted is None else step.drafted)

    def open_residency(self, request: int, slot: int, cached: int, step: int, at_ns: int) -> None:
        self.open_residencies[request] = len(self.residencies["request"])
        row = (request, slot, cached, step, ABSENT, 0, at_ns, NEVER_NS)
        for column, value in zip(self.residencies.values(), row, strict=True):
            column.append(value)

    def close_residency(self, request: int, step: int, at_ns: int, preempted: bool) -> None:
        i = self.open_residencies.pop(request, None)
        if i is not None:
            self.residencies["last_step"][i] = step
            self.residencies["to_ns"][i] = at_ns
            self.residencies["preempted"][i] = preempted

    def freeze(self, cut: str | None) -> Records:
        assert self.header is not None
        residencies: dict[str, npt.NDArray[Any]] = {
            name: np.array(column, dtype=np.int64) for name, column in self.residencies.items()
        }
        residencies["preempted"] = residencies["preempted"].astype(bool)
        return Records(
            header=self.header,
            arrivals=tuple(self.arrivals),
            arrival_lines=tuple(self.arrival_lines),
            steps=self.freeze_steps(),
            residencies=residencies,
            grants={name: _int64(column) for name, column in self.grants.items()},
            group_grants={name: _int64(column) for name, column in self.group_grants.items()},
            group_releases={name: _int64(column) for name, column in self.group_releases.items()},
            loading={name: _int64(column) for name, column in self.loading.items()},
            endings=self.endings,
            end=self.end,
            cut=cut,
            digest=self.reader.digest if self.end is not None else self.reader.digest_all,
            digest_agrees=self.end is None or self.end.digest == self.reader.digest,
        )

    def freeze_steps(self) -> dict[str, Any]:
        self.scalars.extend((*[0] * (len(_STEP_SCALARS) - 2), self.members, self.new_tokens))
        scalars = dict(
            zip(_STEP_SCALARS, np.array(_int64(self.scalars).reshape(-1, len(_STEP_SCALARS)).T), strict=True)
        )
        firsts = {name: scalars.pop(name) for name in ("first_member", "first_token")}
        # Of what was not kept every entry is the same one.
        unknown = np.broadcast_to(np.int32(ABSENT), self.new_tokens)
        return {
            "member_request": self.requests.freeze(),
            "member_slot": self.slots.freeze(),
            "member_decode": np.frombuffer(self.phases, dtype=np.uint8) == ord("D"),
            "member_position": self.positions.freeze(),
            "member_computed": self.computed.freeze(),
            "member_sampled": self.sampled.freeze(),
            "member_drafted": self.drafted.freeze() if self.drafted else None,
            "token_id": self.token_id.freeze() if self.keeps_tokens else unknown,
            "token_text": self.token_text.freeze() if self.keeps_tokens else unknown,
            "texts": tuple(self.text_codes),
            **firsts,
            **{name: column[:-1] for name, column in scalars.items()},
        }
