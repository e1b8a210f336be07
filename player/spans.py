"""The members of all steps as spans: a request that decodes one token in each of many consecutive steps is one entry.

Most of a trace is such spans, so a page holds a few thousand numbers where the trace holds millions. Nothing is lost:
`Spans` says the same as the member columns, and a test unpacks it again. Knows columns alone.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tracereel.trace.state.columns import ABSENT, Ints, Trace, group_by

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Spans:
    """Spans as columns, in the order of their first steps.

    Span i covers `length` consecutive steps of its slot's replica from `step` on (an index into the trace's steps). In
    its k-th step the request computes at position `position + k`; `computed`, `sampled` and `drafted` (ABSENT where
    the source does not say) are those of each of its steps. A span that is longer than 1 decodes.
    """

    slot: Ints
    request: Ints
    step: Ints
    length: Ints
    position: Ints
    decode: Ints
    computed: Ints
    sampled: Ints
    drafted: Ints


def spans_of(trace: Trace) -> Spans:
    """All members of all steps."""
    steps = trace.steps
    order, _ = group_by(steps.member_slot.astype(np.int32), trace.header.slots)
    request, step = steps.member_request[order], steps.member_step[order]
    position, decode = steps.member_position[order], steps.member_decode[order]
    computed, sampled, slot = steps.member_computed[order], steps.member_sampled[order], steps.member_slot[order]
    drafted = np.full(len(order), ABSENT, np.int16) if steps.member_drafted is None else steps.member_drafted[order]
    single: Bools = decode & (computed == 1) & (sampled == 1)
    at = step_in_replica(trace)[step]
    goes_on = np.zeros(len(order), bool)
    goes_on[1:] = (
        single[1:]
        & single[:-1]
        & _follows(at, 1)
        & _follows(position, 1)
        & _follows(slot, 0)
        & _follows(request, 0)
        & _follows(drafted, 0)
    )
    first = np.flatnonzero(~goes_on)
    length = np.diff(first, append=len(order))
    by_step = np.argsort(step[first], kind="stable")
    first, length = first[by_step], length[by_step]
    columns = (slot, request, step, None, position, decode, computed, sampled, drafted)
    return Spans(*[(length if column is None else column[first]).astype(np.int64) for column in columns])


def _follows(column: npt.NDArray[np.generic], by: int) -> Bools:
    """For each entry but the first: is it the one before it plus `by`?"""
    wide = column.astype(np.int64)
    same: Bools = wide[1:] == wide[:-1] + by
    return same


def step_in_replica(trace: Trace) -> Ints:
    """For each step its number among its replica's steps."""
    replica = trace.steps.replica
    number = np.zeros(len(replica), dtype=np.int64)
    for place in range(max(len(trace.header.replicas), 1)):
        own = np.flatnonzero(replica == place)
        number[own] = np.arange(len(own))
    return number
