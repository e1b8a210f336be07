"""Pairs of runs: the one rule by which runs of two cases are set against each other, and the ratios it gives.

A suite records its cases in interleaved repeats: a run of every case, then again a run of every case, and so on.
Whatever the machine does meanwhile it then does to all cases, so runs of the same repeat are a pair and their ratio is
free of it. Runs that were not recorded like that make no pairs; their cases are compared by their medians.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from tracereel.trace.analysis.comparable import require_comparable
from tracereel.trace.analysis.metrics import Metrics
from tracereel.trace.format.storage import TraceError
from tracereel.trace.state.columns import Trace


class NoOutputError(TraceError, ValueError):
    """A run gave no output token: it has no throughput."""


def repeat_of(trace: Trace) -> int:
    """Which repeat of its suite a trace is; 0 for one that belongs to none."""
    return trace.header.run.repeat if trace.header.run else 0


def apart(traces: Sequence[Trace]) -> bool:
    """Was each run made while none of the others was, by the wall clock?"""
    spans = sorted(tuple(trace.header.clock.wall_ns + at_ns for at_ns in trace.span_ns) for trace in traces)
    return all(one[1] <= later[0] for one, later in pairwise(spans))


def repeat_by_repeat(traces: Sequence[Trace]) -> bool:
    """Did no repeat begin before all runs of the repeat before it had begun, by the wall clock?"""
    begun = [repeat for _, repeat in sorted((trace.header.clock.wall_ns, repeat_of(trace)) for trace in traces)]
    return begun == sorted(begun)


def pairs_of(before: Sequence[Trace], after: Sequence[Trace]) -> list[tuple[int, int]]:
    """The runs of two cases that are pairs, as (index into `before`, index into `after`), by repeat.

    Runs of one suite with the same `repeat` are a pair where the repeats were interleaved and no two runs overlapped.
    Empty where they were not, where a run is of no suite or of another one, or where a case has a repeat twice.
    """
    suites = {trace.header.run.suite if trace.header.run else None for trace in (*before, *after)}
    if None in suites or len(suites) != 1:
        return []
    left, right = ({repeat_of(trace): i for i, trace in enumerate(traces)} for traces in (before, after))
    if len(left) < len(before) or len(right) < len(after):
        return []
    pairs = [(left[repeat], right[repeat]) for repeat in sorted(left.keys() & right.keys())]
    paired = [trace for i, k in pairs for trace in (before[i], after[k])]
    return pairs if repeat_by_repeat(paired) and apart(paired) else []


def median_run(traces: Sequence[Trace]) -> Trace:
    """The run whose throughput is the median of its case's (the lower middle one of an even number)."""
    ordered = sorted(traces, key=_throughput)
    return ordered[(len(ordered) - 1) // 2]


def median_pair(before: Sequence[Trace], after: Sequence[Trace]) -> tuple[Trace, Trace]:
    """The pair with the median ratio of throughputs (the lower middle one); the median runs where there is no pair."""
    pairs = [(before[i], after[k]) for i, k in pairs_of(before, after)]
    if not pairs:
        return median_run(before), median_run(after)
    ordered = sorted(pairs, key=lambda pair: _throughput(pair[1]) / _throughput(pair[0]))
    return ordered[(len(ordered) - 1) // 2]


@dataclass(frozen=True)
class Ratio:
    """Output throughput of one case over another's."""

    median: float
    """The median of the pairs' ratios; the ratio of the cases' medians where there is no pair."""
    pairs: tuple[float, ...]
    """The pairs' ratios, in the order of the repeats."""

    @property
    def n(self) -> int:
        """How many pairs there are."""
        return len(self.pairs)


def throughput_ratio(numerator: Sequence[Trace], denominator: Sequence[Trace], across: Collection[str] = ()) -> Ratio:
    """Output throughput of one case over the other's; `across` as in `comparable.require_comparable`.

    Raises NotComparableError where the runs do not belong together, and NoOutputError where one holds no output token.
    """
    # A case against itself is 1 in each of its runs, whenever they were made.
    same = [trace.digest for trace in numerator] == [trace.digest for trace in denominator]
    require_comparable(numerator if same else [*numerator, *denominator], across)
    above, below = [_throughput(trace) for trace in numerator], [_throughput(trace) for trace in denominator]
    pairs = [(i, i) for i in range(len(above))] if same else pairs_of(denominator, numerator)
    ratios = tuple(above[k] / below[i] for i, k in pairs)
    return Ratio(float(np.median(ratios)) if ratios else float(np.median(above) / np.median(below)), ratios)


def _throughput(trace: Trace) -> float:
    value = Metrics(trace).output_throughput
    if value is None:
        raise NoOutputError(trace.path, "holds no output token")
    return value
