"""Which prefill stalled whom: how much later decoding requests got a token because of a request's prefill."""

from tracereel.trace.analysis.queries.requests import request_name
from tracereel.trace.analysis.query import Answer, Run, lines_of_steps, query
from tracereel.trace.analysis.stalls import Stall, stalls


def _stalls_by(run: Run, request: int) -> list[Stall]:
    found = [stall for stall in stalls(run.trace) if request in stall.prefills]
    if not found:
        raise ValueError(f"no request was decoding when request {request} was prefilled")
    return found


def _lines(run: Run, found: list[Stall]) -> tuple[int, int]:
    steps = [stall.step for stall in found]
    return lines_of_steps(run, min(steps), max(steps) + 1)


@query
def longest_stall_ms(run: Run, *, request: int) -> Answer:
    """The longest stall of a decoding request by a step that prefills `request`, in ms."""
    found = _stalls_by(run, request)
    return found[0].worst_ms, _lines(run, found[:1])


@query
def longest_stalled(run: Run, *, request: int) -> Answer:
    """Who had the longest stall by a step that prefills `request`, as it is called on screen."""
    found = _stalls_by(run, request)
    return request_name(run, request=found[0].worst)[0], _lines(run, found[:1])


@query
def all_stalls_ms(run: Run, *, request: int) -> Answer:
    """The stalls of all decoding requests by all steps that prefill `request` together, in ms."""
    found = _stalls_by(run, request)
    return sum(stall.total_ms for stall in found), _lines(run, found)
