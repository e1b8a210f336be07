"""Show what a trace holds: where it comes from, and its metrics with their definitions.

Prints a table for each trace, or with --json one JSON object a line.
"""

import argparse
import sys
from pathlib import Path
from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `inspect`."""
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help="trace files, or folders of them")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of tables")


def run(args: argparse.Namespace) -> int:
    """Inspect each file."""
    import msgspec
    from rich.console import Console
    from tracereel.cli.files import trace_files
    from tracereel.trace.trace import Trace

    # Piped into a file or a pager there is no width to fit into; a terminal's own is kept.
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
    for path in trace_files(args.traces):
        facts = describe(Trace.read(path))
        if args.json:
            print(msgspec.json.encode(facts).decode())
        else:
            _print_table(console, facts)
    return 0


def describe(trace: Any) -> dict[str, Any]:
    """Everything `inspect` shows of a trace, as plain values; None where the trace does not say."""
    from dataclasses import asdict

    from tracereel.trace.metrics import Distribution, Metrics

    header, metrics = trace.header, Metrics(trace)
    return {
        "file": str(trace.path),
        "digest": trace.digest,
        "cut": trace.cut,
        "engine": " ".join(filter(None, (header.engine.name, header.engine.version, header.engine.commit))),
        "policy": header.policy,
        "case": f"{header.run.suite}/{header.run.case} {header.run.repeat + 1} of {header.run.repeats}"
        if header.run
        else None,
        "model": f"{header.model.name}, {header.model.weights} weights, {header.model.dtype}",
        "device": f"{header.device.name} ({header.device.kind})",
        "libraries": ", ".join(f"{name} {version}" for name, version in header.libraries.items()),
        "workload": f"{header.workload.name}, {header.workload.requests} requests, {header.workload.arrivals}",
        "slots": header.slots,
        "token_budget": header.token_budget,
        "kv_blocks": header.kv_blocks,
        "requests": len(trace.arrivals),
        "finished": len(trace.endings),
        "steps": len(trace.steps),
        "output_tokens": metrics.output_tokens,
        "duration_s": metrics.duration_s,
        "output_throughput": metrics.output_throughput,
        "request_throughput": metrics.request_throughput,
        "ttft_ms": asdict(Distribution.of(metrics.ttft_ms)),
        "tpot_ms": asdict(Distribution.of(metrics.tpot_ms)),
        "itl_ms": asdict(Distribution.of(metrics.itl_ms)),
        "e2el_ms": asdict(Distribution.of(metrics.e2el_ms)),
        "step_ms": asdict(Distribution.of(metrics.step_ms)),
        "schedule_ms": asdict(Distribution.of(metrics.schedule_ms)),
        "mean_batch": metrics.mean_batch,
        "slot_occupancy": metrics.slot_occupancy,
        "idle_slot_steps": metrics.idle_slot_steps,
        "padding": metrics.padding,
        "preemptions": metrics.preemptions,
        "kv_peak": metrics.kv_peak,
        "waiting_peak": metrics.waiting_peak,
        "refill_ceiling": metrics.refill_ceiling,
    }


def _print_table(console: Any, facts: dict[str, Any]) -> None:
    from rich.table import Table
    from tracereel.cli.terminal import printable
    from tracereel.trace.metrics import DEFINITIONS

    console.print(printable(facts["file"]), style="bold")
    if facts["cut"]:
        console.print(f"This recording is not whole: {facts['cut']}.", style="yellow")
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in facts.items():
        if name in ("file", "cut") or value is None or isinstance(value, dict):
            continue
        shown = f"{value:,.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
        table.add_row(name.replace("_", " "), printable(shown))
    console.print(table)
    latencies = Table("ms", "n", "mean", "p50", "p90", "p99", box=None, padding=(0, 2, 0, 0))
    for name, value in facts.items():
        if isinstance(value, dict) and value["n"]:
            numbers = (f"{value[column]:,.2f}" for column in ("mean", "p50", "p90", "p99"))
            latencies.add_row(name.removesuffix("_ms").replace("_", " "), f"{value['n']:,}", *numbers)
    console.print(latencies)
    for definition in DEFINITIONS.values():
        console.print(definition, style="dim")
    console.print()
