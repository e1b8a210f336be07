"""One request in two runs of the same workload: which request stands for all, and what it gets in each."""

from statistics import median

import numpy as np
from tracereel.trace.analysis.queries.requests import request_name
from tracereel.trace.analysis.query import Answer, Run, lines_of_run, lines_so_far, query


def _e2el_ns(run: Run, request: int) -> int | None:
    """From a request's scheduled arrival to its last token, in ns; None where it has none."""
    times = run.timeline.token_times_of(request)
    return times[-1] - run.trace.arrivals[request].arrival_ns if times else None


@query
def median_gain_request(before: Run, after: Run) -> Answer:
    """The request with the median gain: its E2EL in the run `before` less its E2EL in the run `after`.

    Of the requests that have two tokens or more in both runs; requests are matched by their numbers. The lower median
    where they are even in number, the first by number where several gain as much. Raises ValueError where none is so.
    """
    gains = []
    for request in range(min(len(before.trace.arrivals), len(after.trace.arrivals))):
        spans = [_e2el_ns(run, request) for run in (before, after)]
        tokens = min(len(run.timeline.token_times_of(request)) for run in (before, after))
        if tokens > 1 and spans[0] is not None and spans[1] is not None:
            gains.append((spans[0] - spans[1], request))
    if not gains:
        raise ValueError("no request has two tokens in both runs")
    return sorted(gains)[(len(gains) - 1) // 2][1], lines_of_run(before)


@query
def median_gain_request_name(before: Run, after: Run) -> Answer:
    """What the request with the median gain is called on screen."""
    request = median_gain_request(before, after)[0]
    assert isinstance(request, int)
    return request_name(before, request=request)


@query
def request_e2el_s(run: Run, *, request: int) -> Answer:
    """A request's E2EL, from its scheduled arrival to its last token, in seconds."""
    span = _e2el_ns(run, request)
    if span is None:
        raise ValueError(f"request {request} has no token")
    return span / 1e9, lines_so_far(run, run.timeline.token_times_of(request)[-1])


@query
def request_itl_ms(run: Run, *, request: int) -> Answer:
    """The median gap between a request's consecutive output tokens, in ms."""
    times = run.timeline.token_times_of(request)
    if len(times) < 2:
        raise ValueError(f"request {request} has no two tokens")
    return float(median(np.diff(times).tolist())) / 1e6, lines_so_far(run, times[-1])


@query
def ahead_in_line(run: Run, *, request: int, t_ns: int) -> Answer:
    """Requests that stand before a waiting request in the queue at engine time t."""
    line = run.timeline.at(t_ns).waiting
    if request not in line:
        raise ValueError(f"request {request} does not wait at {t_ns} ns")
    return list(line).index(request), lines_so_far(run, t_ns)
