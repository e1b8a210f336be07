"""What happened in some slots from one instant to another."""

import numpy as np
from tracereel.trace.analysis.query import Answer, Run, lines_of_steps, query


@query
def steps_between(run: Run, *, from_ns: int, to_ns: int) -> Answer:
    """Steps that ended after `from_ns` and by `to_ns` (engine time)."""
    first, end = _steps(run, from_ns, to_ns)
    return end - first, lines_of_steps(run, first, end)


@query
def output_tokens_between(run: Run, *, from_ns: int, to_ns: int, first_slot: int, last_slot: int) -> Answer:
    """Output tokens of the slots from the first to the last in the steps that ended after `from_ns` and by `to_ns`."""
    first, end = _steps(run, from_ns, to_ns)
    steps = run.trace.steps
    inside = (steps.member_step >= first) & (steps.member_step < end)
    inside &= (steps.member_slot >= first_slot) & (steps.member_slot <= last_slot)
    return int(steps.member_sampled[inside].sum()), lines_of_steps(run, first, end)


@query
def ended_between(run: Run, *, from_ns: int, to_ns: int, first_slot: int, last_slot: int) -> Answer:
    """Requests that ended after `from_ns` and by `to_ns` in one of the slots from the first to the last."""
    stays = run.trace.residencies
    inside = (stays.to_ns > from_ns) & (stays.to_ns <= to_ns) & ~stays.preempted
    inside &= (stays.slot >= first_slot) & (stays.slot <= last_slot)
    return int(inside.sum()), lines_of_steps(run, *_steps(run, from_ns, to_ns))


def _steps(run: Run, from_ns: int, to_ns: int) -> tuple[int, int]:
    """The first step that ended after `from_ns`, and the first that did not by `to_ns`."""
    ends = run.trace.steps.end_ns
    return int(np.searchsorted(ends, from_ns, side="right")), int(np.searchsorted(ends, to_ns, side="right"))
