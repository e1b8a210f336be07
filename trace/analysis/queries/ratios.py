"""Two cases against each other: ratios of their throughputs, from pairs of runs."""

from collections.abc import Sequence

from tracereel.trace.analysis.compare import Ratio, throughput_ratio
from tracereel.trace.analysis.query import Answer, Run, lines_of_run, query


def _ratio(runs: Sequence[Run], numerator: int) -> Ratio:
    return throughput_ratio([run.trace for run in runs[:numerator]], [run.trace for run in runs[numerator:]])


@query
def throughput_ratio_median(*runs: Run, numerator: int) -> Answer:
    """Output throughput of one case over the other's, median of the pairs."""
    return _ratio(runs, numerator).median, lines_of_run(runs[0])


@query
def throughput_ratio_low(*runs: Run, numerator: int) -> Answer:
    """The lowest of the pairs' ratios."""
    return _ratio(runs, numerator).low, lines_of_run(runs[0])


@query
def throughput_ratio_high(*runs: Run, numerator: int) -> Answer:
    """The highest of the pairs' ratios."""
    return _ratio(runs, numerator).high, lines_of_run(runs[0])


@query
def throughput_ratio_pairs(*runs: Run, numerator: int) -> Answer:
    """How many pairs of runs the ratio is from."""
    return _ratio(runs, numerator).n, lines_of_run(runs[0])
