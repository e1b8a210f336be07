"""What a run, or several repeats of it, add up to, besides its metrics: those are queries by their own names."""

import numpy as np
from tracereel.trace.analysis.query import Answer, Run, lines_of_run, query


@query
def slots(run: Run) -> Answer:
    """Slots: rows of the batch."""
    return run.trace.header.slots, (1, 1)


@query
def num_requests(run: Run) -> Answer:
    """Requests of the run."""
    return len(run.trace.arrivals), (1, 1)


@query
def num_steps(run: Run) -> Answer:
    """Steps of the run."""
    return len(run.trace.steps), lines_of_run(run)


@query
def span_s(run: Run) -> Answer:
    """Seconds from the run's beginning, its first arrival, to the end of its last step."""
    return (run.timeline.end_ns - run.timeline.begin_ns) / 1e9, lines_of_run(run)


@query
def num_runs(*runs: Run) -> Answer:
    """How many runs are meant."""
    return len(runs), (1, 1)


def _throughput(run: Run) -> float:
    value = run.metrics.output_throughput
    if value is None:
        raise ValueError("the trace holds no output token")
    return value


@query
def throughput_median(*runs: Run) -> Answer:
    """Output tokens a second, median of the runs."""
    return float(np.median([_throughput(run) for run in runs])), lines_of_run(runs[0])


@query
def e2el_median_s(*runs: Run) -> Answer:
    """The median request's E2EL in seconds, median of the runs."""
    return float(np.median([np.median(run.metrics.e2el_ms) for run in runs])) / 1e3, lines_of_run(runs[0])


@query
def requests_with_same_tokens(*runs: Run) -> Answer:
    """Requests whose output token ids are the same in all the runs; requests are matched by their ids."""
    answers = [
        {arrival.id: run.trace.steps.token_id[run.trace.tokens_of(i)].tolist() for i, arrival in enumerate(arrivals)}
        for run, arrivals in ((run, run.trace.arrivals) for run in runs)
    ]
    first = answers[0]
    same = sum(all(answer.get(name) == tokens for answer in answers) for name, tokens in first.items())
    return same, lines_of_run(runs[0])
