"""What bound each step: why no further request was admitted to it.

The rule, in this order, from what the trace says when a step's schedule is made:

| bound | when |
|---|---|
| `nobody_waiting` | no request waits |
| `slots` | every slot is held |
| `token_budget` | the step computes as many tokens as it may; or it prefills, and what is left is less than the prompt of the next in line, in a run that never splits a prompt |
| `kv_blocks` | it preempted a request; or fewer KV blocks are free than the next in line needs for its tokens, or for as many of them as the budget takes |
| `policy` | none of these: the engine did not want to, as in a batch that is closed |

KV blocks that the next in line would share with others are not known before it is admitted, and count as needed. Knows
one trace.
"""  # noqa: E501 (a table's rows are one line each)

import numpy as np
import numpy.typing as npt
from tracereel.trace.state.columns import ABSENT, Ints, Trace
from tracereel.trace.state.timeline import Timeline

BOUNDS = ("nobody_waiting", "slots", "token_budget", "kv_blocks", "policy")
NOBODY_WAITING, SLOTS, TOKEN_BUDGET, KV_BLOCKS, POLICY = range(len(BOUNDS))


def step_bounds(trace: Trace) -> Ints:
    """For each step what bound it, as an index into BOUNDS."""
    steps = trace.steps
    bounds = np.full(len(steps), POLICY, dtype=np.int64)
    computed = np.bincount(steps.member_step, weights=steps.member_computed, minlength=len(steps))[: len(steps)]
    budget = trace.header.token_budget
    if budget is not None:
        bounds[computed >= budget] = TOKEN_BUDGET
    bounds[steps.running >= trace.step_slots] = SLOTS
    bounds[steps.waiting == 0] = NOBODY_WAITING
    timeline = Timeline(trace)
    splits, needs = _splits_prompts(trace), _Needs(trace, timeline)
    preempting = np.unique(trace.residencies.last_step[trace.residencies.preempted] + 1)
    prefills = np.zeros(len(steps), bool)
    prefills[steps.member_step[~steps.member_decode]] = True
    for step in np.flatnonzero(bounds == POLICY).tolist():
        left = None if budget is None else budget - int(computed[step])
        tokens = needs.tokens(step)
        if left is not None and not splits and prefills[step] and tokens > left:
            bounds[step] = TOKEN_BUDGET
        elif step in preempting or needs.lack_blocks(step, tokens if budget is None else min(tokens, budget)):
            bounds[step] = KV_BLOCKS
    return bounds


def _splits_prompts(trace: Trace) -> bool:
    """Does a prefill of the run end before it gives a token? Then the engine reads prompts in chunks."""
    steps = trace.steps
    unfinished: npt.NDArray[np.bool_] = ~steps.member_decode & (steps.member_sampled == 0)
    return bool(unfinished.any())


class _Needs:
    """What the next in line needs when a step's schedule is made."""

    def __init__(self, trace: Trace, timeline: Timeline):
        self._trace, self._timeline = trace, timeline
        blocks = [replica.kv_blocks for replica in trace.header.replicas] or [trace.header.kv_blocks]
        self._blocks = [ABSENT if count is None else count for count in blocks]
        self._replicas = [replica.replica for replica in trace.header.replicas]

    def tokens(self, step: int) -> int:
        """Tokens of the next in line, its prompt and what it has written before a preemption; 0 where nobody is."""
        trace = self._trace
        at_ns = int(trace.steps.start_ns[step])
        waiting = self._timeline.waiting_at(at_ns)
        if self._replicas:
            replica = self._replicas[int(trace.steps.replica[step])]
            waiting = tuple(request for request in waiting if trace.arrivals[request].replica == replica)
        if not waiting:
            return 0
        return trace.arrivals[waiting[0]].prompt_tokens + self._timeline.at(at_ns).output_tokens_of(waiting[0])

    def lack_blocks(self, step: int, tokens: int) -> bool:
        """Are fewer blocks free than so many tokens take? False where the trace does not say."""
        size, used = self._trace.header.kv_block_tokens, int(self._trace.steps.kv_used[step])
        total = self._blocks[int(self._trace.steps.replica[step])]
        return bool(size) and ABSENT not in (used, total) and total - used < -(-tokens // (size or 1))


def bound_shares(trace: Trace) -> dict[str, float]:
    """Of the steps' time together, the share that each bound has; every one of BOUNDS, none for a run without steps."""
    steps = trace.steps
    spans = (steps.end_ns - steps.start_ns).astype(np.float64)
    total = float(spans.sum())
    if not total:
        return {}
    shares = np.bincount(step_bounds(trace), weights=spans, minlength=len(BOUNDS)) / total
    return dict(zip(BOUNDS, shares.tolist(), strict=True))
