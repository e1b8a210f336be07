"""Latencies of completed requests, the longest wait among them, and what a prompt does to the others."""

import numpy as np
from tracereel.trace.analysis.gaps import gaps_beside
from tracereel.trace.analysis.latency import ITL
from tracereel.trace.analysis.moments import Pause, tied_with, worst_pause
from tracereel.trace.analysis.queries.requests import request_name
from tracereel.trace.analysis.query import Answer, Run, lines_of_run, lines_of_steps, lines_so_far, query


@query
def latency_n(run: Run, *, metric: str, t_ns: int) -> Answer:
    """How many values of `ttft` or `itl` are known at engine time t."""
    return run.latencies(metric).known(t_ns), lines_so_far(run, t_ns)


@query
def latency_percentile_ms(run: Run, *, metric: str, percentile: float) -> Answer:
    """A percentile (0 to 100, linear interpolation) of `ttft` or `itl` over the run, in milliseconds."""
    values = run.latencies(metric).value_ms
    if not len(values):
        raise ValueError(f"the trace holds no {metric}")
    return float(np.percentile(values, percentile)), lines_of_run(run)


@query
def latency_percentile_s(run: Run, *, metric: str, percentile: float) -> Answer:
    """A percentile (0 to 100, linear interpolation) of `ttft` or `itl` over the run, in seconds."""
    ms, lines = latency_percentile_ms(run, metric=metric, percentile=percentile)
    return float(ms) / 1e3, lines


def _pause(run: Run) -> Pause:
    pause = worst_pause(run.trace)
    if pause is None:
        raise ValueError("no completed request of the trace has two output tokens")
    return pause


@query
def worst_pause_ms(run: Run) -> Answer:
    """The longest inter-token time of the run, in milliseconds."""
    pause = _pause(run)
    return (pause.to_ns - pause.from_ns) / 1e6, lines_of_steps(run, pause.step, pause.step + 1)


@query
def worst_pause_request(run: Run) -> Answer:
    """Who waited for the longest inter-token time, as it is called on screen."""
    return request_name(run, request=_pause(run).request)


@query
def worst_pause_requests(run: Run) -> Answer:
    """How many requests had the longest inter-token time of the run, to the nanosecond and ended by the same step."""
    pause = _pause(run)
    return len(tied_with(run.trace, pause)), lines_of_steps(run, pause.step, pause.step + 1)


@query
def worst_pause_prefill_tokens(run: Run) -> Answer:
    """Prompt tokens of others that were computed in the step that ended the longest inter-token time.

    Where that step did not prefill, those that were computed before it in steps without the request.
    """
    pause = _pause(run)
    return pause.prefill_tokens, lines_of_steps(run, pause.first_step, pause.step + 1)


@query
def worst_pause_over_median(run: Run) -> Answer:
    """The longest inter-token time over the run's median one."""
    ratio = float(worst_pause_ms(run)[0]) / float(latency_percentile_ms(run, metric=ITL, percentile=50)[0])
    return ratio, lines_of_run(run)


@query
def gap_beside_ms(run: Run, *, request: int, percentile: int) -> Answer:
    """A percentile of the gaps between consecutive output tokens of the others while a request waits and is read.

    Those gaps, in ms, that have a part between its arrival and its first token; 100 is the longest, 50 the median.
    """
    begin, end = gaps_beside(run.timeline, request)
    if not len(end):
        raise ValueError(f"no request decodes in a step with request {request}")
    return float(np.percentile(end - begin, percentile)) / 1e6, lines_so_far(run, int(end.max()))


@query
def gap_beside_low_ms(*runs: Run, request: int, percentile: int) -> Answer:
    """The lowest of several runs' `gap_beside_ms`."""
    return min(gap_beside_ms(run, request=request, percentile=percentile)[0] for run in runs), lines_of_run(runs[0])


@query
def gap_beside_high_ms(*runs: Run, request: int, percentile: int) -> Answer:
    """The highest of several runs' `gap_beside_ms`."""
    return max(gap_beside_ms(run, request=request, percentile=percentile)[0] for run in runs), lines_of_run(runs[0])
