"""Latencies one by one, each with the moment at which it was known: what a distribution is built from.

The values are those of `metrics`, of completed requests alone. Knows one trace at a time.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tracereel.trace.analysis.metrics import Metrics
from tracereel.trace.state.columns import Ints, Trace

TTFT, ITL = "ttft", "itl"


@dataclass(frozen=True)
class Latencies:
    """Columns in the order of time: when each value was known (ns), the value (ms), and whose it is."""

    at_ns: Ints
    value_ms: npt.NDArray[np.float64]
    request: Ints
    token: Ints
    """Which output token of the request it ends with."""

    def known(self, t_ns: int) -> int:
        """How many are known at an engine time."""
        return int(np.searchsorted(self.at_ns, t_ns, side="right"))

    @classmethod
    def of(cls, trace: Trace, metric: str) -> "Latencies":
        """The `ttft` or the `itl` values of a trace. Raises ValueError for another metric."""
        if metric not in (TTFT, ITL):
            raise ValueError(f"{metric!r} is neither ttft nor itl")
        columns: list[tuple[Ints, Ints, Ints, Ints]] = []
        for request in Metrics(trace).completed.tolist():
            times = trace.token_times(request)
            if not len(times):
                continue
            first = metric == TTFT
            at = times[:1] if first else times[1:]
            since = np.array([trace.arrivals[request].arrival_ns]) if first else times[:-1]
            tokens = np.arange(len(at)) + (0 if first else 1)
            columns.append((at, at - since, np.full(len(at), request), tokens))
        if not columns:
            empty = np.empty(0, np.int64)
            return cls(empty, np.empty(0), empty, empty)
        at, spans, requests, tokens = (np.concatenate(column) for column in zip(*columns, strict=True))
        order = np.argsort(at, kind="stable")
        return cls(at[order], spans[order] / 1e6, requests[order], tokens[order])
