"""Runs beside each other: which may be compared, and the ratio between two cases from interleaved repeats.

Knows headers and metrics. A comparison is valid only between runs of the same workload, model, dtype and device; all
else is refused by naming the field that differs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tracereel.trace.events import Header
from tracereel.trace.metrics import Metrics
from tracereel.trace.trace import Trace

_COMPARABLE: dict[str, Callable[[Header], object]] = {
    "workload.digest": lambda header: header.workload.digest,
    "model.digest": lambda header: header.model.digest,
    "model.weights": lambda header: header.model.weights,
    "model.dtype": lambda header: header.model.dtype,
    "device.name": lambda header: header.device.name,
}


class NotComparableError(Exception):
    """Two runs cannot be compared; the message names the field that differs and both values."""


def require_comparable(traces: Sequence[Trace]) -> None:
    """Raise NotComparableError where the traces do not measure the same work on the same device."""
    first = traces[0]
    for other in traces[1:]:
        for name, field in _COMPARABLE.items():
            left, right = field(first.header), field(other.header)
            if left != right:
                raise NotComparableError(f"{first.path} and {other.path} differ in {name}: {left!r} and {right!r}")


@dataclass(frozen=True)
class Ratio:
    """A quantity of one case over another's, from n pairs of runs made one right after the other."""

    median: float
    low: float
    high: float
    n: int
    pairs: tuple[float, ...]
    """Each pair's ratio, in the order of the repeats."""


def throughput_ratio(numerator: Sequence[Trace], denominator: Sequence[Trace]) -> Ratio:
    """Output throughput of one case over the other's: median, lowest and highest of the pairs with the same repeat.

    Raises NotComparableError where the runs do not belong together, and ValueError where no repeat is in both.
    """
    require_comparable([*numerator, *denominator])
    below = {repeat_of(trace): trace for trace in denominator}
    above = sorted(numerator, key=repeat_of)
    pairs = [(trace, below[repeat_of(trace)]) for trace in above if repeat_of(trace) in below]
    ratios = [_throughput(top) / _throughput(bottom) for top, bottom in pairs]
    if not ratios:
        raise ValueError("no repeat is in both cases")
    return Ratio(float(np.median(ratios)), min(ratios), max(ratios), len(ratios), tuple(ratios))


def repeat_of(trace: Trace) -> int:
    """Which repeat of its suite a trace is; 0 for one that belongs to none."""
    return trace.header.run.repeat if trace.header.run else 0


def _throughput(trace: Trace) -> float:
    value = Metrics(trace).output_throughput
    if value is None:
        raise ValueError(f"{trace.path} holds no output token")
    return value


def median_run(traces: Sequence[Trace]) -> Trace:
    """The run whose throughput is the median of its case's (the lower middle one of an even number)."""
    ordered = sorted(traces, key=_throughput)
    return ordered[(len(ordered) - 1) // 2]
