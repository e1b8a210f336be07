"""The stages of a request's life, and the request of a run that stands for all.

A request waits in the queue, is prefilled in one step or in chunks, decodes, and is finished. Knows one run at a time.
"""

import numpy as np
from tracereel.trace.analysis.moments import first_sharing, long_prompt
from tracereel.trace.state.timeline import Timeline

QUEUE, PREFILL, CHUNKS, DECODE, FINISHED = "queue", "prefill", "chunks", "decode", "finished"
STAGES = (QUEUE, PREFILL, CHUNKS, DECODE, FINISHED)
BLOCKS = "blocks"
"""Not a stage of its own: a request that holds KV blocks is prefilled or decodes."""


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
