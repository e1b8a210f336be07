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
from tracereel.trace.decoding import MalformedRecordError, decode_record
from tracereel.trace.events import Arrival, End, Event, Finish, Header, Step
from tracereel.trace.storage import LineReader, TraceError

Ints = npt.NDArray[np.int64]
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
    first_member: Ints
    first_token: Ints
    member_request: npt.NDArray[np.int32]
    member_slot: npt.NDArray[np.int32]
    member_decode: npt.NDArray[np.bool_]
    member_position: npt.NDArray[np.int32]
    member_computed: npt.NDArray[np.int32]
    member_sampled: npt.NDArray[np.int32]
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
    def member_step(self) -> npt.NDArray[np.int64]:
        """For each member entry the step it belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.first_member))

    @cached_property
    def token_step(self) -> npt.NDArray[np.int64]:
        """For each new token the step that gave it."""
        return np.repeat(np.arange(len(self)), np.diff(self.first_token))

    @cached_property
    def token_request(self) -> npt.NDArray[np.int32]:
        """For each new token the request it belongs to."""
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
    def read(cls, path: Path | str) -> "Trace":
        """Read a trace file.

        Raises TraceError where the file is not a trace, is of a newer schema, or a record is malformed; a file that
        only ends too early is read up to its last whole record and says so in `cut`.
        """
        return _Loader(Path(path)).load()

    @property
    def name(self) -> str:
        """The first 12 digits of the digest: enough to tell traces apart on screen."""
        return self.digest[:12]

    @cached_property
    def token_order(self) -> tuple[Ints, Ints]:
        """The new tokens by request: (indices into the token columns, first entry of each request; one more)."""
        request = self.steps.token_request
        order = np.argsort(request, kind="stable")
        bounds = np.searchsorted(request[order], np.arange(len(self.arrivals) + 1))
        return order, bounds

    def tokens_of(self, request: int) -> Ints:
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
    def span_ns(self) -> tuple[int, int]:
        """First arrival and end of the last step (0, 0 for an empty trace)."""
        first = min((arrival.arrival_ns for arrival in self.arrivals), default=0)
        return first, int(self.steps.end_ns[-1]) if len(self.steps) else first


NEVER_NS = np.iinfo(np.int64).max
_STEP_SCALARS = ("index", "start_ns", "end_ns", "scheduled_ns", "device_ns", "waiting", "running", "padding", "kv_used")


def _int64(values: "array[int]") -> Ints:
    return np.frombuffer(values, dtype=np.int64) if len(values) else np.empty(0, np.int64)


def _int32(values: "array[int]") -> npt.NDArray[np.int32]:
    return np.frombuffer(values, dtype=np.int32) if len(values) else np.empty(0, np.int32)


class _Loader:
    """Feeds records into growing arrays, then freezes them into a Trace."""

    def __init__(self, path: Path):
        self.path = path
        self.reader = LineReader(path)
        self.header: Header | None = None
        self.end: End | None = None
        self.arrivals: list[Arrival] = []
        self.arrival_lines: list[int] = []
        self.endings: dict[int, tuple[int, str, int]] = {}
        self.scalars = {name: array("q") for name in _STEP_SCALARS}
        self.line = array("q")
        self.first_member, self.first_token = array("q", [0]), array("q", [0])
        self.columns = {name: array("i") for name in ("requests", "slots", "positions", "computed", "sampled")}
        self.phases = bytearray()
        self.token_id, self.token_text = array("i"), array("i")
        self.text_codes: dict[str, int] = {}
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
            self.close_stay(event.request, len(self.line) - 1, event.at_ns, False)
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
        for name in ("slots", "phases", "positions", "computed", "sampled"):
            if len(getattr(step, name)) != members:
                raise self.fail(f"{name}: {len(getattr(step, name))} entries for {members} requests", number)
        new_tokens = sum(step.sampled)
        if step.tokens is not None and len(step.tokens) != new_tokens:
            raise self.fail(f"tokens: {len(step.tokens)} entries for {new_tokens} sampled tokens", number)
        if step.texts is not None and len(step.texts) != new_tokens:
            raise self.fail(f"texts: {len(step.texts)} entries for {new_tokens} sampled tokens", number)
        for request in step.requests:
            self.known(request, number)
        i = len(self.line)
        self.line.append(number)
        for name, column in self.scalars.items():
            value = getattr(step, name)
            column.append(ABSENT if value is None else value)
        for name, member_column in self.columns.items():
            member_column.extend(getattr(step, name))
        self.phases.extend(step.phases.encode())
        self.first_member.append(self.first_member[-1] + members)
        self.first_token.append(self.first_token[-1] + new_tokens)
        self.token_id.extend(step.tokens if step.tokens is not None else [ABSENT] * new_tokens)
        if step.texts is None:
            self.token_text.extend([ABSENT] * new_tokens)
        else:
            codes = self.text_codes
            self.token_text.extend([codes.setdefault(text, len(codes)) for text in step.texts])
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
        steps = Steps(
            line=_int64(self.line),
            first_member=_int64(self.first_member),
            first_token=_int64(self.first_token),
            member_request=_int32(self.columns["requests"]),
            member_slot=_int32(self.columns["slots"]),
            member_decode=np.frombuffer(bytes(self.phases), dtype=np.uint8) == ord("D"),
            member_position=_int32(self.columns["positions"]),
            member_computed=_int32(self.columns["computed"]),
            member_sampled=_int32(self.columns["sampled"]),
            token_id=_int32(self.token_id),
            token_text=_int32(self.token_text),
            texts=tuple(self.text_codes),
            **{name: _int64(column) for name, column in self.scalars.items()},
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
