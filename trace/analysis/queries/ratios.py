"""Two cases against each other: ratios of their throughputs.

Of the runs that a query is asked about the first `numerator` are of the one case, the rest of the other.
"""

from collections.abc import Sequence

from tracereel.trace.analysis.pairs import Ratio, throughput_ratio
from tracereel.trace.analysis.query import Answer, Run, lines_of_run, query


def _ratio(runs: Sequence[Run], numerator: int, across: str = "") -> Ratio:
    traces = [run.trace for run in runs]
    return throughput_ratio(traces[:numerator], traces[numerator:], tuple(filter(None, across.split(","))))


def _pairs(runs: Sequence[Run], numerator: int) -> tuple[float, ...]:
    pairs = _ratio(runs, numerator).pairs
    if not pairs:
        raise ValueError("no two runs of these cases are a pair")
    return pairs


@query
def throughput_ratio_median(*runs: Run, numerator: int, across: str = "") -> Answer:
    """Output throughput of one case over the other's: median of the pairs, or ratio of the medians where none are.

    `across` names the settings that may differ, such as `slots`, with commas between them.
    """
    return _ratio(runs, numerator, across).median, lines_of_run(runs[0])


@query
def throughput_ratio_low(*runs: Run, numerator: int) -> Answer:
    """The lowest of the pairs' ratios."""
    return min(_pairs(runs, numerator)), lines_of_run(runs[0])


@query
def throughput_ratio_high(*runs: Run, numerator: int) -> Answer:
    """The highest of the pairs' ratios."""
    return max(_pairs(runs, numerator)), lines_of_run(runs[0])


@query
def throughput_ratio_pairs(*runs: Run, numerator: int) -> Answer:
    """How many pairs of runs the ratio is from; 0 where it is of medians."""
    return _ratio(runs, numerator).n, lines_of_run(runs[0])


@query
def duration_ratio(*runs: Run) -> Answer:
    """How many times as long the second run took as the first. Raises ValueError where one has no duration."""
    first, second = (run.metrics.duration_s for run in runs)
    if not first or not second:
        raise ValueError("a run without output tokens has no duration")
    return second / first, lines_of_run(runs[0])


@query
def later_by_s(*runs: Run) -> Answer:
    """Seconds by which the second run was done later than the first, each counted from its own beginning."""
    first, second = (run.timeline.end_ns - run.timeline.begin_ns for run in runs)
    return (second - first) / 1e9, lines_of_run(runs[0])
