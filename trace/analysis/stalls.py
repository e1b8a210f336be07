"""Which prefill stalled whom: how much later decoding requests got a token because steps prefilled, by `SCHEMA.md`.

Between two tokens of a request that decodes, its stall is the gap less the median of all its gaps, and no more than the
steps in between that prefill took. It may decode in such a step, or be left out of it, as in engines that prefill in
steps of their own. Knows one trace.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from tracereel.trace.state.columns import Ints, Trace


@dataclass(frozen=True)
class Stall:
    """A step with a prefill, and what it cost the requests that were decoding."""

    step: int
    prefills: tuple[int, ...]
    """The requests that were prefilled."""
    prefill_tokens: int
    decodes: int
    """Decoding requests that had a token before this step, and the next one with it or after it."""
    worst: int
    """The request with the longest stall."""
    worst_ms: float
    total_ms: float
    """The stalls of all of them together."""


@dataclass(frozen=True)
class _Gaps:
    """Gaps between tokens, as columns: of `request`, from its token of step `before` to that of step `after`."""

    request: Ints
    before: Ints
    after: Ints
    entry: Ints
    """The member entry of the later token."""
    late_ns: Ints
    """The gap less the median of all the request's gaps; 0 where that is negative."""


def stalls(trace: Trace) -> list[Stall]:
    """Every step that prefilled while requests decoded, the longest stall first; ties in the order of steps."""
    steps, gaps = trace.steps, _decode_gaps(trace)
    gap, step, part_ns = _parts(trace, gaps)
    order = np.lexsort((gaps.entry[gap], step))
    gap, step, part_ns = gap[order], step[order], part_ns[order]
    found = []
    for first, end in _runs(step):
        own, request = steps.members(int(step[first])), gaps.request[gap[first:end]]
        prefills = ~steps.member_decode[own]
        worst = int(np.argmax(part_ns[first:end]))
        found.append(
            Stall(
                step=int(step[first]),
                prefills=tuple(steps.member_request[own][prefills].tolist()),
                prefill_tokens=int(steps.member_computed[own][prefills].sum()),
                decodes=end - first,
                worst=int(request[worst]),
                worst_ms=int(part_ns[first + worst]) / 1e6,
                total_ms=int(part_ns[first:end].sum()) / 1e6,
            )
        )
    return sorted(found, key=lambda stall: (-stall.worst_ms, stall.step))


def _decode_gaps(trace: Trace) -> _Gaps:
    """The gaps that end with a token of a decode, in which the request held its slot throughout."""
    steps = trace.steps
    with_token = np.flatnonzero(steps.member_sampled > 0)
    order = with_token[np.argsort(steps.member_request[with_token], kind="stable")]
    request, step = steps.member_request[order], steps.member_step[order]
    same = request[1:] == request[:-1]
    whose, before, after, entry = request[1:][same], step[:-1][same], step[1:][same], order[1:][same]
    gap_ns = steps.end_ns[after] - steps.end_ns[before]
    late_ns = np.maximum(gap_ns - _medians(gap_ns, whose), 0) if len(gap_ns) else gap_ns
    kept = steps.member_decode[entry] & (_stay(trace, whose, before) == _stay(trace, whose, after))
    return _Gaps(*(column[kept].astype(np.int64) for column in (whose, before, after, entry, late_ns)))


def gaps_leave_out_steps(trace: Trace) -> bool:
    """Does a request that decodes get no token in a step between two of its tokens, while it holds its slot?"""
    steps, gaps = trace.steps, _decode_gaps(trace)
    ordinal = np.empty(len(steps), dtype=np.int64)
    for replica in np.unique(steps.replica):
        own = np.flatnonzero(steps.replica == replica)
        ordinal[own] = np.arange(len(own))
    return bool((ordinal[gaps.after] - ordinal[gaps.before] > 1).any())


def _stay(trace: Trace, request: npt.NDArray[np.int32], step: npt.NDArray[np.int32]) -> Ints:
    """How many admissions of each request there were by each step: another number, another stay in a slot."""
    residencies, count = trace.residencies, len(trace.steps) + 1
    admitted = np.sort(residencies.request * count + residencies.first_step)
    found: Ints = np.searchsorted(admitted, request.astype(np.int64) * count + step, side="right")
    return found


def _parts(trace: Trace, gaps: _Gaps) -> tuple[Ints, Ints, Ints]:
    """(gap, step, ns): for each gap each step in it that prefills, and its part of what the gap is late.

    The parts of a gap are what it is late, and no more than those steps took, split by the time that each took: from
    the end of the step before to its own.
    """
    steps = trace.steps
    prefilling = np.unique(steps.member_step[~steps.member_decode]).astype(np.int64)
    found: list[tuple[Ints, Ints, Ints]] = []
    for replica in np.unique(steps.replica).tolist():
        own = np.flatnonzero(steps.replica[gaps.before] == replica)
        of_replica = np.flatnonzero(steps.replica == replica)
        chosen = np.isin(of_replica, prefilling)
        # What the host or the device did before the step, to make it ready, is part of it.
        took = np.diff(steps.end_ns[of_replica], prepend=steps.start_ns[of_replica[0]])[chosen]
        steps_of = of_replica[chosen]
        first = np.searchsorted(steps_of, gaps.before[own], side="right")
        many = np.searchsorted(steps_of, gaps.after[own], side="right") - first
        gap = np.repeat(own, many)
        at = np.arange(len(gap)) + np.repeat(first - (np.cumsum(many) - many), many)
        sums = np.concatenate([[0], np.cumsum(took)])
        together = np.repeat(sums[first + many] - sums[first], many)
        late_ns = np.minimum(gaps.late_ns[gap], together)
        part_ns = np.rint(late_ns * (took[at] / np.maximum(together, 1))).astype(np.int64)
        found.append((gap, steps_of[at], part_ns))
    if not found:
        return (np.empty(0, np.int64),) * 3
    gap, step, part_ns = (np.concatenate(column) for column in zip(*found, strict=True))
    return gap, step, part_ns


def _runs(values: Ints) -> list[tuple[int, int]]:
    """[first, end) of each run of equal values."""
    return list(pairwise([*np.flatnonzero(np.diff(values, prepend=-1)).tolist(), len(values)]))


def _medians(values: Ints, group: npt.NDArray[np.int32]) -> Ints:
    """For each value the lower median of its group; groups stand together."""
    order = np.lexsort((values, group))
    _, first, place, counts = np.unique(group[order], return_index=True, return_inverse=True, return_counts=True)
    medians = values[order][first + (counts - 1) // 2]
    back = np.empty(len(order), dtype=np.int64)
    back[order] = place
    result: Ints = medians[back]
    return result
