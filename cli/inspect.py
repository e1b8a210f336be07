"""Show what a trace holds: where it comes from, and its metrics with their definitions.

Prints tables for each trace, or with --json one JSON object a line, with --markdown tables to paste into a page.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracereel.cli.tables import Page


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `inspect`."""
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help="trace files, or folders of them")
    parser.add_argument(
        "--slo",
        metavar="LIMITS",
        help="limits in ms that a request must meet to count for goodput: any of ttft, tpot, e2el, as ttft=200,tpot=50",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="one JSON object a line instead of tables")
    how.add_argument("--markdown", action="store_true", help="Markdown instead of tables for a terminal")


def run(args: argparse.Namespace) -> int:
    """Inspect each file."""
    import msgspec
    from tracereel.cli.files import trace_files
    from tracereel.cli.tables import Page
    from tracereel.trace.analysis.metrics import parse_slo
    from tracereel.trace.analysis.summary import measured, provenance
    from tracereel.trace.state.columns import Trace

    slo = parse_slo(args.slo) if args.slo is not None else None
    page = Page(args.markdown)
    for path in trace_files(args.traces):
        trace = Trace.read(path, tokens=False)
        facts = {**provenance(trace), **({"slo_ms": slo} if slo else {}), **measured(trace, slo)}
        if args.json:
            print(msgspec.json.encode(facts).decode())
        else:
            show(page, facts)
    return 0


def show(page: "Page", facts: dict[str, Any]) -> None:
    """One trace's tables."""
    from tracereel.cli.tables import Table, number
    from tracereel.trace.analysis.metrics import DEFINITIONS
    from tracereel.trace.analysis.summary import LATENCIES, label

    page.heading(facts["file"])
    if facts["cut"]:
        page.warning(f"This recording is not whole: {facts['cut']}.")
    plain = [
        (label(name), number(value, 3))
        for name, value in facts.items()
        if name not in ("file", "cut", "slo_ms") and value is not None and not isinstance(value, dict)
    ]
    split = next(i for i, (name, _) in enumerate(plain) if name == label("requests"))
    page.table(Table(("", ""), plain[:split], left=True))
    page.gap()
    page.table(Table(("", ""), plain[split:]))
    page.gap()
    if limits := facts.get("slo_ms"):
        page.remark(f"limits for goodput: {', '.join(f'{name} ≤ {limit:g} ms' for name, limit in limits.items())}")
        page.gap()
    rows = [
        (called, number(facts[name]["n"]), *(number(facts[name][column]) for column in ("mean", "p50", "p90", "p99")))
        for name, called in LATENCIES.items()
        if facts[name]["n"]
    ]
    page.table(Table(("ms", "n", "mean", "p50", "p90", "p99"), rows))
    page.gap()
    for name, definition in DEFINITIONS.items():
        value = facts[name]
        if value["n"] if isinstance(value, dict) else value is not None:
            page.remark(definition)
    page.gap()
