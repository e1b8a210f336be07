"""The state of a run at any instant: which requests wait, which hold which slot, what tokens and blocks there are.

`Timeline(trace).at(t)` is a pure function of the trace and of t. Knows nothing of films: no colours, no frames, no
film time.

What holds when: a step's schedule (preemptions, admissions, blocks) takes effect at its start, its tokens and endings
at its end, each at that very nanosecond.
"""

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np
import numpy.typing as npt
from tracereel.trace.state.columns import ABSENT, Ints, Trace, group_by
from tracereel.trace.state.group_tables import GroupTables, Table
from tracereel.trace.state.waits import Waits

_LOOK_BACK = 64
"""Steps that are searched for a request's newest entry before all its entries are looked up."""


@dataclass(frozen=True)
class SlotOccupancy:
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
        self.started = timeline.steps_started(t_ns)
        """Steps whose schedule has been made."""
        self.ended = timeline.steps_ended(t_ns)
        """Steps whose tokens are out."""
        self.output_tokens = timeline.output_tokens_at(t_ns)
        """Output tokens of all requests so far."""

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """The steps that run now, one a replica at most."""
        return self._timeline.running_steps(self.t_ns) if self.started > self.ended else ()

    @property
    def step(self) -> int | None:
        """The step that runs now, of several replicas the one that began last, or None between steps."""
        return max(self.steps, default=None)

    @cached_property
    def waiting(self) -> tuple[int, ...]:
        """The requests in the waiting queue: by priority, then preempted ones first, then by arrival."""
        return self._timeline.waiting_at(self.t_ns)

    @cached_property
    def occupancy(self) -> tuple[SlotOccupancy | None, ...]:
        """For each slot the request that holds it, or None."""
        return self._timeline.occupancy_at(self)

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
        return self._timeline.residency_count(self.t_ns)

    @property
    def num_waiting(self) -> int:
        """Requests in the waiting queue."""
        return self.num_arrived - self.num_finished - self.num_running

    @property
    def kv_used(self) -> int | None:
        """KV blocks held, as the newest schedule left them; None where the trace does not say."""
        return self._timeline.kv_used_at(self.t_ns)

    @cached_property
    def block_holders(self) -> dict[int, tuple[int, ...]]:
        """For each KV block that is held the requests whose block tables it stands in, in the order of their slots."""
        holders: dict[int, tuple[int, ...]] = {}
        for occupant in self.occupancy:
            if occupant is None:
                continue
            for block in self.blocks_of(occupant.request):
                holders[block] = (*holders.get(block, ()), occupant.request)
        return holders

    def output_tokens_of(self, request: int) -> int:
        """Output tokens of one request so far."""
        return bisect_right(self._timeline.token_times_of(request), self.t_ns)

    def block_table(self, request: int) -> tuple[int, ...]:
        """The KV blocks the request holds, in the order of its tokens."""
        return self._timeline.block_table_at(request, self.t_ns)

    def group_tables(self, request: int) -> tuple[Table, ...]:
        """Its block tables by group of layers, each as the block at each place; empty where there are no groups."""
        return self._timeline.group_tables_at(request, self.t_ns)

    def freed_places(self, request: int) -> tuple[tuple[int, ...], ...]:
        """For each group of layers the places of the request's table whose block was freed while it held its slot."""
        return self._timeline.freed_places_at(request, self.t_ns)

    def blocks_of(self, request: int) -> tuple[int, ...]:
        """All KV blocks that the request holds, of whichever group."""
        tables = self.group_tables(request)
        return tuple(block for table in tables for block in table.values()) if tables else self.block_table(request)


class Timeline:
    """Answers `at(t)` for one trace; t is engine time in nanoseconds since the trace's zero."""

    def __init__(self, trace: Trace):
        self.trace = trace
        steps, residencies = trace.steps, trace.residencies
        self.arrival_times: list[int] = sorted(arrival.arrival_ns for arrival in trace.arrivals)
        ended = sorted((at, request) for request, (at, _, _) in trace.endings.items())
        self.ended_times: list[int] = [at for at, _ in ended]
        self.ended_order: tuple[int, ...] = tuple(request for _, request in ended)
        self._residency_starts = np.sort(residencies.from_ns)
        self._residency_ends = np.sort(residencies.to_ns)
        # Steps of different replicas overlap: what is out by some time is counted in the order in which they end.
        in_order = np.argsort(steps.end_ns, kind="stable")
        self._ends = steps.end_ns[in_order]
        self._tokens = np.concatenate([[0], np.cumsum(steps.sampled[in_order])])
        idle = (trace.step_slots - steps.batch)[in_order]
        self._idle = np.concatenate([[0], np.cumsum(idle)])
        self._idle_while_waiting = np.concatenate([[0], np.cumsum(np.where(steps.waiting[in_order] > 0, idle, 0))])
        self._replicas = _replicas(trace)
        self._waits = Waits(trace)
        self._priorities = np.array([arrival.priority for arrival in trace.arrivals], dtype=np.int64)
        self._residencies_of_slot = _Residencies(trace, residencies.slot, trace.header.slots)
        self._residencies_of_request = _Residencies(trace, residencies.request, len(trace.arrivals))
        self.token_times_of = lru_cache(maxsize=4096)(self._token_times_of)
        """The token times (ns) of a request, as a list."""
        self._state_at = lru_cache(maxsize=4)(partial(State, self))  # one frame asks many times for its instant

    def at(self, t_ns: int) -> State:
        """The state at engine time t_ns."""
        return self._state_at(t_ns)

    @cached_property
    def begin_ns(self) -> int:
        """First arrival, or the first step's start where that is earlier; 0 where there is neither."""
        starts = [*self.arrival_times[:1], *self.trace.steps.start_ns[:1].tolist()]
        return min(starts, default=0)

    @property
    def end_ns(self) -> int:
        """End of the last step."""
        return self.trace.span_ns[1]

    def steps_started(self, t_ns: int) -> int:
        """How many steps have started at t."""
        return int(np.searchsorted(self.trace.steps.start_ns, t_ns, side="right"))

    def steps_ended(self, t_ns: int) -> int:
        """How many steps have ended at t."""
        return int(np.searchsorted(self._ends, t_ns, side="right"))

    def output_tokens_at(self, t_ns: int) -> int:
        """Output tokens of all requests at t."""
        return int(self._tokens[self.steps_ended(t_ns)])

    def idle_slot_steps_at(self, t_ns: int) -> int:
        """Slots x steps - members, of the steps that have ended at t."""
        return int(self._idle[self.steps_ended(t_ns)])

    def idle_while_waiting_at(self, t_ns: int) -> int:
        """Slots x steps - members, of the steps that have ended at t and left requests in the queue."""
        return int(self._idle_while_waiting[self.steps_ended(t_ns)])

    def running_steps(self, t_ns: int) -> tuple[int, ...]:
        """The steps that run at t, one a replica at most."""
        newest = (replica.newest_started(t_ns) for replica in self._replicas)
        return tuple(step for step in newest if step is not None and self.trace.steps.end_ns[step] > t_ns)

    def kv_used_at(self, t_ns: int) -> int | None:
        """KV blocks held, as each replica's newest schedule left them; None where one does not say."""
        newest = [replica.newest_started(t_ns) for replica in self._replicas]
        used = [int(self.trace.steps.kv_used[step]) for step in newest if step is not None]
        return None if ABSENT in used else sum(used)

    def residency_count(self, t_ns: int) -> int:
        """How many requests hold a slot at t."""
        started = np.searchsorted(self._residency_starts, t_ns, side="right")
        return int(started - np.searchsorted(self._residency_ends, t_ns, side="right"))

    def _token_times_of(self, request: int) -> list[int]:
        times: list[int] = self.trace.token_times(request).tolist()
        return times

    def waiting_at(self, t_ns: int) -> tuple[int, ...]:
        """Who waits at t; by priority, then the preempted first, then by arrival."""
        request, rank = self._waits.at(t_ns)
        order = np.lexsort((request, rank, self._priorities[request]))
        return tuple(request[order].tolist())

    def residency_of(self, request: int, t_ns: int) -> int | None:
        """The residency (index into `trace.residencies`) of the request at t, or None."""
        return self._residencies_of_request.at(request, t_ns)

    def occupancy_at(self, state: State) -> tuple[SlotOccupancy | None, ...]:
        """For each slot the request that holds it at the state's time, or None."""
        trace, t_ns = self.trace, state.t_ns
        computing: set[int] = set()
        for step in state.steps:
            computing.update(trace.steps.member_request[trace.steps.members(step)].tolist())
        residencies = [self._residencies_of_slot.at(slot, t_ns) for slot in range(trace.header.slots)]
        taken = {
            int(trace.residencies.request[residency]): residency for residency in residencies if residency is not None
        }
        computed_of = self._computed_at(taken, t_ns)
        occupancy: list[SlotOccupancy | None] = []
        for slot, residency in enumerate(residencies):
            if residency is None:
                occupancy.append(None)
                continue
            request = int(trace.residencies.request[residency])
            output = state.output_tokens_of(request)
            computed = computed_of[request]
            known = trace.arrivals[request].prompt_tokens + output
            occupancy.append(
                SlotOccupancy(
                    request=request,
                    slot=slot,
                    computes=request in computing,
                    prefill=computed < known - 1 or not output,
                    computed_tokens=computed,
                    output_tokens=output,
                )
            )
        return tuple(occupancy)

    def _computed_at(self, residency_of: dict[int, int], t_ns: int) -> dict[int, int]:
        """Tokens with KV of each request in its residency: from its newest entry among the residency's ended steps."""
        residencies, arrivals = self.trace.residencies, self.trace.arrivals
        found = {request: int(residencies.cached[residency]) for request, residency in residency_of.items()}
        for replica in self._replicas:
            ended = replica.ended_before(t_ns, _LOOK_BACK)
            first_of = {
                request: int(residencies.first_step[residency])
                for request, residency in residency_of.items()
                if ended
                and arrivals[request].replica == replica.number
                and residencies.first_step[residency] <= ended[0]
            }
            for step in ended:
                if not first_of:
                    break
                members = self.trace.steps.members(step)
                for at, request in enumerate(self.trace.steps.member_request[members].tolist(), members.start):
                    if request in first_of and first_of.pop(request) <= step:
                        found[request] = self._reached(at)
            for request, first_step in first_of.items():  # it has not computed for long
                entries = self._entries_of(request)
                steps = self.trace.steps.member_step[entries]
                i = int(np.searchsorted(self.trace.steps.end_ns[steps], t_ns, side="right")) - 1
                if i >= 0 and steps[i] >= first_step:
                    found[request] = self._reached(int(entries[i]))
        return found

    def computed_in(self, residency: int) -> int:
        """Tokens with KV of a request when its residency (index into `trace.residencies`) ended, or now."""
        residencies, steps = self.trace.residencies, self.trace.steps
        entries = self._entries_of(int(residencies.request[residency]))
        last = len(steps) if residencies.last_step[residency] == ABSENT else int(residencies.last_step[residency])
        i = int(np.searchsorted(steps.member_step[entries], last, side="right")) - 1
        if i < 0 or steps.member_step[entries[i]] < residencies.first_step[residency]:
            return int(residencies.cached[residency])
        return self._reached(int(entries[i]))

    def _entries_of(self, request: int) -> npt.NDArray[np.int32]:
        """A request's entries in the member columns, in order."""
        order, bounds = self._member_entries
        return order[slice(*bounds[request : request + 2])]

    def _reached(self, entry: int) -> int:
        """Tokens with KV after the step of a member entry."""
        steps = self.trace.steps
        gained = steps.member_sampled[entry] if steps.member_decode[entry] else steps.member_computed[entry]
        return int(steps.member_position[entry]) + int(gained)

    @cached_property
    def _member_entries(self) -> tuple[npt.NDArray[np.int32], Ints]:
        """For each request its entries in the member columns, in order."""
        return group_by(self.trace.steps.member_request, len(self.trace.arrivals))

    def block_table_at(self, request: int, t_ns: int) -> tuple[int, ...]:
        """The request's block table at t."""
        residency = self.residency_of(request, t_ns)
        if residency is None:
            return ()
        order, bounds = self._grants_of_request
        grants = self.trace.grants
        rows = order[bounds[request] : bounds[request + 1]]
        step = grants.step[rows]
        mine = (step >= self.trace.residencies.first_step[residency]) & (self.trace.steps.start_ns[step] <= t_ns)
        return tuple(grants.block[rows[mine]].tolist())

    def blocks_before(self, request: int, t_ns: int) -> int:
        """How many blocks the request was given in earlier stays than the one at t: its table begins after them."""
        residency = self.residency_of(request, t_ns)
        if residency is None:
            raise ValueError(f"request {request} does not run at {t_ns} ns")
        order, bounds = self._grants_of_request
        steps = self.trace.grants.step[order[bounds[request] : bounds[request + 1]]]
        return int((steps < self.trace.residencies.first_step[residency]).sum())

    def group_tables_at(self, request: int, t_ns: int) -> tuple[Table, ...]:
        """The request's block tables by group of layers at t; () where the trace has no groups."""
        return self._group_tables.at(request, self._grouped(request, t_ns), self.steps_started(t_ns))

    def freed_places_at(self, request: int, t_ns: int) -> tuple[tuple[int, ...], ...]:
        """The places of the request's tables whose block was freed by t in this stay; () where there are no groups."""
        return self._group_tables.freed_at(request, self._grouped(request, t_ns), self.steps_started(t_ns))

    def _grouped(self, request: int, t_ns: int) -> int | None:
        """The residency of the request at t in a trace with groups."""
        return self.residency_of(request, t_ns) if self.trace.header.kv_groups else None

    @cached_property
    def _group_tables(self) -> GroupTables:
        return GroupTables(self.trace)

    @cached_property
    def _grants_of_request(self) -> tuple[npt.NDArray[np.int32], Ints]:
        return group_by(self.trace.grants.request.astype(np.int32), len(self.trace.arrivals))


class _Replica:
    """The steps of one replica, which do not overlap."""

    def __init__(self, number: int, steps: Ints, start_ns: Ints, end_ns: Ints):
        self.number = number
        self._steps, self._start_ns, self._end_ns = steps, start_ns, end_ns

    def newest_started(self, t_ns: int) -> int | None:
        """The step that began last, at t or before."""
        i = int(np.searchsorted(self._start_ns, t_ns, side="right")) - 1
        return int(self._steps[i]) if i >= 0 else None

    def ended_before(self, t_ns: int, most: int) -> list[int]:
        """The last steps that have ended at t, the newest first."""
        i = int(np.searchsorted(self._end_ns, t_ns, side="right"))
        return list(reversed(self._steps[max(i - most, 0) : i].tolist()))


def _replicas(trace: Trace) -> tuple[_Replica, ...]:
    steps = trace.steps
    replicas = []
    for place, number in enumerate([replica.replica for replica in trace.header.replicas] or [0]):
        own = np.flatnonzero(steps.replica == place)
        replicas.append(_Replica(number, own, steps.start_ns[own], steps.end_ns[own]))
    return tuple(replicas)


class _Residencies:
    """The residencies by slot or by request: which one holds at some time. Those of one key do not overlap."""

    def __init__(self, trace: Trace, keys: Ints, count: int):
        order, bounds = group_by(keys.astype(np.int32), count)
        # Lists: one number of an array costs more to look at than one of a list.
        self._order: list[int] = order.tolist()
        self._bounds: list[int] = bounds.tolist()
        self._from_ns: list[int] = trace.residencies.from_ns[order].tolist()
        self._to_ns: list[int] = trace.residencies.to_ns[order].tolist()

    def at(self, key: int, t_ns: int) -> int | None:
        """The residency at t, or None."""
        first = self._bounds[key]
        i = bisect_right(self._from_ns, t_ns, first, self._bounds[key + 1]) - 1
        return self._order[i] if i >= first and self._to_ns[i] > t_ns else None
