"""The state of a run at any instant: who waits, who sits in which slot, which tokens are out, which blocks are held.

`Timeline(trace).at(t)` is a pure function of the trace and of t. Knows nothing of films: no colours, no frames, no
film time.

What holds when: a step's schedule (preemptions, admissions, blocks) takes effect at its start, its tokens and endings
at its end, each at that very nanosecond.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from tracereel.trace.trace import ABSENT, Ints, Trace


@dataclass(frozen=True)
class Seat:
    """A request in a slot at one instant."""

    request: int
    slot: int
    computes: bool
    """Is it a member of the step that runs at this instant?"""
    prefill: bool
    """Does it still lack KV for tokens it already has (its prompt, or all of them after a preemption)?"""
    computed_tokens: int
    """Tokens whose KV is there, the running step's not counted."""
    output_tokens: int


class State:
    """The state of one run at `t_ns`; cheap to make, each part computed when first asked for."""

    def __init__(self, timeline: "Timeline", t_ns: int):
        self._timeline = timeline
        self.t_ns = t_ns
        steps = timeline.trace.steps
        self.started = timeline.steps_started(t_ns)
        """Steps whose schedule has been made."""
        self.ended = timeline.steps_ended(t_ns)
        """Steps whose tokens are out."""
        self.step: int | None = self.started - 1 if self.started > self.ended else None
        """The step that runs now, or None between steps."""
        self.output_tokens = int(steps.first_token[self.ended])
        """Output tokens of all requests so far."""

    @cached_property
    def waiting(self) -> tuple[int, ...]:
        """The requests in the waiting queue: by priority, then preempted ones first, then by arrival."""
        return self._timeline.waiting_at(self.t_ns)

    @cached_property
    def seats(self) -> tuple[Seat | None, ...]:
        """For each slot who sits in it."""
        return self._timeline.seats_at(self)

    @cached_property
    def finished(self) -> tuple[int, ...]:
        """The requests that have ended, in the order of their end."""
        timeline = self._timeline
        return timeline.ended_order[: bisect_right(timeline.ended_times, self.t_ns)]

    @property
    def num_arrived(self) -> int:
        """Requests that have arrived."""
        return bisect_right(self._timeline.arrival_times, self.t_ns)

    @property
    def num_finished(self) -> int:
        """Requests that have ended."""
        return bisect_right(self._timeline.ended_times, self.t_ns)

    @property
    def num_running(self) -> int:
        """Requests that hold a slot."""
        return self._timeline.stay_count(self.t_ns)

    @property
    def num_waiting(self) -> int:
        """Requests in the waiting queue."""
        return self.num_arrived - self.num_finished - self.num_running

    @property
    def kv_used(self) -> int | None:
        """KV blocks held, as the newest schedule left them; None where the trace does not say."""
        if not self.started:
            return 0
        used = int(self._timeline.trace.steps.kv_used[self.started - 1])
        return None if used == ABSENT else used

    def output_tokens_of(self, request: int) -> int:
        """Output tokens of one request so far."""
        return bisect_right(self._timeline.token_times_of(request), self.t_ns)

    def block_table(self, request: int) -> tuple[int, ...]:
        """The KV blocks the request holds, in the order of its tokens."""
        return self._timeline.block_table_at(request, self.t_ns)


class Timeline:
    """Answers `at(t)` for one trace; t is engine time in nanoseconds since the trace's zero."""

    def __init__(self, trace: Trace):
        self.trace = trace
        steps, stays = trace.steps, trace.stays
        # bisect on an array is quicker than numpy's searchsorted for a single value, and keeps memory small.
        self._starts = steps.start_ns
        self._ends = steps.end_ns
        self.arrival_times: list[int] = sorted(arrival.arrival_ns for arrival in trace.arrivals)
        ended = sorted((at, request) for request, (at, _, _) in trace.endings.items())
        self.ended_times: list[int] = [at for at, _ in ended]
        self.ended_order: tuple[int, ...] = tuple(request for _, request in ended)
        self._stay_starts = np.sort(stays.from_ns)
        self._stay_ends = np.sort(stays.to_ns)
        self._token_times: dict[int, list[int]] = {}
        self._waits = _waits(trace)
        self._priorities = np.array([arrival.priority for arrival in trace.arrivals], dtype=np.int64)
        self._stays_of_slot = _group(stays.slot, trace.header.slots)
        self._stays_of_request = _group(stays.request, len(trace.arrivals))

    def at(self, t_ns: int) -> State:
        """The state at engine time t_ns."""
        return State(self, t_ns)

    @cached_property
    def begin_ns(self) -> int:
        """First arrival, or the first step's start where that is earlier; 0 where there is neither."""
        starts = [*self.arrival_times[:1], *self._starts[:1].tolist()]
        return min(starts, default=0)

    @property
    def end_ns(self) -> int:
        """End of the last step."""
        return self.trace.span_ns[1]

    def steps_started(self, t_ns: int) -> int:
        """How many steps have started at t."""
        return int(np.searchsorted(self._starts, t_ns, side="right"))

    def steps_ended(self, t_ns: int) -> int:
        """How many steps have ended at t."""
        return int(np.searchsorted(self._ends, t_ns, side="right"))

    def stay_count(self, t_ns: int) -> int:
        """How many requests hold a slot at t."""
        started = np.searchsorted(self._stay_starts, t_ns, side="right")
        return int(started - np.searchsorted(self._stay_ends, t_ns, side="right"))

    def token_times_of(self, request: int) -> list[int]:
        """The request's token times, ns."""
        times = self._token_times.get(request)
        if times is None:
            times = self._token_times[request] = self.trace.token_times(request).tolist()
        return times

    def waiting_at(self, t_ns: int) -> tuple[int, ...]:
        """Who waits at t; by priority, then the preempted first, then by arrival."""
        begin, end, request, rank = self._waits
        here = np.flatnonzero((begin <= t_ns) & (t_ns < end))
        order = np.lexsort((request[here], rank[here], self._priorities[request[here]]))
        return tuple(request[here[order]].tolist())

    def stay_of(self, request: int, t_ns: int) -> int | None:
        """The stay (index into `trace.stays`) of the request at t, or None."""
        return self._stay_in(self._stays_of_request[request], t_ns)

    def _stay_in(self, candidates: Ints, t_ns: int) -> int | None:
        stays = self.trace.stays
        i = int(np.searchsorted(stays.from_ns[candidates], t_ns, side="right")) - 1
        if i < 0 or stays.to_ns[candidates[i]] <= t_ns:
            return None
        return int(candidates[i])

    def seats_at(self, state: State) -> tuple[Seat | None, ...]:
        """Who sits in each slot at the state's time."""
        trace, t_ns = self.trace, state.t_ns
        members = trace.steps.members(state.step) if state.step is not None else slice(0, 0)
        computing = set(trace.steps.member_request[members].tolist())
        seats: list[Seat | None] = []
        for candidates in self._stays_of_slot:
            stay = self._stay_in(candidates, t_ns)
            if stay is None:
                seats.append(None)
                continue
            request = int(trace.stays.request[stay])
            output = state.output_tokens_of(request)
            computed = self._computed_at(request, stay, state)
            known = trace.arrivals[request].prompt_tokens + output
            seats.append(
                Seat(
                    request=request,
                    slot=int(trace.stays.slot[stay]),
                    computes=request in computing,
                    prefill=computed < known - 1 or not output,
                    computed_tokens=computed,
                    output_tokens=output,
                )
            )
        return tuple(seats)

    def _computed_at(self, request: int, stay: int, state: State) -> int:
        """Tokens of the request with KV, from its newest entry among the ended steps of this stay."""
        entries = self._entries_of(request)
        steps = self.trace.steps
        i = int(np.searchsorted(steps.member_step[entries], state.ended)) - 1
        if i < 0 or steps.member_step[entries[i]] < self.trace.stays.first_step[stay]:
            return int(self.trace.stays.cached[stay])
        entry = entries[i]
        gained = steps.member_sampled[entry] if steps.member_decode[entry] else steps.member_computed[entry]
        return int(steps.member_position[entry] + gained)

    def _entries_of(self, request: int) -> Ints:
        return self._member_entries[request]

    @cached_property
    def _member_entries(self) -> Sequence[Ints]:
        """For each request its entries in the member columns, in order."""
        return _group(self.trace.steps.member_request.astype(np.int64), len(self.trace.arrivals))

    def block_table_at(self, request: int, t_ns: int) -> tuple[int, ...]:
        """The request's block table at t."""
        stay = self.stay_of(request, t_ns)
        if stay is None:
            return ()
        rows = self._grants_of_request[request]
        grants = self.trace.grants
        first = self.trace.stays.first_step[stay]
        step = grants.step[rows]
        return tuple(grants.block[rows[(step >= first) & (step < self.steps_started(t_ns))]].tolist())

    @cached_property
    def _grants_of_request(self) -> Sequence[Ints]:
        return _group(self.trace.grants.request, len(self.trace.arrivals))


class _Group(Sequence[Ints]):
    """The indices of equal keys, by key: `group[k]` are the rows whose key is k, in their order."""

    def __init__(self, keys: Ints, count: int):
        self._order = np.argsort(keys, kind="stable")
        self._bounds = np.searchsorted(keys[self._order], np.arange(count + 1))

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, key: int) -> Ints:  # type: ignore[override]
        if not 0 <= key < len(self):
            raise IndexError(key)
        return self._order[self._bounds[key] : self._bounds[key + 1]]


def _group(keys: Ints, count: int) -> _Group:
    return _Group(keys, count)


def _waits(trace: Trace) -> tuple[Ints, Ints, Ints, npt.NDArray[np.int64]]:
    """Every interval in which a request waited: (from, until, request, rank), rank 0 after a preemption, else 1."""
    never = np.iinfo(np.int64).max
    rows: list[tuple[int, int, int, int]] = []
    stays = trace.stays
    by_request = _group(stays.request, len(trace.arrivals))
    for request, arrival in enumerate(trace.arrivals):
        own = by_request[request]
        ending = trace.endings.get(request)
        first = int(stays.from_ns[own[0]]) if len(own) else (ending[0] if ending else never)
        rows.append((arrival.arrival_ns, first, request, 1))
        rows.extend(
            (int(stays.to_ns[left]), int(stays.from_ns[back]), request, 0) for left, back in pairwise(own.tolist())
        )
        if len(own) and stays.preempted[own[-1]]:
            rows.append((int(stays.to_ns[own[-1]]), ending[0] if ending else never, request, 0))
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return columns[0], columns[1], columns[2], columns[3]
