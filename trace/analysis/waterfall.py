"""Where a speed-up comes from: refilled slots, larger batches, faster steps, time outside steps; they add up to it.

The definition is in `SCHEMA.md`, section Metrics, and nothing in it is modelled: every figure is a sum of steps that
were measured. It is the decomposition of a mean that demographers use, a change of composition priced at the old rates
and then a change of rates (E. M. Kitagawa, "Components of a Difference Between Two Rates", JASA 50, 1955), taken in one
fixed order. Knows two traces. Does not know whether they may be compared (`compare`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tracereel.trace.analysis.metrics import Metrics
from tracereel.trace.state.columns import Ints, Trace

PARTS = ("refilling slots", "larger batches", "faster steps", "outside steps")


class NoWaterfallError(ValueError):
    """A speed-up cannot be split; the message is one line."""


@dataclass(frozen=True)
class Part:
    """What one cause gave: milliseconds an output token that it saved, and the speed-up with it and all before it."""

    name: str
    saved_ms: float
    speedup: float


@dataclass(frozen=True)
class Waterfall:
    """A speed-up in parts. Times are milliseconds of the run an output token; `saved_ms` of the parts add up."""

    before_ms: float
    after_ms: float
    parts: tuple[Part, ...]
    priced: float
    """Share of the later run's step time (0 to 1) in steps of a shape that the earlier run measured too."""
    ceiling: float | None
    """The refill ceiling of the earlier run: what refilling alone can give at most.

    None where that run does not batch statically, or where its batches were not full: then more can be gained.
    """

    @property
    def speedup(self) -> float:
        """How many times faster an output token came."""
        return self.before_ms / self.after_ms


@dataclass(frozen=True)
class _Run:
    tokens: int
    duration_ns: float
    slot_steps: int
    step_ns: Ints
    shapes: Ints

    @classmethod
    def of(cls, trace: Trace) -> "_Run":
        metrics = Metrics(trace)
        if trace.header.replicas:
            raise NoWaterfallError(
                f"{trace.path}: a merged trace is no one sequence of steps; take its replicas' traces"
            )
        if not metrics.output_tokens or not trace.steps.batch.any():
            raise NoWaterfallError(f"{trace.path} holds no output token")
        step_ns = trace.steps.end_ns - trace.steps.start_ns
        return cls(metrics.output_tokens, metrics.duration_s * 1e9, metrics.slot_steps, step_ns, shapes_of(trace))


def shapes_of(trace: Trace) -> Ints:
    """The shape of each step, as one number: rows that decode or pad, and prefill tokens by powers of two.

    Steps of one shape do about the same work: a row of a decode is one token, and a row that is padding costs what it
    would cost if it were not.
    """
    steps = trace.steps
    rows = _of_steps(trace, steps.member_decode) + steps.padding
    prefill = _of_steps(trace, np.where(steps.member_decode, 0, steps.member_computed))
    octave = np.ceil(np.log2(np.maximum(prefill, 1))).astype(np.int64) + (prefill > 0)
    return rows * 64 + octave


def _of_steps(trace: Trace, column: npt.NDArray[Any]) -> Ints:
    """The sum over each step's members."""
    sums = np.concatenate([[0], np.cumsum(column, dtype=np.int64)])
    bounds = trace.steps.first_member
    return np.asarray(sums[bounds[1:]] - sums[bounds[:-1]])


def waterfall(before: Trace, after: Trace) -> Waterfall:
    """Split the speed-up of `after` over `before`. Raises NoWaterfallError where there is nothing to split."""
    a, b = _Run.of(before), _Run.of(after)
    price = {int(shape): float(a.step_ns[a.shapes == shape].mean()) for shape in np.unique(a.shapes)}
    priced_ns = shared_ns = 0.0
    for shape in np.unique(b.shapes).tolist():
        own = b.step_ns[b.shapes == shape]
        # A shape that the earlier run never had has no other price than its own: it is all a matter of batches.
        priced_ns += len(own) * price.get(shape, float(own.mean()))
        shared_ns += float(own.sum()) if shape in price else 0.0
    # Nanoseconds an output token in steps: as it was; with the later run's slot-steps at the earlier price; with its
    # steps at the earlier run's prices; as it is.
    in_steps = (
        float(a.step_ns.sum()) / a.tokens,
        float(a.step_ns.sum()) / a.slot_steps * b.slot_steps / b.tokens,
        priced_ns / b.tokens,
        float(b.step_ns.sum()) / b.tokens,
    )
    outside = a.duration_ns / a.tokens - in_steps[0], b.duration_ns / b.tokens - in_steps[3]
    totals = [*(ns + outside[0] for ns in in_steps), in_steps[3] + outside[1]]
    parts = [Part(name, (totals[i] - totals[i + 1]) / 1e6, totals[0] / totals[i + 1]) for i, name in enumerate(PARTS)]
    ceiling = Metrics(before).refill_ceiling if before.header.policy == "static" else None
    return Waterfall(
        before_ms=totals[0] / 1e6,
        after_ms=totals[4] / 1e6,
        parts=tuple(parts),
        priced=shared_ns / float(b.step_ns.sum()) if b.step_ns.any() else 0.0,
        ceiling=ceiling if ceiling is not None and parts[0].speedup <= ceiling else None,
    )
