"""What a run adds up to: latencies, throughput, occupancy. The definitions are in `registry`.

The columns are read a stretch of steps at a time, so that a trace of millions of steps costs little memory against its
own. Knows one trace at a time. Does not compare runs (`compare`) and prints nothing.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from tracereel.trace.state.columns import ABSENT, NEVER_NS, Ints, Trace
from tracereel.trace.state.replicas import over_replicas

Floats = npt.NDArray[np.float64]

PERCENTILES = (50, 90, 99)
SLO_METRICS = ("ttft", "tpot", "e2el")
CUT_SHORT = ("abort", "rejected", "error")
"""How a request ends that was not answered to its end."""
_STRETCH = 2**16
"""Steps that are looked at together."""


class SloError(ValueError):
    """Limits for goodput that cannot be; the message is one line."""


def parse_slo(text: str) -> dict[str, float]:
    """Limits in milliseconds from `ttft=200,tpot=50`. Raises SloError."""
    limits: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        try:
            limit = float(value)
        except ValueError:
            limit = math.nan
        if name not in SLO_METRICS or name in limits or not 0 < limit < math.inf:
            raise SloError(
                f"slo: {part!r} in {text!r} is not one of {', '.join(SLO_METRICS)}, each once, = milliseconds above 0;"
                " such as ttft=200,tpot=50"
            )
        limits[name] = limit
    return limits


@dataclass(frozen=True)
class Distribution:
    """A sample's mean, percentiles (linear interpolation) and size; None where the sample is empty."""

    n: int
    mean: float | None
    p50: float | None
    p90: float | None
    p99: float | None

    @classmethod
    def of(cls, values: Floats) -> "Distribution":
        """The distribution of a sample."""
        return cls.of_counts(np.sort(values), np.ones(len(values), np.int64))

    @classmethod
    def of_counts(cls, values: Floats, counts: Ints) -> "Distribution":
        """The distribution of a sample in which each of `values` (ascending) occurs `counts` times.

        The percentiles are numpy's default ones of the sample written out: rank (n - 1) · p / 100, linear between.
        """
        n = int(counts.sum())
        if not n:
            return cls(0, None, None, None, None)
        after = np.cumsum(counts)  # values[i] has the ranks from after[i - 1] up to but without after[i]

        def percentile(p: int) -> float:
            rank = (n - 1) * p / 100
            low, high = values[np.searchsorted(after, [math.floor(rank), math.ceil(rank)], side="right")].tolist()
            return float(low + (high - low) * (rank - math.floor(rank)))

        p50, p90, p99 = map(percentile, PERCENTILES)
        return cls(n, float((values * counts).sum() / n), p50, p90, p99)


@dataclass(frozen=True)
class _Tokens:
    """Of each request its output tokens, first and last; and how often each gap occurs between consecutive tokens."""

    count: Ints
    first_ns: Ints
    last_ns: Ints
    gap_ns: Ints
    gap_count: Ints


class Metrics:
    """The metrics of one trace; seconds and milliseconds as the names say, each computed when first asked for.

    Latencies are of completed requests, in the order of their numbers: those that ended in a step with at least one
    output token. A request that was cut short has no end to measure to.
    """

    def __init__(self, trace: Trace, limits_ms: Mapping[str, float] | None = None):
        self.trace = trace
        self.limits_ms = limits_ms
        """The limits of goodput; keys as in SLO_METRICS."""

    @cached_property
    def completed(self) -> Ints:
        """The requests that were answered to their end."""
        return np.flatnonzero(self._ended & (self.output_lengths > 0))

    @cached_property
    def _ended(self) -> npt.NDArray[np.bool_]:
        ended = np.zeros(len(self.trace.arrivals), bool)
        ended[[request for request, (_, reason, _) in self.trace.endings.items() if reason not in CUT_SHORT]] = True
        return ended

    @cached_property
    def _tokens(self) -> _Tokens:
        requests = len(self.trace.arrivals)
        count = np.zeros(requests, np.int64)
        first, last = np.full(requests, NEVER_NS), np.full(requests, ABSENT)
        gaps = [(np.empty(0, np.int64), np.empty(0, np.int64))]
        for request, at_ns in _stretches(self.trace):
            order = np.argsort(request, kind="stable")
            request, at_ns = request[order], at_ns[order]
            begins = np.flatnonzero(np.diff(request, prepend=-1))
            ends = np.append(begins[1:], len(request))
            who = request[begins]
            before = np.roll(at_ns, 1)
            before[begins] = last[who]
            known = (before != ABSENT) & self._ended[request]
            gaps.append(np.unique((at_ns - before)[known], return_counts=True))
            first[who] = np.minimum(first[who], at_ns[begins])
            last[who] = at_ns[ends - 1]
            count[who] += ends - begins
        # Most members of a step have the same gap: counted, the gaps of a stretch are few.
        gap_ns, where = np.unique(np.concatenate([gap for gap, _ in gaps]), return_inverse=True)
        gap_count = np.zeros(len(gap_ns), np.int64)
        np.add.at(gap_count, where, np.concatenate([number for _, number in gaps]))
        return _Tokens(count, first, last, gap_ns, gap_count)

    @property
    def output_lengths(self) -> Ints:
        """Output tokens of every request."""
        return self._tokens.count

    @cached_property
    def _arrival_ns(self) -> Ints:
        return np.array([arrival.arrival_ns for arrival in self.trace.arrivals], dtype=np.int64)

    @cached_property
    def ttft_ms(self) -> Floats:
        """TTFT of each completed request."""
        return (self._tokens.first_ns - self._arrival_ns)[self.completed] / 1e6

    @cached_property
    def e2el_ms(self) -> Floats:
        """E2EL of each completed request."""
        return (self._tokens.last_ns - self._arrival_ns)[self.completed] / 1e6

    @cached_property
    def tpot_ms(self) -> Floats:
        """TPOT of each completed request with two or more output tokens."""
        many = self.output_lengths[self.completed] > 1
        return self._tpot_or_0_ms[many]

    @cached_property
    def _tpot_or_0_ms(self) -> Floats:
        n = self.output_lengths[self.completed]
        return np.where(n > 1, self.e2el_ms - self.ttft_ms, 0.0) / np.maximum(n - 1, 1)

    @property
    def itl_ms(self) -> Floats:
        """Every gap between consecutive output tokens of a completed request, ascending."""
        return np.repeat(self._tokens.gap_ns, self._tokens.gap_count) / 1e6

    @property
    def itl(self) -> Distribution:
        """The distribution of `itl_ms`, without writing the sample out."""
        return Distribution.of_counts(self._tokens.gap_ns / 1e6, self._tokens.gap_count)

    @cached_property
    def _first_residency(self) -> tuple[Ints, Ints]:
        """(requests that ever had a slot, the first residency of each)."""
        request, residency = np.unique(self.trace.residencies.request, return_index=True)
        return request, residency

    @cached_property
    def queue_ms(self) -> Floats:
        """Scheduled arrival to first slot, of each request in `admitted`."""
        request, residency = self._first_residency
        waited = (self.trace.residencies.from_ns[residency] - self._arrival_ns[request]) / 1e6
        return waited[np.isin(request, self.completed)]

    @cached_property
    def admitted(self) -> Ints:
        """The completed requests whose admission the trace holds: all of them, unless steps are missing."""
        request, _ = self._first_residency
        return request[np.isin(request, self.completed)]

    @property
    def goodput(self) -> float | None:
        """Completed requests a second that meet every limit, TPOT being 0 where n <= 1; None where no limit is given.

        The definition is that of `vllm bench serve --goodput` (vllm/benchmarks/serve.py, `calculate_metrics`).
        """
        if not self.duration_s or not self.limits_ms:
            return None
        measured = {"ttft": self.ttft_ms, "tpot": self._tpot_or_0_ms, "e2el": self.e2el_ms}
        good = np.ones(len(self.completed), bool)
        for name, limit in self.limits_ms.items():
            good &= measured[name] <= limit
        return int(good.sum()) / self.duration_s

    @property
    def output_tokens(self) -> int:
        """Output tokens of all requests."""
        return int(self.trace.steps.first_token[-1])

    @cached_property
    def duration_s(self) -> float:
        """Last token - first arrival, in seconds; 0 where there is no token."""
        if not self.output_tokens:
            return 0.0
        return float(self._tokens.last_ns.max() - self._arrival_ns.min()) / 1e9

    @property
    def output_throughput(self) -> float | None:
        """Output tokens a second."""
        return self.output_tokens / self.duration_s if self.duration_s else None

    @property
    def request_throughput(self) -> float | None:
        """Completed requests a second."""
        return len(self.completed) / self.duration_s if self.duration_s else None

    @cached_property
    def step_ms(self) -> Floats:
        """Duration of each step: the device's where it measured."""
        return (self.trace.steps.end_ns - self.trace.steps.start_ns) / 1e6

    @property
    def host_late_ms(self) -> Floats:
        """How long after the end of each step the host had its tokens; empty where only the host measured."""
        late: Floats = self.trace.steps.host_late_ns / 1e6
        return late if self.trace.by_device else late[:0]

    @property
    def slot_steps(self) -> int:
        """Slots x steps."""
        return int(self.trace.step_slots.sum())

    @property
    def busy_slot_steps(self) -> int:
        """Slot-steps in which a sequence advanced."""
        return int(self.trace.steps.batch.sum())

    @property
    def idle_slot_steps(self) -> int:
        """Slot-steps in which none did."""
        return self.slot_steps - self.busy_slot_steps

    @property
    def slot_occupancy(self) -> float | None:
        """Busy share of the slots, weighted by step time (0 to 1)."""
        time = float((self.step_ms * self.trace.step_slots).sum())
        return float((self.trace.steps.batch * self.step_ms).sum() / time) if time else None

    @property
    def mean_batch(self) -> float | None:
        """Members of a step, mean over the steps."""
        return float(self.trace.steps.batch.mean()) if len(self.trace.steps) else None

    @property
    def padding(self) -> int:
        """Token positions computed for nothing."""
        return int(self.trace.steps.padding.sum())

    @property
    def preemptions(self) -> int:
        """How often a running request lost its slot and blocks."""
        return int(self.trace.residencies.preempted.sum())

    @property
    def kv_peak(self) -> int | None:
        """Most KV blocks held at once."""
        used = self._kv_used
        return int(used.max()) if len(used) and (used != ABSENT).any() else None

    @cached_property
    def _kv_used(self) -> Ints:
        return over_replicas(self.trace, self.trace.steps.kv_used)

    @property
    def kv_mean(self) -> float | None:
        """KV blocks held as each schedule leaves them, mean weighted by the time to the next schedule.

        None where the trace does not say.
        """
        steps, used = self.trace.steps, self._kv_used
        known = used != ABSENT
        until_next = np.diff(steps.start_ns, append=steps.end_ns[-1:])[known]
        total = int(until_next.sum())
        return float((used[known] * (until_next / total)).sum()) if total else None

    @cached_property
    def waiting_mean(self) -> float | None:
        """Requests that have arrived and hold no slot, mean over the time from the first arrival to the last step."""
        trace, residencies = self.trace, self.trace.residencies
        begin, end = trace.span_ns
        if end <= begin:
            return None
        left = np.full(len(trace.arrivals), end)
        left[list(trace.endings)] = [at for at, _, _ in trace.endings.values()]
        # From the arrival until the end, less the time in slots.
        waited = int((np.minimum(left, end) - np.minimum(self._arrival_ns, end)).sum())
        held = np.minimum(residencies.to_ns, end) - residencies.from_ns
        return (waited - int(held.sum())) / (end - begin)

    @property
    def waiting_peak(self) -> int:
        """Longest waiting queue a step left behind."""
        return int(over_replicas(self.trace, self.trace.steps.waiting).max()) if len(self.trace.steps) else 0

    @property
    def schedule_ms(self) -> Floats:
        """Time of each step's schedule on the host, where the trace says it."""
        steps = self.trace.steps
        known = steps.scheduled_ns != ABSENT
        spent: Floats = (steps.scheduled_ns - steps.host_start_ns)[known] / 1e6
        return spent

    @property
    def refill_ceiling(self) -> float | None:
        """How much faster refilling slots can be at most than static batches: sum of slots x longest / sum of lengths.

        Batches are the requests in the order of their arrival, `slots` at a time, lengths their output tokens; as if a
        step cost the same whatever is in it.
        """
        slots, lengths = self.trace.header.slots, self.output_lengths
        if not lengths.sum():
            return None
        longest = [int(lengths[i : i + slots].max()) for i in range(0, len(lengths), slots)]
        return slots * sum(longest) / int(lengths.sum())


def _stretches(trace: Trace) -> Iterator[tuple[npt.NDArray[np.int32], Ints]]:
    """(request, time in ns) of the new output tokens, in order, some steps at a time."""
    steps = trace.steps
    for start in range(0, len(steps), _STRETCH):
        stop = min(start + _STRETCH, len(steps))
        members = slice(int(steps.first_member[start]), int(steps.first_member[stop]))
        request = np.repeat(steps.member_request[members], steps.member_sampled[members])
        if len(request):
            yield request, np.repeat(steps.end_ns[start:stop], np.diff(steps.first_token[start : stop + 1]))
