"""Latencies one by one, each with the moment at which it was known: what a distribution is built from, and its worst.

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


@dataclass(frozen=True)
class Pause:
    """The longest wait of a run between two tokens of one request, and what the engine did in the step that ended it.

    `cause`: `preempted` where the request had lost its slot, `prefill` where that step also read prompts, else `step`.
    """

    request: int
    token: int
    from_ns: int
    to_ns: int
    step: int
    cause: str
    prefills: int
    prefill_tokens: int


def worst_pause(trace: Trace) -> Pause | None:
    """The longest inter-token time of a run, the first where there are several; None where there is none."""
    gaps = Latencies.of(trace, ITL)
    if not len(gaps.at_ns):
        return None
    worst = int(np.argmax(gaps.value_ms))
    request, to_ns = int(gaps.request[worst]), int(gaps.at_ns[worst])
    from_ns = to_ns - round(gaps.value_ms[worst] * 1e6)
    steps, stays = trace.steps, trace.stays
    token = int(gaps.token[worst])
    step = int(steps.token_step[trace.tokens_of(request)[token]])
    members = steps.members(step)
    reads = ~steps.member_decode[members] & (steps.member_request[members] != request)
    lost = stays.preempted & (stays.request == request) & (stays.to_ns > from_ns) & (stays.to_ns <= to_ns)
    cause = "preempted" if lost.any() else "prefill" if reads.any() else "step"
    tokens = int(steps.member_computed[members][reads].sum())
    return Pause(request, token, from_ns, to_ns, step, cause, int(reads.sum()), tokens)
