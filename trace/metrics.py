"""What a run adds up to: latencies, throughput, occupancy. Every definition is the one in `SCHEMA.md`, section Metrics.

Knows one trace at a time. Does not compare runs (`compare`) and prints nothing.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from tracereel.trace.trace import ABSENT, Ints, Trace

Floats = npt.NDArray[np.float64]

DEFINITIONS = {
    "ttft": "TTFT: scheduled arrival to first output token on the host",
    "tpot": "TPOT: (end-to-end - TTFT) / (n - 1) per request, n <= 1 left out",
    "itl": "ITL: each gap between consecutive output tokens of a request",
    "e2el": "E2EL: scheduled arrival to last output token",
    "output_throughput": "output throughput: output tokens / (last token - first arrival), a second",
    "slot_occupancy": "slot occupancy: busy slot-steps / (slots x steps), weighted by step time; not the device's"
    " utilisation",
    "idle_slot_steps": "idle slot-steps: slots x steps in which no sequence advanced in the slot",
    "padding": "padding: token positions computed for nothing",
    "refill_ceiling": "refill ceiling: sum of slots x longest / sum of lengths over static batches; what refilling can"
    " give at most",
}


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
        if not len(values):
            return cls(0, None, None, None, None)
        p50, p90, p99 = np.percentile(values, [50, 90, 99]).tolist()
        return cls(len(values), float(values.mean()), p50, p90, p99)


class Metrics:
    """The metrics of one trace; seconds and milliseconds as the names say, each computed when first asked for."""

    def __init__(self, trace: Trace):
        self.trace = trace

    @cached_property
    def answered(self) -> Ints:
        """The requests that gave at least one output token."""
        _, bounds = self.trace.token_order
        return np.flatnonzero(np.diff(bounds) > 0)

    @cached_property
    def output_lengths(self) -> Ints:
        """Output tokens of every request."""
        return np.diff(self.trace.token_order[1])

    @cached_property
    def _token_ns(self) -> Ints:
        """Times of all output tokens, by request."""
        order, _ = self.trace.token_order
        return self.trace.steps.end_ns[self.trace.steps.token_step[order]]

    @cached_property
    def _arrival_ns(self) -> Ints:
        return np.array([arrival.arrival_ns for arrival in self.trace.arrivals], dtype=np.int64)

    @cached_property
    def ttft_ms(self) -> Floats:
        """TTFT of each answered request."""
        first = self._token_ns[self.trace.token_order[1][self.answered]]
        return (first - self._arrival_ns[self.answered]) / 1e6

    @cached_property
    def e2el_ms(self) -> Floats:
        """E2EL of each answered request."""
        last = self._token_ns[self.trace.token_order[1][self.answered + 1] - 1]
        return (last - self._arrival_ns[self.answered]) / 1e6

    @cached_property
    def tpot_ms(self) -> Floats:
        """TPOT of each request with two or more output tokens."""
        n = self.output_lengths[self.answered]
        many = n > 1
        return (self.e2el_ms - self.ttft_ms)[many] / (n[many] - 1)

    @cached_property
    def itl_ms(self) -> Floats:
        """Every gap between consecutive output tokens, requests one after the other."""
        gaps = np.diff(self._token_ns) / 1e6
        keep = np.ones(len(gaps), dtype=bool)
        bounds = self.trace.token_order[1][1:-1]
        keep[bounds[(bounds > 0) & (bounds < len(self._token_ns))] - 1] = False
        return gaps[keep]

    @property
    def output_tokens(self) -> int:
        """Output tokens of all requests."""
        return len(self._token_ns)

    @cached_property
    def duration_s(self) -> float:
        """Last token - first arrival, in seconds; 0 where there is no token."""
        if not len(self._token_ns):
            return 0.0
        return float(self._token_ns.max() - self._arrival_ns.min()) / 1e9

    @property
    def output_throughput(self) -> float | None:
        """Output tokens a second."""
        return self.output_tokens / self.duration_s if self.duration_s else None

    @property
    def request_throughput(self) -> float | None:
        """Ended requests a second."""
        ended = sum(1 for _, reason, _ in self.trace.endings.values() if reason in ("stop", "length"))
        return ended / self.duration_s if self.duration_s else None

    @cached_property
    def step_ms(self) -> Floats:
        """Duration of each step."""
        return (self.trace.steps.end_ns - self.trace.steps.start_ns) / 1e6

    @property
    def slot_steps(self) -> int:
        """Slots x steps."""
        return self.trace.header.slots * len(self.trace.steps)

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
        time = self.step_ms.sum() * self.trace.header.slots
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
        return int(self.trace.stays.preempted.sum())

    @property
    def kv_peak(self) -> int | None:
        """Most KV blocks held at once."""
        used = self.trace.steps.kv_used
        return int(used.max()) if len(used) and (used != ABSENT).any() else None

    @property
    def waiting_peak(self) -> int:
        """Longest waiting queue a step left behind."""
        return int(self.trace.steps.waiting.max()) if len(self.trace.steps) else 0

    @property
    def schedule_ms(self) -> Floats:
        """Time of each step's schedule on the host, where the trace says it."""
        steps = self.trace.steps
        known = steps.scheduled_ns != ABSENT
        spent: Floats = (steps.scheduled_ns - steps.start_ns)[known] / 1e6
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
