"""Which prefill stalled whom: how much later decoding requests got a token in a step that also prefilled.

In a step that prefills and decodes, a decoding request's stall is the gap between its token of that step and the one
before it, less the median of all its gaps; 0 where that is negative. Knows one trace.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tracereel.trace.state.columns import Ints, Trace


@dataclass(frozen=True)
class Stall:
    """A step with a prefill, and what it cost the requests that decoded in it."""

    step: int
    prefills: tuple[int, ...]
    """The requests that were prefilled."""
    prefill_tokens: int
    decodes: int
    """Decoding requests with a token of this step and one before it."""
    worst: int
    """The request with the longest stall."""
    worst_ms: float
    total_ms: float
    """The stalls of all of them together."""


def stalls(trace: Trace) -> list[Stall]:
    """Every step that prefilled and decoded, the longest stall first; ties in the order of steps."""
    steps = trace.steps
    stall_ns = _stall_of_members(trace)
    prefills, decodes = ~steps.member_decode, stall_ns >= 0
    counts = [np.bincount(steps.member_step[chosen], minlength=len(steps)) for chosen in (prefills, decodes)]
    found = []
    for step in np.flatnonzero((counts[0] > 0) & (counts[1] > 0)).tolist():
        own = steps.members(step)
        requests, of_step = steps.member_request[own], stall_ns[own]
        worst = int(np.argmax(of_step))
        found.append(
            Stall(
                step=step,
                prefills=tuple(requests[prefills[own]].tolist()),
                prefill_tokens=int(steps.member_computed[own][prefills[own]].sum()),
                decodes=int(counts[1][step]),
                worst=int(requests[worst]),
                worst_ms=int(of_step[worst]) / 1e6,
                total_ms=int(of_step[of_step > 0].sum()) / 1e6,
            )
        )
    return sorted(found, key=lambda stall: (-stall.worst_ms, stall.step))


def _stall_of_members(trace: Trace) -> Ints:
    """For each member entry its stall, ns; -1 where it does not decode, or has no token, or none before it."""
    steps = trace.steps
    found = np.full(len(steps.member_request), -1, dtype=np.int64)
    with_token = np.flatnonzero(steps.member_sampled > 0)
    order = with_token[np.argsort(steps.member_request[with_token], kind="stable")]
    request, at_ns = steps.member_request[order], steps.end_ns[steps.member_step[order]]
    same = request[1:] == request[:-1]
    gap_ns, entry, whose = np.diff(at_ns)[same], order[1:][same], request[1:][same]
    if len(gap_ns):
        later = np.maximum(gap_ns - _medians(gap_ns, whose), 0)
        decoding = steps.member_decode[entry]
        found[entry[decoding]] = later[decoding]
    return found


def _medians(values: Ints, group: npt.NDArray[np.int32]) -> Ints:
    """For each value the lower median of its group; groups stand together."""
    order = np.lexsort((values, group))
    _, first, place, counts = np.unique(group[order], return_index=True, return_inverse=True, return_counts=True)
    medians = values[order][first + (counts - 1) // 2]
    back = np.empty(len(order), dtype=np.int64)
    back[order] = place
    result: Ints = medians[back]
    return result
