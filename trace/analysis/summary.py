"""Where a trace comes from, as plain values in words. What it adds up to is `registry.measured`."""

from tracereel.trace.analysis.model_words import named_model
from tracereel.trace.state.columns import Trace


def provenance(trace: Trace) -> dict[str, str | int | list[str] | None]:
    """Who ran what where; None where the trace does not say."""
    header = trace.header
    engine, model, device, run = header.engine, header.model, header.device, header.run
    workload = header.workload
    requests = None if workload.requests is None else _count(workload.requests, "request")
    return {
        "file": str(trace.path),
        "digest": trace.digest,
        "cut": trace.cut,
        "broken": trace.broken,
        "caveats": list(trace.caveats),
        "engine": " ".join(filter(None, (engine.name, engine.version, engine.commit))),
        "source_digest": engine.source_digest,
        "policy": header.policy,
        "run": f"{run.suite}/{run.case}, {run.repeat + 1} of {run.repeats}" if run else None,
        "model": f"{named_model(model)}, {model.weights} weights",
        "device": f"{device.name} ({device.kind})"
        + (f", {_count(device.threads, 'thread')}" if device.threads else ""),
        "libraries": ", ".join(f"{name} {version}" for name, version in header.libraries.items()) or None,
        "workload": ", ".join(filter(None, (workload.name, requests, workload.arrivals))),
        "workload_digest": workload.digest,
        "slots": header.slots,
        "token_budget": header.token_budget,
        "kv_blocks": header.kv_blocks,
        "kv_block_tokens": header.kv_block_tokens,
    }


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
