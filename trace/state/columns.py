"""A whole trace in memory, as columns: small enough for millions of steps, quick enough for numpy.

Knows how to hand out one request's or one step's part of them. Does not check that they make sense together (`check`)
and computes no metric (`analysis`).
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tracereel.trace.format.events import Arrival, End, Header
from tracereel.trace.format.storage import TraceError
from tracereel.trace.state.device_spans import step_spans
from tracereel.trace.state.loading import Records, load
from tracereel.trace.state.values import ABSENT, NEVER_NS, Ints, SmallInts

__all__ = [
    "ABSENT",
    "NEVER_NS",
    "BrokenTraceError",
    "Grants",
    "GroupGrants",
    "GroupReleases",
    "Ints",
    "Residencies",
    "SmallInts",
    "Steps",
    "Trace",
    "group_by",
]


@dataclass(frozen=True)
class Steps:
    """The steps as columns; entry i of each belongs to the i-th step of the file.

    The members of step i are the entries `first_member[i]` to `first_member[i + 1]` of the member columns, their new
    tokens the entries `first_token[i]` to `first_token[i + 1]` of the token columns. Times are in nanoseconds on the
    recording process's clock.
    """

    line: Ints
    index: Ints
    start_ns: Ints
    end_ns: Ints
    """What the step took and when its tokens were there: by the device where it measured, else by the host."""
    host_start_ns: Ints
    host_end_ns: Ints
    """The times that the host wrote down: `start_ns` and `end_ns` of the records."""
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

    @property
    def host_late_ns(self) -> Ints:
        """How long after the end of each step the host had its tokens; 0 where only the host measured."""
        return self.host_end_ns - self.end_ns

    @cached_property
    def batch(self) -> Ints:
        """Members of each step."""
        return np.diff(self.first_member)

    @cached_property
    def sampled(self) -> Ints:
        """New output tokens of each step."""
        return np.diff(self.first_token)


@dataclass(frozen=True)
class Residencies:
    """The residencies of requests in slots, as columns in the order of admission.

    A residency begins with the schedule of step `first_step` and ends with `last_step`: at its end where the request
    finished in it, at the start of the step after it where the request was preempted (`preempted`). An unfinished one
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
    """End of the residency; the largest int64 where it has none."""


@dataclass(frozen=True)
class Grants:
    """Changes of the block tables: `block` was appended to the table of `request` in the schedule of `step`."""

    step: Ints
    request: Ints
    block: Ints


@dataclass(frozen=True)
class GroupGrants:
    """`block` was put at `place` of the table that `request` has for `group` of layers, in the schedule of `step`."""

    step: Ints
    request: Ints
    group: Ints
    place: Ints
    block: Ints


@dataclass(frozen=True)
class GroupReleases:
    """`block` left the table that `request` has for `group`, in the schedule of `step`, while the request ran on."""

    step: Ints
    request: Ints
    group: Ints
    block: Ints


@dataclass(frozen=True)
class Loadings:
    """In `step`, `request` waited for KV from elsewhere and held so many `blocks`."""

    step: Ints
    request: Ints
    blocks: Ints


@dataclass(frozen=True)
class Trace:
    """One run of one engine, read from a file by `Trace.read`."""

    path: Path
    header: Header
    arrivals: tuple[Arrival, ...]
    arrival_lines: tuple[int, ...]
    steps: Steps
    residencies: Residencies
    grants: Grants
    group_grants: GroupGrants
    group_releases: GroupReleases
    loading: Loadings
    endings: dict[int, tuple[int, str, int]]
    """request -> (time in ns, reason, line) of its end."""
    end: End | None
    cut: str | None
    """Where and why the recording ends too early, or None."""
    broken: str | None
    """Why the file does not hold what was recorded, or None."""
    digest: str
    """SHA-256 (hex) of the records before the end record: the trace's identity."""
    by_device: bool
    """Are the steps' times those that the device measured?"""

    @classmethod
    def read(cls, path: Path | str, *, tokens: bool = True, allow_broken: bool = False) -> "Trace":
        """Read a trace file; without `tokens` as if it did not say their ids and texts, which no metric needs.

        A file that only ends too early is read up to its last whole record and says so in `cut`. Raises TraceError
        where the file is not a trace, is of a newer schema, or a record is malformed; BrokenTraceError where it does
        not hold what was recorded, unless `allow_broken`: then `broken` says why.
        """
        trace = cls._of(Path(path), load(Path(path), tokens=tokens))
        if trace.broken and not allow_broken:
            raise BrokenTraceError(trace.path, f"{trace.broken}; --allow-broken takes it all the same and says so")
        return trace

    @classmethod
    def _of(cls, path: Path, records: Records) -> "Trace":
        times = records.steps
        start_ns, end_ns = step_spans(times)
        steps = Steps(start_ns=start_ns, end_ns=end_ns, **times)
        moved = start_ns is not times["host_start_ns"]
        residencies, endings = records.residencies, records.endings
        if moved:
            residencies, endings = _moved(steps, records)
        return cls(
            path=path,
            header=records.header,
            arrivals=records.arrivals,
            arrival_lines=records.arrival_lines,
            steps=steps,
            residencies=Residencies(**residencies),
            grants=Grants(**records.grants),
            group_grants=GroupGrants(**records.group_grants),
            group_releases=GroupReleases(**records.group_releases),
            loading=Loadings(**records.loading),
            endings=endings,
            end=records.end,
            cut=records.cut,
            broken=_broken(records),
            digest=records.digest,
            by_device=moved,
        )

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
        if request not in self._texts_of:
            codes = self.steps.token_text[self.tokens_of(request)].tolist()
            self._texts_of[request] = None if ABSENT in codes else tuple(self.steps.texts[code] for code in codes)
        return self._texts_of[request]

    @cached_property
    def _texts_of(self) -> dict[int, tuple[str, ...] | None]:
        """What `texts_of` has given: a film asks for parts of an answer token by token."""
        return {}

    @property
    def missing_steps(self) -> int:
        """Steps that the engine made and the file does not hold: the recorder could not follow and dropped them."""
        return _missing(self.steps.index, self.end)

    @property
    def faulty(self) -> bool:
        """Is it broken, or cut off before its end?"""
        return self.broken is not None or self.cut is not None

    @cached_property
    def caveats(self) -> tuple[str, ...]:
        """What must be said with every figure of this trace: that it is broken or cut off, or whose times it has."""
        said = []
        if self.broken:
            said.append(f"This recording is broken: {self.broken}.")
        if self.cut:
            said.append(f"This recording is not whole: {self.cut}.")
        late_ms = self.steps.host_late_ns / 1e6
        if len(late_ms) and late_ms.max() >= _LATE_MS:
            said.append(
                f"Steps and tokens have the device's times: the host came up to {late_ms.max():,.1f} ms later (median"
                f" {np.median(late_ms):,.2f} ms)."
            )
        return tuple(said)

    @cached_property
    def step_slots(self) -> Ints:
        """For each step the slots it could fill: all, or those of its replica in a merged trace."""
        of_replica = [replica.slots for replica in self.header.replicas] or [self.header.slots]
        return np.array(of_replica, dtype=np.int64)[self.steps.replica]

    @cached_property
    def span_ns(self) -> tuple[int, int]:
        """First arrival and end of the last step (0, 0 for an empty trace)."""
        first = min((arrival.arrival_ns for arrival in self.arrivals), default=0)
        return first, int(self.steps.end_ns[-1]) if len(self.steps) else first


_LATE_MS = 1.0
"""So late a host has to come once that it is said."""


class BrokenTraceError(TraceError):
    """A file that does not hold what was recorded."""


def _missing(index: Ints, end: End | None) -> int:
    gaps = int(index[-1]) + 1 - len(index) if len(index) else 0
    return max(gaps, end.dropped if end else 0)


def _broken(records: Records) -> str | None:
    """Why the records are not those of the run, or None; that they end too early is another matter."""
    index, stated = records.steps["index"], records.header.workload.requests
    if not records.digest_agrees:
        return "the records are not those that were written (the digest differs)"
    if missing := _missing(index, records.end):
        return f"{missing} of {len(index) + missing} steps are missing"
    count = len(records.arrivals)
    if stated is not None and (count > stated or (count < stated and not records.cut)):
        return f"it holds {count} requests, its workload has {stated}"
    return None


def _moved(steps: Steps, records: Records) -> tuple[dict[str, npt.NDArray[Any]], dict[int, tuple[int, str, int]]]:
    """Residencies and endings at the times of `steps` where they follow a step's."""
    held = dict(records.residencies)
    request, last, preempted = held["request"], held["last_step"], held["preempted"]
    lines = steps.line.tolist()
    ends = dict(records.endings)
    by_step = np.zeros(len(request), bool)
    for i in np.flatnonzero((last != ABSENT) & ~preempted).tolist():
        _, reason, line = ends[int(request[i])]
        if lines[last[i]] == line:
            by_step[i] = True
            ends[int(request[i])] = (int(steps.end_ns[last[i]]), reason, line)
    to_ns = held["to_ns"].copy()
    to_ns[preempted] = steps.start_ns[last[preempted] + 1]
    to_ns[by_step] = steps.end_ns[last[by_step]]
    held["from_ns"] = steps.start_ns[held["first_step"]]
    held["to_ns"] = np.maximum(to_ns, held["from_ns"])
    return held, ends


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
