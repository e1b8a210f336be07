"""The stages of a request's life, and the request of a run that stands for all.

A request waits in the queue, is prefilled in one step or in chunks, decodes, and is finished. Knows one run at a time.
"""

from dataclasses import dataclass

import numpy as np
from tracereel.trace.analysis.moments import first_sharing, long_prompt
from tracereel.trace.state.timeline import Timeline

QUEUE, PREFILL, CHUNKS, DECODE, FINISHED = "queue", "prefill", "chunks", "decode", "finished"
STAGES = (QUEUE, PREFILL, CHUNKS, DECODE, FINISHED)
BLOCKS = "blocks"
"""Not a stage of its own: a request that holds KV blocks is prefilled or decodes."""


@dataclass(frozen=True)
class Stretch:
    """A request is in a stage from one engine time to another, both in nanoseconds."""

    stage: str
    from_ns: int
    to_ns: int


def stage_of(timeline: Timeline, request: int, t_ns: int) -> str | None:
    """The stage of a request at engine time t; None before its arrival.

    It is prefilled in chunks where its time in the slot has several steps that prefill it.
    """
    trace = timeline.trace
    if t_ns < trace.arrivals[request].arrival_ns:
        return None
    residency = timeline.residency_of(request, t_ns)
    if residency is None:
        return QUEUE if request in timeline.waiting_at(t_ns) else FINISHED
    slot = int(trace.residencies.slot[residency])
    occupant = timeline.at(t_ns).occupancy[slot]
    if occupant is None or not occupant.prefill:
        return DECODE
    steps, stays = trace.steps, trace.residencies
    start_ns = steps.start_ns[steps.member_step]
    own = (steps.member_request == request) & ~steps.member_decode
    own &= (start_ns >= stays.from_ns[residency]) & (start_ns < stays.to_ns[residency])
    return CHUNKS if np.count_nonzero(own) > 1 else PREFILL


def life_of(timeline: Timeline, request: int) -> tuple[Stretch, ...]:
    """The stages of a request's life in order, from its arrival on, each as long as it lasted.

    A preempted request is in the queue again. A life that the recording cuts off ends with the recording.
    """
    trace = timeline.trace
    stays = trace.residencies
    own = np.flatnonzero(stays.request == request)
    at_ns = trace.arrivals[request].arrival_ns
    found: list[Stretch] = []
    for i in own[np.argsort(stays.from_ns[own], kind="stable")].tolist():
        from_ns, to_ns = int(stays.from_ns[i]), int(stays.to_ns[i])
        read_ns = _read_by(timeline, request, from_ns, to_ns)
        found += [
            Stretch(QUEUE, at_ns, from_ns),
            Stretch(stage_of(timeline, request, from_ns) or PREFILL, from_ns, read_ns),
            Stretch(DECODE, read_ns, to_ns),
        ]
        at_ns = to_ns
    if not len(own) or stays.preempted[own].all():
        ending = trace.endings.get(request)
        found.append(Stretch(QUEUE, at_ns, ending[0] if ending is not None else timeline.end_ns))
    return tuple(stretch for stretch in found if stretch.to_ns > stretch.from_ns)


def _read_by(timeline: Timeline, request: int, from_ns: int, to_ns: int) -> int:
    """When a request that got a slot decodes: at the end of one of its steps, or when it leaves the slot."""
    steps = timeline.trace.steps
    ends = steps.end_ns[steps.member_step[steps.member_request == request]]
    for end_ns in np.sort(ends[(ends > from_ns) & (ends < to_ns)]).tolist():
        if stage_of(timeline, request, end_ns) == DECODE:
            return int(end_ns)
    return to_ns


def followed(timeline: Timeline, request_id: str) -> int:
    """The request of that id; in a run of another workload the one whose life shows most of what sets the run apart.

    That is the request that shares KV blocks first, else the long prompt that is prefilled while others decode, else
    the first request. Raises ValueError where the run has no request.
    """
    arrivals = timeline.trace.arrivals
    if not arrivals:
        raise ValueError("the trace has no request")
    same = next((i for i, arrival in enumerate(arrivals) if arrival.id == request_id), None)
    if same is not None:
        return same
    sharing = first_sharing(timeline)
    if sharing is not None:
        return sharing.request
    return long_prompt(timeline) or 0
