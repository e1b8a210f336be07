"""KV blocks, block tables, and the prefix cache."""

import numpy as np
from tracereel.trace.analysis.query import Answer, Run, lines_of_run, lines_of_steps, lines_so_far, query


@query
def block_in_pool(run: Run, *, row: int, column: int, columns: int) -> Answer:
    """The number of the KV block whose cell is in that row and column of a pool that is drawn in so many columns.

    Raises ValueError where the pool has no block there.
    """
    block = row * columns + column
    if not (0 <= column < columns and 0 <= block < (run.trace.header.kv_blocks or 0)):
        raise ValueError(f"the pool has no block in row {row}, column {column} of {columns}")
    return block, (1, 1)


@query
def block_given(run: Run, *, request: int, nth: int) -> Answer:
    """The number of the KV block that a request was given as its `nth`, from 0, over all its time in slots.

    Raises ValueError where it was not given so many.
    """
    grants = run.trace.grants
    given = np.flatnonzero(grants.request == request)
    if not 0 <= nth < len(given):
        raise ValueError(f"request {request} was given {len(given)} blocks")
    step = int(grants.step[given[nth]])
    return int(grants.block[given[nth]]), lines_of_steps(run, step, step + 1)


@query
def kv_used(run: Run, *, t_ns: int) -> Answer:
    """KV blocks held at engine time t: those in the block tables of requests in a slot, a shared one counted once."""
    return len(run.timeline.at(t_ns).block_holders), lines_so_far(run, t_ns)


@query
def blocks_of_request(run: Run, *, request: int, t_ns: int) -> Answer:
    """KV blocks in a request's block table at engine time t; in all of them where groups of layers have their own."""
    return len(run.timeline.at(t_ns).blocks_of(request)), lines_so_far(run, t_ns)


@query
def shared_blocks(run: Run, *, request: int, t_ns: int) -> Answer:
    """KV blocks of a request's block tables that stand in another's too, at engine time t."""
    state = run.timeline.at(t_ns)
    held = state.blocks_of(request)
    return sum(len(state.block_holders.get(block, ())) > 1 for block in held), lines_so_far(run, t_ns)


@query
def blocks_freed_early(run: Run, *, request: int, t_ns: int) -> Answer:
    """KV blocks that left a request's tables by engine time t, since it got the slot that it still holds."""
    freed = run.timeline.at(t_ns).freed_places(request)
    return sum(map(len, freed)), lines_so_far(run, t_ns)


@query
def kv_groups(run: Run) -> Answer:
    """Groups of layers that have a block table of their own."""
    return len(run.trace.header.kv_groups), (1, 1)


@query
def kv_group_kind(run: Run, *, group: int) -> Answer:
    """What the engine calls the KV that a group of layers keeps, such as `mamba`; the group by its place in the header.

    Raises IndexError where there is no such group.
    """
    return run.trace.header.kv_groups[group].kind, (1, 1)


@query
def cached_tokens(run: Run, *, request: int, t_ns: int) -> Answer:
    """Tokens whose KV was there already when the request got the slot that it holds at engine time t."""
    return int(run.trace.residencies.cached[_residency(run, request, t_ns)]), lines_so_far(run, t_ns)


@query
def recomputed_tokens(run: Run, *, request: int, t_ns: int) -> Answer:
    """Tokens that a request which is back from its preemption computes again: their KV was there, and is no more."""
    back, before = _residency(run, request, t_ns), _preempted_residency(run, request, t_ns)
    return max(run.timeline.computed_in(before) - int(run.trace.residencies.cached[back]), 0), lines_so_far(run, t_ns)


@query
def prefill_tokens(run: Run) -> Answer:
    """Tokens computed in prefill: of prompts, and again after preemptions; those taken from the cache are not."""
    steps = run.trace.steps
    return int(steps.member_computed[~steps.member_decode].sum()), lines_of_run(run)


def _residency(run: Run, request: int, t_ns: int) -> int:
    found = run.timeline.residency_of(request, t_ns)
    if found is None:
        raise ValueError(f"request {request} does not run at {t_ns} ns")
    return found


def _preempted_residency(run: Run, request: int, t_ns: int) -> int:
    residencies = run.trace.residencies
    found = np.flatnonzero((residencies.request == request) & residencies.preempted & (residencies.to_ns <= t_ns))
    if not len(found):
        raise ValueError(f"request {request} was not preempted by {t_ns} ns")
    return int(found[-1])
