"""A whole trace in memory, as columns: small enough for millions of steps, quick enough for numpy.

Knows how to load records into arrays and how to hand out one request's or one step's part of them. Does not check that
they make sense together (`invariants`) and computes no metric (`metrics`).
"""

from array import array
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tracereel.trace.format.decoding import MalformedRecordError, decode_record
from tracereel.trace.format.events import Arrival, End, Event, Finish, Header, Step
from tracereel.trace.format.storage import LineReader, TraceError

Ints = npt.NDArray[np.int64]
SmallInts = npt.NDArray[np.int16] | npt.NDArray[np.int32]
"""Values that are small as a rule: 16 bits each where they all fit, else 32."""
ABSENT = -1
"""What an integer column holds where the source did not say."""


@dataclass(frozen=True)
class Steps:
    """The steps as columns; entry i of each belongs to the i-th step of the file.

    The members of step i are the entries `first_member[i]` to `first_member[i + 1]` of the member columns, their new
    tokens the entries `first_token[i]` to `first_token[i + 1]` of the token columns. Times are in nanoseconds.
    """

    line: Ints
    index: Ints
    start_ns: Ints
    end_ns: Ints
    scheduled_ns: Ints
    device_ns: Ints
    waiting: Ints
    running: Ints
    padding: Ints
    kv_used: Ints
    latency_ns: Ints
    device_gap_ns: Ints
    replica: Ints
    """The replica that made the step, as its place in `header.replicas`; 0 where the trace is of one engine."""
    first_member: Ints
    first_token: Ints
    member_request: npt.NDArray[np.int32]
    member_slot: SmallInts
    member_decode: npt.NDArray[np.bool_]
    member_position: npt.NDArray[np.int32]
    member_computed: SmallInts
    member_sampled: SmallInts
    member_drafted: SmallInts | None
    token_id: npt.NDArray[np.int32]
    token_text: npt.NDArray[np.int32]
    texts: tuple[str, ...]
    """The distinct token texts; `token_text` holds indices into it, ABSENT where the text is not known."""

    def __len__(self) -> int:
        return len(self.index)

    def members(self, i: int) -> slice:
        """The part of the member columns that belongs to step i."""
        return slice(int(self.first_member[i]), int(self.first_member[i + 1]))

    @cached_property
    def member_step(self) -> npt.NDArray[np.int32]:
        """For each member entry the step it belongs to."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.first_member))

    @cached_property
    def token_step(self) -> npt.NDArray[np.int32]:
        """For each new token the step that gave it."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.first_token))

    @cached_property
    def token_request(self) -> npt.NDArray[np.int32]:
        """For each new token the request it belongs to."""
        if bool((self.member_sampled == 1).all()):
            return self.member_request
        return np.repeat(self.member_request, self.member_sampled)

    @cached_property
    def batch(self) -> Ints:
        """Members of each step."""
        return np.diff(self.first_member)

    @cached_property
    def sampled(self) -> Ints:
        """New output tokens of each step."""
        return np.diff(self.first_token)


@dataclass(frozen=True)
class Stays:
    """The stays of requests in slots, as columns in the order of admission.

    A stay begins with the schedule of step `first_step` and ends with `last_step`: at its end where the request
    finished in it, at the start of the step after it where the request was preempted (`preempted`). An unfinished stay
    has last_step = ABSENT.
    """

    request: Ints
    slot: Ints
    cached: Ints
    first_step: Ints
    last_step: Ints
    preempted: npt.NDArray[np.bool_]
    from_ns: Ints
    to_ns: Ints
    """End of the stay; the largest int64 where it has none."""


@dataclass(frozen=True)
class Grants:
    """Changes of the block tables: `block` was appended to the table of `request` in the schedule of `step`."""

    step: Ints
    request: Ints
    block: Ints


@dataclass(frozen=True)
class Trace:
    """One run of one engine, read from a file by `Trace.read`."""

    path: Path
    header: Header
    arrivals: tuple[Arrival, ...]
    arrival_lines: tuple[int, ...]
    steps: Steps
    stays: Stays
    grants: Grants
    endings: dict[int, tuple[int, str, int]]
    """request -> (time in ns, reason, line) of its end."""
    end: End | None
    cut: str | None
    """Why the recording is not whole, or None."""
    digest: str
    """SHA-256 (hex) of the records before the end record: the trace's identity."""

    @classmethod
    def read(cls, path: Path | str, *, tokens: bool = True) -> "Trace":
        """Read a trace file; without `tokens` as if it did not say their ids and texts, which no metric needs.

        Raises TraceError where the file is not a trace, is of a newer schema, or a record is malformed; a file that
        only ends too early is read up to its last whole record and says so in `cut`.
        """
        return _Loader(Path(path), tokens=tokens).load()

    @property
    def name(self) -> str:
        """The first 12 digits of the digest: enough to tell traces apart on screen."""
        return self.digest[:12]

    @cached_property
    def token_order(self) -> tuple[npt.NDArray[np.int32], Ints]:
        """The new tokens by request: (indices into the token columns, first entry of each request; one more)."""
        return group_by(self.steps.token_request, len(self.arrivals))

    def tokens_of(self, request: int) -> npt.NDArray[np.int32]:
        """Indices into the token columns of the request's output tokens, in order."""
        order, bounds = self.token_order
        return order[bounds[request] : bounds[request + 1]]

    def token_times(self, request: int) -> Ints:
        """The time (ns) at which each output token of the request was on the host."""
        return self.steps.end_ns[self.steps.token_step[self.tokens_of(request)]]

    def texts_of(self, request: int) -> tuple[str, ...] | None:
        """The texts of the request's output tokens, or None where the trace does not hold them."""
        codes = self.steps.token_text[self.tokens_of(request)]
        if (codes == ABSENT).any():
            return None
        return tuple(self.steps.texts[code] for code in codes)

    @property
    def missing_steps(self) -> int:
        """Steps that the engine made and the file does not hold: the recorder could not follow and dropped them."""
        gaps = int(self.steps.index[-1]) + 1 - len(self.steps) if len(self.steps) else 0
        return max(gaps, self.end.dropped if self.end else 0)

    @cached_property
    def step_slots(self) -> Ints:
        """For each step the slots it could fill: all, or those of its replica in a merged trace."""
        of_replica = [replica.slots for replica in self.header.replicas] or [self.header.slots]
        return np.array(of_replica, dtype=np.int64)[self.steps.replica]

    @property
    def span_ns(self) -> tuple[int, int]:
        """First arrival and end of the last step (0, 0 for an empty trace)."""
        first = min((arrival.arrival_ns for arrival in self.arrivals), default=0)
        return first, int(self.steps.end_ns[-1]) if len(self.steps) else first


NEVER_NS = np.iinfo(np.int64).max
_GROUP_CHUNK = 2**20


def group_by(keys: npt.NDArray[np.int32], count: int) -> tuple[npt.NDArray[np.int32], Ints]:
    """The indices of `keys` (each 0 … count - 1) by key, in their order: (indices, first entry of each key; one more).

    A counting sort, a piece at a time: numpy's argsort would take three times the memory and the time.
    """
    bounds = np.zeros(count + 1, dtype=np.int64)
    for start in range(0, len(keys), _GROUP_CHUNK):
        bounds[1:] += np.bincount(keys[start : start + _GROUP_CHUNK], minlength=count)
    np.cumsum(bounds, out=bounds)
    order = np.empty(len(keys), dtype=np.int32)
    free = bounds[:-1].copy()
    for start in range(0, len(keys), _GROUP_CHUNK):
        piece = keys[start : start + _GROUP_CHUNK]
        here = np.argsort(piece, kind="stable")
        piece = piece[here]
        first = np.flatnonzero(np.diff(piece, prepend=-1))
        size = np.diff(first, append=len(piece))
        order[np.arange(len(piece)) + np.repeat(free[piece[first]] - first, size)] = here + start
        free[piece[first]] += size
    return order, bounds


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


_STEP_SCALARS = (
    *("line", "index", "start_ns", "end_ns", "scheduled_ns", "device_ns", "device_gap_ns", "latency_ns", "kv_used"),
    *("waiting", "running", "padding", "replica", "first_member", "first_token"),
)


class _Loader:
    """Feeds records into growing arrays, then freezes them into a Trace."""

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
        self.stays: dict[str, list[int]] = {
            name: []
            for name in ("request", "slot", "cached", "first_step", "last_step", "preempted", "from_ns", "to_ns")
        }
        self.open_stays: dict[int, int] = {}
        self.grants = {name: array("q") for name in ("step", "request", "block")}

    def fail(self, message: str, line: int) -> TraceError:
        return TraceError(self.path, message, line)

    def load(self) -> Trace:
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
            self.close_stay(event.request, self.steps - 1, event.at_ns, False)
            self.endings[event.request] = (event.at_ns, event.reason, number)
        elif isinstance(event, End):
            self.end = event
        else:
            raise self.fail("a second header", number)

    def known(self, request: int, number: int) -> None:
        if request >= len(self.arrivals):
            raise self.fail(f"request {request} has not arrived", number)

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
        if step.replica not in self.places:
            raise self.fail(f"replica: {step.replica} is not among those of the header", number)
        i = self.steps
        may_lack = (step.scheduled_ns, step.device_ns, step.device_gap_ns, step.latency_ns, step.kv_used)
        self.scalars.fromlist(
            [
                *(number, step.index, step.start_ns, step.end_ns),
                *[ABSENT if value is None else value for value in may_lack],
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
            self.close_stay(request, i - 1, step.start_ns, True)
        for admission in step.admitted:
            self.known(admission.request, number)
            self.open_stay(admission.request, admission.slot, admission.cached, i, step.start_ns)
        for grant in step.blocks:
            self.known(grant.request, number)
            self.grants["step"].extend([i] * len(grant.blocks))
            self.grants["request"].extend([grant.request] * len(grant.blocks))
            self.grants["block"].extend(grant.blocks)
        for ending in step.finished:
            self.known(ending.request, number)
            self.close_stay(ending.request, i, step.end_ns, False)
            self.endings[ending.request] = (step.end_ns, ending.reason, number)

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

    def open_stay(self, request: int, slot: int, cached: int, step: int, at_ns: int) -> None:
        self.open_stays[request] = len(self.stays["request"])
        row = (request, slot, cached, step, ABSENT, 0, at_ns, NEVER_NS)
        for column, value in zip(self.stays.values(), row, strict=True):
            column.append(value)

    def close_stay(self, request: int, step: int, at_ns: int, preempted: bool) -> None:
        i = self.open_stays.pop(request, None)
        if i is not None:
            self.stays["last_step"][i] = step
            self.stays["to_ns"][i] = at_ns
            self.stays["preempted"][i] = preempted

    def freeze(self, cut: str | None) -> Trace:
        assert self.header is not None
        stays: dict[str, Any] = {name: np.array(column, dtype=np.int64) for name, column in self.stays.items()}
        stays["preempted"] = stays["preempted"].astype(bool)
        self.scalars.extend((*[0] * (len(_STEP_SCALARS) - 2), self.members, self.new_tokens))
        scalars = dict(
            zip(_STEP_SCALARS, np.array(_int64(self.scalars).reshape(-1, len(_STEP_SCALARS)).T), strict=True)
        )
        firsts = {name: scalars.pop(name) for name in ("first_member", "first_token")}
        # Of what was not kept every entry is the same one.
        unknown = np.broadcast_to(np.int32(ABSENT), self.new_tokens)
        steps = Steps(
            member_request=self.requests.freeze(),
            member_slot=self.slots.freeze(),
            member_decode=np.frombuffer(self.phases, dtype=np.uint8) == ord("D"),
            member_position=self.positions.freeze(),
            member_computed=self.computed.freeze(),
            member_sampled=self.sampled.freeze(),
            member_drafted=self.drafted.freeze() if self.drafted else None,
            token_id=self.token_id.freeze() if self.keeps_tokens else unknown,
            token_text=self.token_text.freeze() if self.keeps_tokens else unknown,
            texts=tuple(self.text_codes),
            **firsts,
            **{name: column[:-1] for name, column in scalars.items()},
        )
        return Trace(
            path=self.path,
            header=self.header,
            arrivals=tuple(self.arrivals),
            arrival_lines=tuple(self.arrival_lines),
            steps=steps,
            stays=Stays(**stays),
            grants=Grants(**{name: _int64(column) for name, column in self.grants.items()}),
            endings=self.endings,
            end=self.end,
            cut=cut,
            digest=self.reader.digest if self.end is not None else self.reader.digest_all,
        )
