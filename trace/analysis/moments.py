"""Moments of a run that are worth showing, found by what happened in them.

The first prefix that two requests share, the first preemption, the first slot that is retaken at once, the longest
prompt among requests that decode, the longest wait between two tokens. Each is None where the run has no such moment.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass

import numpy as np
from tracereel.trace.analysis.gaps import gaps_beside
from tracereel.trace.analysis.latency import ITL, Latencies
from tracereel.trace.state.columns import NEVER_NS, Ints, Trace
from tracereel.trace.state.timeline import Timeline


@dataclass(frozen=True)
class Sharing:
    """A request found the beginning of its prompt in the KV blocks of another one that runs (`owner`), at `at_ns`."""

    request: int
    owner: int
    blocks: tuple[int, ...]
    at_ns: int


def first_sharing(timeline: Timeline) -> Sharing | None:
    """The first admission after which a request's block table shares blocks with another running request's."""
    residencies = timeline.trace.residencies
    for i in np.flatnonzero(residencies.cached > 0).tolist():
        request, at_ns = int(residencies.request[i]), int(residencies.from_ns[i])
        state = timeline.at(at_ns)
        held = state.blocks_of(request)
        blocks = tuple(block for block in held if len(state.block_holders.get(block, ())) > 1)
        if blocks:
            owner = next(other for other in state.block_holders[blocks[0]] if other != request)
            return Sharing(request, owner, blocks, at_ns)
    return None


@dataclass(frozen=True)
class Release:
    """Blocks left a request's tables at `at_ns`, and it ran on: layers of some groups read them no more."""

    request: int
    at_ns: int


def first_release(timeline: Timeline, after_ns: int) -> Release | None:
    """The first schedule later than `after_ns` that frees blocks in the middle of a request; of several the first."""
    releases, starts = timeline.trace.group_releases, timeline.trace.steps.start_ns
    for i in np.flatnonzero(starts[releases.step] > after_ns).tolist():
        return Release(int(releases.request[i]), int(starts[releases.step[i]]))
    return None


@dataclass(frozen=True)
class Eviction:
    """A request was preempted at `at_ns`, and was admitted again at `back_ns` (None where it never was)."""

    request: int
    at_ns: int
    back_ns: int | None


def first_eviction(timeline: Timeline) -> Eviction | None:
    """The first preemption after which the request computes tokens again; the first of all where none does."""
    residencies = timeline.trace.residencies
    first: Eviction | None = None
    for i in sorted(
        np.flatnonzero(residencies.preempted).tolist(), key=lambda residency: int(residencies.to_ns[residency])
    ):
        request, at_ns = int(residencies.request[i]), int(residencies.to_ns[i])
        later = np.flatnonzero((residencies.request == request) & (residencies.from_ns >= at_ns))
        back = int(later[np.argmin(residencies.from_ns[later])]) if len(later) else None
        found = Eviction(request, at_ns, None if back is None else int(residencies.from_ns[back]))
        if back is not None and timeline.computed_in(i) > int(residencies.cached[back]):
            return found
        first = first or found
    return first


@dataclass(frozen=True)
class Handover:
    """A slot that the request `left` gave up at `ended_ns` and the request `came` took in the very next step."""

    slot: int
    left: int
    came: int
    ended_ns: int
    taken_step: int


def first_handover(trace: Trace, after_ns: int = 0, slots: int | None = None) -> Handover | None:
    """The first slot, of the first `slots`, that is freed at `after_ns` or later and retaken in the next step."""
    return next(_handovers(trace, after_ns, slots), None)


def even_handover(trace: Trace, slots: int, before: int, after: int, until_ns: int) -> Handover | None:
    """The handover, of the first `slots` slots and by `until_ns`, around which steps take the most equal times.

    From `before` steps before the slot is retaken to `after` steps after that step, all of which must be there. The
    first handover where none is so.
    """
    steps, chosen, least = trace.steps, None, 1.0
    for found in _handovers(trace, 0, slots):
        first, end = found.taken_step - before, found.taken_step + after + 1
        if found.ended_ns > until_ns:
            break
        if first < 0 or end > len(steps):
            continue
        spans = steps.end_ns[first:end] - steps.start_ns[first:end]
        longest = float(spans.max()) / max(int(spans.sum()), 1)
        if longest < least:
            chosen, least = found, longest
    return chosen or first_handover(trace, slots=slots)


_SOME_WAIT = 3
"""So many behind the first in line show that it is a line."""


def lone_handover(trace: Trace, slots: Container[int], after_ns: int = 0) -> Handover | None:
    """A handover at `after_ns` or later, of these slots, that happens alone, and to a request that waited.

    No other request ends in that step or is admitted in the next one, and the one that comes had arrived before the
    step began. The first that leaves at least three requests waiting; where there is none, the first of those that
    leave the most. None where there is no such handover.
    """
    residencies, steps = trace.residencies, trace.steps
    chosen: Handover | None = None
    for found in _handovers(trace, after_ns, None):
        step = found.taken_step
        alone = (residencies.last_step == step - 1).sum() == 1 and (residencies.first_step == step).sum() == 1
        waited = step > 0 and trace.arrivals[found.came].arrival_ns <= steps.start_ns[step - 1]
        if not (alone and waited and found.slot in slots):
            continue
        if chosen is None or steps.waiting[step] > steps.waiting[chosen.taken_step]:
            chosen = found
        if steps.waiting[step] >= _SOME_WAIT:
            break
    return chosen


def _handovers(trace: Trace, after_ns: int, slots: int | None) -> Iterator[Handover]:
    """Every slot that is freed and retaken in the next step, in the order in which they are freed."""
    residencies, steps = trace.residencies, trace.steps
    for i in np.argsort(residencies.to_ns, kind="stable").tolist():
        if residencies.to_ns[i] == NEVER_NS or residencies.preempted[i] or residencies.to_ns[i] < after_ns:
            continue
        if slots is not None and residencies.slot[i] >= slots:
            continue
        next_step = int(residencies.last_step[i]) + 1
        taken = np.flatnonzero((residencies.slot == residencies.slot[i]) & (residencies.first_step == next_step))
        if next_step < len(steps) and len(taken):
            came = int(residencies.request[taken[0]])
            yield Handover(
                int(residencies.slot[i]), int(residencies.request[i]), came, int(residencies.to_ns[i]), next_step
            )


def long_prompt(timeline: Timeline) -> int | None:
    """The request with the longest prompt, where other requests decode while it waits and is prefilled."""
    arrivals = timeline.trace.arrivals
    if not arrivals:
        return None
    request = int(np.argmax([arrival.prompt_tokens for arrival in arrivals]))
    return request if len(gaps_beside(timeline, request)[1]) else None


@dataclass(frozen=True)
class Pause:
    """The longest wait of a run between two tokens of one request, and what the engine did meanwhile.

    `cause`: `preempted` where the request had lost its slot; `prefill` where the step that ended the wait also computed
    prompts of other requests; `prefill_apart` where steps before it did, without the request; `left_out` where steps
    before it computed something else without the request; else `step`. `prefill_tokens` of the prompts of `prefills`
    requests were computed so.
    """

    request: int
    token: int
    from_ns: int
    to_ns: int
    step: int
    first_step: int
    """The first step of those that are the cause: `step` itself, or one before it."""
    cause: str
    prefills: int
    prefill_tokens: int


def worst_pause(trace: Trace) -> Pause | None:
    """The longest inter-token time of a run's completed requests, the first where there are several."""
    gaps = Latencies.of(trace, ITL)
    if not len(gaps.at_ns):
        return None
    worst = int(np.argmax(gaps.value_ms))
    request, to_ns = int(gaps.request[worst]), int(gaps.at_ns[worst])
    from_ns = to_ns - round(gaps.value_ms[worst] * 1e6)
    steps, residencies = trace.steps, trace.residencies
    token = int(gaps.token[worst])
    step = int(steps.token_step[trace.tokens_of(request)[token]])
    without, first_step = _steps_without(trace, request, token, step), step
    others = ~steps.member_decode & (steps.member_request != request)
    reads = others & (steps.member_step == step)
    lost = (
        residencies.preempted
        & (residencies.request == request)
        & (residencies.to_ns > from_ns)
        & (residencies.to_ns <= to_ns)
    )
    cause = "preempted" if lost.any() else "prefill" if reads.any() else "step"
    if cause == "step" and len(without):
        reads, first_step = others & np.isin(steps.member_step, without), int(without[0])
        cause = "prefill_apart" if reads.any() else "left_out"
    prefills, tokens = len(np.unique(steps.member_request[reads])), int(steps.member_computed[reads].sum())
    return Pause(request, token, from_ns, to_ns, step, first_step, cause, prefills, tokens)


def _steps_without(trace: Trace, request: int, token: int, step: int) -> Ints:
    """The steps of the request's replica between its token before `token` and `step`, in which it is no member."""
    steps = trace.steps
    before = int(steps.token_step[trace.tokens_of(request)[token - 1]])
    between = np.arange(before + 1, step)
    between = between[steps.replica[between] == steps.replica[step]]
    own = steps.member_step[steps.member_request == request]
    found: Ints = between[~np.isin(between, own)]
    return found


def tied_with(trace: Trace, pause: Pause) -> tuple[int, ...]:
    """The requests that waited just as long, from the same instant to the same instant; the pause's own is one."""
    gaps = Latencies.of(trace, ITL)
    same = (gaps.at_ns == pause.to_ns) & (np.round(gaps.value_ms * 1e6) == pause.to_ns - pause.from_ns)
    return tuple(sorted(gaps.request[same].tolist()))
