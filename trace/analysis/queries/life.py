"""The request that a film follows, and the stage of its life at an instant."""

from tracereel.trace.analysis.life import BLOCKS, followed, stage_of
from tracereel.trace.analysis.moments import even_handover
from tracereel.trace.analysis.queries.requests import request_name
from tracereel.trace.analysis.query import Answer, Run, lines_of_steps, lines_so_far, query


@query
def handover_request(run: Run, *, slots: int, before: int, after: int, until_ns: int) -> Answer:
    """The request that takes a freed slot in the very next step, in the handover that `even_handover` finds.

    Raises ValueError where there is none.
    """
    handover = even_handover(run.trace, slots, before, after, until_ns)
    if handover is None:
        raise ValueError("no freed slot of the run is taken in the very next step")
    return handover.came, lines_of_steps(run, handover.taken_step, handover.taken_step + 1)


@query
def followed_request(run: Run, *, request_id: str) -> Answer:
    """The request of that id; where the run has none, the one that shares KV blocks, or has the long prompt."""
    request = followed(run.timeline, request_id)
    return request, (run.trace.arrival_lines[request],) * 2


@query
def followed_request_name(run: Run, *, request_id: str) -> Answer:
    """What `followed_request` is called on screen."""
    return request_name(run, request=followed(run.timeline, request_id))


@query
def stage_of_request(run: Run, *, request: int, t_ns: int) -> Answer:
    """The stage of a request's life at engine time t: `queue`, `prefill`, `chunks`, `decode`, `finished`.

    `none` before its arrival.
    """
    return stage_of(run.timeline, request, t_ns) or "none", lines_so_far(run, t_ns)


@query
def is_in_stage(*runs: Run, request: int, t_ns: int, stage: str) -> Answer:
    """Is the first run's request in that stage of its life at engine time t? `blocks`: does it hold KV blocks?"""
    run = runs[0]
    if stage == BLOCKS:
        true = bool(run.timeline.at(t_ns).blocks_of(request))
    else:
        true = stage_of(run.timeline, request, t_ns) == stage
    return int(true), lines_so_far(run, t_ns)


@query
def time_in_stage_s(run: Run, *, request: int, nth: int, t_ns: int) -> Answer:
    """For how long (s) by engine time t a request is, or was, in the nth stage of its life, counted from 0."""
    stretch = run.life(request)[nth]
    return max(min(t_ns, stretch.to_ns) - stretch.from_ns, 0) / 1e9, lines_so_far(run, t_ns)


@query
def time_in_stage_ms(run: Run, *, request: int, nth: int, t_ns: int) -> Answer:
    """The same as `time_in_stage_s`, in milliseconds."""
    seconds, lines = time_in_stage_s(run, request=request, nth=nth, t_ns=t_ns)
    return float(seconds) * 1e3, lines
