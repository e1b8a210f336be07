"""Every metric of a run, once: name, unit, label, definition, and the function that gives it.

`inspect`, `compare`, `diff` and figures show what is registered here; SCHEMA.md's table is made from it (a test holds
the two together), and each metric is a query of its own name for scenes. `register` adds one of your own.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tracereel.trace.analysis.metrics import Distribution, Metrics
from tracereel.trace.state.columns import Trace

Result = int | float | Distribution | None
"""What a metric of a run is: a number, a distribution, or None where the trace does not say."""
COMPARED_PARTS = ("p50", "p99")
"""The parts of a distribution that are compared."""


@dataclass(frozen=True)
class Metric:
    """A metric. `name` stands in JSON and ledgers, `label` and `unit` where people read; `of` computes it."""

    name: str
    label: str
    unit: str
    definition: str
    of: Callable[[Metrics], Result]
    compared: bool = False
    """Do `compare` and `diff` show it?"""
    distribution: bool = False
    """Does `of` give a Distribution?"""

    @property
    def title(self) -> str:
        """Label and unit, as they stand next to a value."""
        return f"{self.label}, {self.unit}" if self.unit else self.label


METRICS: dict[str, Metric] = {}
"""Every metric by its name, in the order in which they are shown."""


def register(metric: Metric) -> None:
    """Add a metric. Raises ValueError where its name is taken."""
    if metric.name in METRICS:
        raise ValueError(f"there is a metric {metric.name!r} already")
    METRICS[metric.name] = metric


def measured(trace: Trace, limits_ms: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Every metric of a trace by its name; a distribution as a mapping of its parts.

    `limits_ms` are those of goodput, which is None without them (`metrics.parse_slo` reads them).
    """
    metrics = Metrics(trace, limits_ms)
    results = ((metric.name, metric.of(metrics)) for metric in METRICS.values())
    return {name: asdict(result) if isinstance(result, Distribution) else result for name, result in results}


def compared() -> tuple[str, ...]:
    """The keys of what `compare` shows: a metric's name, or name and part of a distribution, as `ttft_ms.p50`."""
    return tuple(
        f"{metric.name}.{part}" if part else metric.name
        for metric in METRICS.values()
        if metric.compared
        for part in (COMPARED_PARTS if metric.distribution else ("",))
    )


def compared_title(key: str) -> str:
    """How a key of `compared` is called, with its unit."""
    name, _, part = key.partition(".")
    metric = METRICS[name]
    return f"{metric.label} {part}, {metric.unit}" if part else metric.title


def schema_table() -> str:
    """The table of metrics as it stands in SCHEMA.md."""
    rows = [f"| {metric.label} | {metric.unit or '–'} | {metric.definition} |" for metric in METRICS.values()]
    return "\n".join(["| metric | unit | definition |", "|---|---|---|", *rows])


def _samples(name: str) -> Callable[[Metrics], Distribution]:
    return lambda metrics: Distribution.of(getattr(metrics, name))


_OWN = (
    Metric("requests", "requests", "", "requests that arrived", lambda m: len(m.trace.arrivals)),
    Metric(
        "completed",
        "completed",
        "",
        "requests that ended with at least one output token and not by `abort`, `rejected` or `error`",
        lambda m: len(m.completed),
    ),
    Metric("output_tokens", "output tokens", "", "output tokens of all requests", lambda m: m.output_tokens),
    Metric("duration_s", "duration", "s", "first arrival to last output token", lambda m: m.duration_s),
    Metric(
        "output_throughput",
        "output throughput",
        "tokens/s",
        "output tokens / duration",
        lambda m: m.output_throughput,
        compared=True,
    ),
    Metric(
        "request_throughput",
        "request throughput",
        "requests/s",
        "completed requests / duration",
        lambda m: m.request_throughput,
        compared=True,
    ),
    Metric(
        "goodput",
        "goodput",
        "requests/s",
        "completed requests that meet every given limit on TTFT, TPOT and E2EL / duration; the TPOT of a request with"
        " n ≤ 1 is 0 there",
        lambda m: m.goodput,
        compared=True,
    ),
    Metric(
        "ttft_ms",
        "TTFT",
        "ms",
        "scheduled arrival (`arrival_ns`) to first output token",
        _samples("ttft_ms"),
        compared=True,
        distribution=True,
    ),
    Metric(
        "tpot_ms",
        "TPOT",
        "ms",
        "(E2EL − TTFT) / (n − 1) for each request of n output tokens; n ≤ 1 left out",
        _samples("tpot_ms"),
        compared=True,
        distribution=True,
    ),
    Metric(
        "itl_ms",
        "ITL",
        "ms",
        "each gap between consecutive output tokens of a request",
        lambda m: m.itl,
        compared=True,
        distribution=True,
    ),
    Metric(
        "e2el_ms",
        "E2EL",
        "ms",
        "scheduled arrival to last output token",
        _samples("e2el_ms"),
        compared=True,
        distribution=True,
    ),
    Metric(
        "queue_ms",
        "queue",
        "ms",
        "scheduled arrival to start of the step that gives the first slot",
        _samples("queue_ms"),
        distribution=True,
    ),
    Metric(
        "step_ms",
        "step",
        "ms",
        "time of each step: the device's where it measured, else from start to end on the host",
        _samples("step_ms"),
        distribution=True,
    ),
    Metric(
        "host_late_ms",
        "host lateness",
        "ms",
        "how long after the device had finished a step its tokens were on the host, where the device measured",
        _samples("host_late_ms"),
        distribution=True,
    ),
    Metric(
        "schedule_ms",
        "schedule",
        "ms",
        "time that each step's schedule took on the host",
        _samples("schedule_ms"),
        distribution=True,
    ),
    Metric("steps", "steps", "", "steps of the run", lambda m: len(m.trace.steps), compared=True),
    Metric("mean_batch", "mean batch", "", "members of a step, mean over the steps", lambda m: m.mean_batch),
    Metric(
        "slot_occupancy",
        "slot occupancy",
        "",
        "busy slot-steps / (slots × steps), weighted by step time; it is not the device's utilisation",
        lambda m: m.slot_occupancy,
    ),
    Metric("slot_steps", "slot-steps", "", "slots × steps", lambda m: m.slot_steps),
    Metric(
        "idle_slot_steps",
        "idle slot-steps",
        "",
        "slots × steps − members of all steps: slot-steps in which no sequence advanced",
        lambda m: m.idle_slot_steps,
        compared=True,
    ),
    Metric(
        "padding", "padding", "token positions", "positions computed for nothing", lambda m: m.padding, compared=True
    ),
    Metric(
        "preemptions",
        "preemptions",
        "",
        "how often a running request lost its slot and blocks",
        lambda m: m.preemptions,
        compared=True,
    ),
    Metric(
        "kv_mean",
        "KV use, mean",
        "blocks",
        "`kv_used`, weighted by the time from a step's start to the next one's",
        lambda m: m.kv_mean,
        compared=True,
    ),
    Metric("kv_peak", "KV use, peak", "blocks", "the largest `kv_used`", lambda m: m.kv_peak),
    Metric(
        "waiting_mean",
        "queue depth, mean",
        "requests",
        "requests that have arrived and hold no slot, mean over the time from the first arrival to the end of the last"
        " step",
        lambda m: m.waiting_mean,
        compared=True,
    ),
    Metric("waiting_peak", "queue depth, peak", "requests", "the largest `waiting`", lambda m: m.waiting_peak),
    Metric(
        "refill_ceiling",
        "refill ceiling",
        "×",
        "Σ slots × longest / Σ lengths over static batches of `slots` requests in the order of arrival: what refilling"
        " slots can give at most, if a step costs the same whatever is in it",
        lambda m: m.refill_ceiling,
    ),
)
for _metric in _OWN:
    register(_metric)
