"""What is told of one trace: where it comes from and what it adds up to, as plain values.

Knows the names and units under which metrics are shown. Does not know how they are printed.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tracereel.trace.analysis.metrics import Distribution, Metrics
from tracereel.trace.state.columns import Trace

LATENCIES = {
    "ttft_ms": "TTFT",
    "tpot_ms": "TPOT",
    "itl_ms": "ITL",
    "e2el_ms": "E2EL",
    "queue_ms": "queue",
    "step_ms": "step",
    "schedule_ms": "schedule",
}
"""The distributions of a summary, in milliseconds, and how they are called."""

LABELS = {
    "duration_s": "duration, s",
    "output_throughput": "output throughput, tokens/s",
    "request_throughput": "request throughput, requests/s",
    "goodput": "goodput, requests/s",
    "idle_slot_steps": "idle slot-steps",
    "padding": "padding, token positions",
    "kv_mean": "KV use, blocks, mean",
    "kv_peak": "KV use, blocks, peak",
    "waiting_mean": "queue depth, mean",
    "waiting_peak": "queue depth, peak",
    "refill_ceiling": "refill ceiling, ×",
}
"""How the other metrics are called, where it is not their name."""


def label(name: str) -> str:
    """How a metric is called."""
    return LATENCIES.get(name) or LABELS.get(name) or name.replace("_", " ").replace("kv", "KV")


def provenance(trace: Trace) -> dict[str, str | int | None]:
    """Who ran what where; None where the trace does not say."""
    header = trace.header
    engine, model, device, run = header.engine, header.model, header.device, header.run
    workload = header.workload
    requests = None if workload.requests is None else f"{workload.requests} requests"
    return {
        "file": str(trace.path),
        "digest": trace.digest,
        "cut": trace.cut,
        "engine": " ".join(filter(None, (engine.name, engine.version, engine.commit))),
        "source_digest": engine.source_digest,
        "policy": header.policy,
        "run": f"{run.suite}/{run.case}, {run.repeat + 1} of {run.repeats}" if run else None,
        "model": f"{model.name}, {model.weights} weights, {model.dtype}",
        "device": f"{device.name} ({device.kind})" + (f", {device.threads} threads" if device.threads else ""),
        "libraries": ", ".join(f"{name} {version}" for name, version in header.libraries.items()) or None,
        "workload": ", ".join(filter(None, (workload.name, requests, workload.arrivals))),
        "workload_digest": workload.digest,
        "slots": header.slots,
        "token_budget": header.token_budget,
        "kv_blocks": header.kv_blocks,
        "kv_block_tokens": header.kv_block_tokens,
    }


def measured(trace: Trace, slo: Mapping[str, float] | None = None) -> dict[str, Any]:
    """The metrics: numbers, and for each of LATENCIES a distribution; None where the trace does not say."""
    metrics = Metrics(trace)
    return {
        "requests": len(trace.arrivals),
        "completed": len(metrics.completed),
        "steps": len(trace.steps),
        "output_tokens": metrics.output_tokens,
        "duration_s": metrics.duration_s,
        "output_throughput": metrics.output_throughput,
        "request_throughput": metrics.request_throughput,
        "goodput": metrics.goodput(slo) if slo else None,
        "mean_batch": metrics.mean_batch,
        "slot_occupancy": metrics.slot_occupancy,
        "idle_slot_steps": metrics.idle_slot_steps,
        "padding": metrics.padding,
        "preemptions": metrics.preemptions,
        "kv_mean": metrics.kv_mean,
        "kv_peak": metrics.kv_peak,
        "waiting_mean": metrics.waiting_mean,
        "waiting_peak": metrics.waiting_peak,
        "refill_ceiling": metrics.refill_ceiling,
        **{
            name: asdict(metrics.itl if name == "itl_ms" else Distribution.of(getattr(metrics, name)))
            for name in LATENCIES
        },
    }
