"""What bound each step: why no further request was admitted to it, by the rule in `SCHEMA.md` (What bound a step).

Knows one trace.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from tracereel.trace.format.events import KvGroup
from tracereel.trace.state.columns import ABSENT, NEVER_NS, Ints, Trace, group_by
from tracereel.trace.state.timeline import Timeline

BOUNDS = ("nobody_waiting", "slots", "token_budget", "kv_blocks", "policy", "kv_loading", "unknown")
NOBODY_WAITING, SLOTS, TOKEN_BUDGET, KV_BLOCKS, POLICY, KV_LOADING, UNKNOWN = range(len(BOUNDS))
WORDS = {
    "nobody_waiting": "nobody waiting",
    "slots": "slots",
    "token_budget": "token budget",
    "kv_blocks": "KV blocks",
    "policy": "policy",
    "kv_loading": "KV loading",
    "unknown": "not known",
}
"""What each bound is called in a table and in a figure."""
_CLOSED = ("static", "dynamic")
"""Policies whose batch takes nobody in once it decodes."""
_UNDECIDED = -1


def step_bounds(trace: Trace) -> Ints:
    """For each step what bound it, as an index into BOUNDS."""
    steps, header = trace.steps, trace.header
    computed = np.bincount(steps.member_step, weights=steps.member_computed, minlength=len(steps))[: len(steps)]
    prefills, decodes = np.zeros((2, len(steps)), bool)
    prefills[steps.member_step[~steps.member_decode]] = True
    decodes[steps.member_step[steps.member_decode]] = True
    bounds = np.full(len(steps), _UNDECIDED, dtype=np.int64)
    # What stands further up in the rule is written later.
    if header.token_budget is not None:
        bounds[computed >= header.token_budget] = TOKEN_BUDGET
    residencies = trace.residencies
    bounds[residencies.last_step[residencies.preempted] + 1] = KV_BLOCKS
    if header.policy in _CLOSED:
        bounds[decodes] = POLICY
    bounds[steps.running >= trace.step_slots] = SLOTS
    bounds[steps.waiting == 0] = NOBODY_WAITING
    queue, pool = _Queue(trace), _Pool(trace)
    whole_prompts = prefills & (not _splits_prompts(trace))
    undecided = np.flatnonzero(bounds == _UNDECIDED)
    for step, moment in zip(undecided.tolist(), _moments(trace, undecided), strict=True):
        tokens = queue.tokens_of_next(step, moment)
        left = None if header.token_budget is None else header.token_budget - int(computed[step])
        free = pool.free(step)
        if tokens is None:
            bounds[step] = KV_LOADING if queue.loads(step) else UNKNOWN
        elif free is not None and free < pool.blocks_for(tokens):
            bounds[step] = KV_BLOCKS
        elif left is not None and whole_prompts[step] and tokens > left:
            bounds[step] = TOKEN_BUDGET
        else:
            bounds[step] = UNKNOWN if left is None or free is None else POLICY
    return bounds


def _splits_prompts(trace: Trace) -> bool:
    """Does a prefill of the run end before it gives a token? Then the engine reads prompts in chunks."""
    steps = trace.steps
    unfinished: npt.NDArray[np.bool_] = ~steps.member_decode & (steps.member_sampled == 0)
    return bool(unfinished.any())


def _moments(trace: Trace, chosen: Ints) -> list[int]:
    """A number for each of the chosen steps, the same for those between which nobody came, entered, left or ended."""
    at_ns, residencies = trace.steps.start_ns[chosen], trace.residencies
    came = np.array([arrival.arrival_ns for arrival in trace.arrivals], dtype=np.int64)
    ended = np.array([at for at, _, _ in trace.endings.values()], dtype=np.int64)
    events = (came, ended, residencies.from_ns, residencies.to_ns)
    counts = np.stack([np.searchsorted(np.sort(times), at_ns, side="right") for times in events])
    numbers: list[int] = np.cumsum(np.diff(counts, prepend=counts[:, :1]).any(axis=0)).tolist()
    return numbers


class _Queue:
    """Who is next in line when a step's schedule is made: of those that wait, the one that is admitted first.

    An engine may have any order of its own; that of `Timeline.waiting_at` counts among those that are never admitted.
    Must be asked for steps in their order.
    """

    def __init__(self, trace: Trace):
        self._trace, self._timeline = trace, Timeline(trace)
        self._replicas = [replica.replica for replica in trace.header.replicas]
        self._loading: dict[int, set[int]] = {}
        for step, request in zip(trace.loading.step.tolist(), trace.loading.request.tolist(), strict=True):
            self._loading.setdefault(step, set()).add(request)
        request = trace.residencies.request
        order, bounds = group_by(request.astype(np.int32), len(trace.arrivals))
        # For each request its next admission (index into the residencies), for each admission the same request's next.
        self._next = np.full(len(trace.arrivals), NEVER_NS, dtype=np.int64)
        self._after = np.full(len(request), NEVER_NS, dtype=np.int64)
        for i, (first, end) in enumerate(pairwise(bounds.tolist())):
            own = order[first:end]
            self._next[i] = own[0] if len(own) else NEVER_NS
            self._after[own[:-1]] = own[1:]
        self._passed = 0
        self._known: dict[int, tuple[int, int | None]] = {}
        """For each replica the newest moment that was asked for, and the answer."""

    def loads(self, step: int) -> bool:
        """Does a request wait for KV from elsewhere in the step?"""
        return step in self._loading

    def tokens_of_next(self, step: int, moment: int) -> int | None:
        """Tokens of the next in line, its prompt and what it wrote before a preemption; None where nobody is.

        Steps of the same `moment` find the same queue, less what each says is loading.
        """
        if step in self._loading:
            return self._find(step)
        replica = int(self._trace.steps.replica[step])
        if self._known.get(replica, (_UNDECIDED, None))[0] != moment:
            self._known[replica] = moment, self._find(step)
        return self._known[replica][1]

    def _find(self, step: int) -> int | None:
        trace, at_ns = self._trace, int(self._trace.steps.start_ns[step])
        waiting = self._timeline.waiting_at(at_ns)
        if self._replicas:
            replica = self._replicas[int(trace.steps.replica[step])]
            waiting = tuple(request for request in waiting if trace.arrivals[request].replica == replica)
        if loading := self._loading.get(step):
            waiting = tuple(request for request in waiting if request not in loading)
        if not waiting:
            return None
        self._pass(step)
        request = waiting[int(np.argmin(self._next[list(waiting)]))]
        return trace.arrivals[request].prompt_tokens + self._timeline.at(at_ns).output_tokens_of(request)

    def _pass(self, step: int) -> None:
        """Leave the admissions of this step and of those before behind."""
        residencies = self._trace.residencies
        until = int(np.searchsorted(residencies.first_step, step, side="right"))
        for admission in range(self._passed, until):
            self._next[residencies.request[admission]] = self._after[admission]
        self._passed = max(self._passed, until)


class _Pool:
    """The KV blocks: how many are free, and how many some tokens take."""

    def __init__(self, trace: Trace):
        self._trace, header = trace, trace.header
        self._totals = [replica.kv_blocks for replica in header.replicas] or [header.kv_blocks]
        self._size, self._groups = header.kv_block_tokens, header.kv_groups

    def free(self, step: int) -> int | None:
        """Blocks that nobody holds once the step's schedule is made; None where the trace does not say."""
        total, used = self._totals[int(self._trace.steps.replica[step])], int(self._trace.steps.kv_used[step])
        return None if total is None or used == ABSENT or not self._size else total - used

    def blocks_for(self, tokens: int) -> int:
        """Blocks that so many tokens of one request take, in the tables of all groups together."""
        if not self._groups:
            return -(-tokens // (self._size or 1))
        return sum(self._of_group(group, tokens) for group in self._groups)

    def _of_group(self, group: KvGroup, tokens: int) -> int:
        size = group.block_tokens or self._size or 1
        blocks = -(-tokens // size)
        budget = self._trace.header.token_budget
        if group.window is None or budget is None:
            return blocks
        # The blocks before the window are given back from step to step.
        return min(blocks, -(-(group.window - 1 + budget) // size) + 1)


def bound_shares(trace: Trace) -> dict[str, float]:
    """Of the steps' time together, the share that each bound has; every one of BOUNDS, none for a run without steps."""
    steps = trace.steps
    spans = (steps.end_ns - steps.start_ns).astype(np.float64)
    total = float(spans.sum())
    if not total:
        return {}
    shares = np.bincount(step_bounds(trace), weights=spans, minlength=len(BOUNDS)) / total
    return dict(zip(BOUNDS, shares.tolist(), strict=True))
