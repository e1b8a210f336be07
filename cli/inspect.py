"""Show what a trace holds: where it comes from, its metrics with their definitions, and what bound its steps.

Prints tables for each trace, or with --json one JSON object a line, with --markdown tables to paste into a page. What
bound the steps is why no further request was admitted to them. With --stalls also the steps whose prefill made decoding
requests wait longest for a token.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracereel.cli.options import allow_broken_option

if TYPE_CHECKING:
    from tracereel.cli.tables import Sheet
    from tracereel.trace.state.columns import Trace


BOUNDS, STALLS = "step_bounds", "stalls"
SHOWN_STALLS, SHOWN_REQUESTS = 10, 3


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `inspect`."""
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help="trace files, or folders of them")
    parser.add_argument(
        "--slo",
        metavar="LIMITS",
        help="limits in ms that a request must meet to count for goodput: any of ttft, tpot, e2el, as ttft=200,tpot=50",
    )
    parser.add_argument("--stalls", action="store_true", help="which prefill stalled whom: the ten longest stalls")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="one JSON object a line instead of tables")
    how.add_argument("--markdown", action="store_true", help="Markdown instead of tables for a terminal")
    allow_broken_option(parser)


def run(args: argparse.Namespace) -> int:
    """Inspect each file."""
    from tracereel.cli.files import trace_files
    from tracereel.cli.tables import Page
    from tracereel.cli.terminal import say_json
    from tracereel.trace.analysis.metrics import parse_slo
    from tracereel.trace.state.columns import Trace

    slo = parse_slo(args.slo) if args.slo is not None else None
    page = Page(args.markdown)
    for path in trace_files(args.traces):
        trace = Trace.read(path, tokens=False, allow_broken=args.allow_broken)
        facts = facts_of(trace, slo)
        if args.stalls:
            facts[STALLS] = stalls_of(trace)
        if args.json:
            say_json(facts)
        else:
            show(page, facts)
    return 0


def facts_of(trace: "Trace", slo: dict[str, float] | None) -> dict[str, Any]:
    """What the tables of a trace show, as plain values; of the limits in `slo` (ms) where there are any."""
    from tracereel.trace.analysis.registry import measured
    from tracereel.trace.analysis.special import special_facts
    from tracereel.trace.analysis.step_bounds import bound_shares
    from tracereel.trace.analysis.summary import provenance

    limits = {"slo_ms": slo} if slo else {}
    shares = bound_shares(trace)
    return {**provenance(trace), **special_facts(trace.path), **limits, **measured(trace, slo), BOUNDS: shares}


def show(page: "Sheet", facts: dict[str, Any]) -> None:
    """One trace's tables."""
    page.heading(facts["file"])
    show_origin(page, facts)
    show_metrics(page, facts)
    show_bounds(page, facts)
    show_stalls(page, facts)
    show_definitions(page, facts)


def show_origin(page: "Sheet", facts: dict[str, Any]) -> None:
    """Where a trace comes from."""
    from tracereel.cli.tables import Table, number
    from tracereel.trace.analysis.registry import METRICS

    for caveat in facts["caveats"]:
        page.warning(caveat)
    origin = [
        (name.replace("_", " ").replace("kv", "KV"), number(value, 3))
        for name, value in facts.items()
        if name not in METRICS
        and name not in ("file", "cut", "broken", "caveats", "slo_ms", BOUNDS, STALLS)
        and value is not None
    ]
    page.table(Table(("", ""), origin, left=True))
    page.gap()


def show_metrics(page: "Sheet", facts: dict[str, Any]) -> None:
    """What a trace measured."""
    from tracereel.cli.tables import Table, number
    from tracereel.trace.analysis.registry import METRICS

    known = [metric for metric in METRICS.values() if facts[metric.name] is not None]
    page.table(Table(("", ""), [(m.title, number(facts[m.name], 3)) for m in known if not m.distribution]))
    page.gap()
    if limits := facts.get("slo_ms"):
        page.remark(f"limits for goodput: {', '.join(f'{name} ≤ {limit:g} ms' for name, limit in limits.items())}")
        page.gap()
    columns = ("mean", "p50", "p90", "p99")
    known = [metric for metric in known if not metric.distribution or facts[metric.name]["n"]]
    rows = [
        (f"{m.label}, {m.unit}", number(facts[m.name]["n"]), *(number(facts[m.name][part]) for part in columns))
        for m in known
        if m.distribution
    ]
    if rows:
        page.table(Table(("", "n", *columns), rows))
        page.gap()


def show_bounds(page: "Sheet", facts: dict[str, Any]) -> None:
    """Why no further request was admitted, as shares of the steps' time."""
    from tracereel.cli.tables import Table, number
    from tracereel.trace.analysis.step_bounds import WORDS

    if not facts[BOUNDS]:
        return
    page.remark("what bound the steps, of their time (the rule: trace/SCHEMA.md)")
    rows = [(WORDS[name], f"{number(100 * share, 1)} %") for name, share in facts[BOUNDS].items() if share]
    page.table(Table(("", ""), rows))
    if facts[BOUNDS]["unknown"]:
        lacking = [WORDS[name] for name in ("token_budget", "kv_blocks") if facts[name] is None]
        page.remark(f"{WORDS['unknown']}: the trace does not say its {' and '.join(lacking) or 'KV blocks in use'}")
    page.gap()


def stalls_of(trace: "Trace") -> list[dict[str, Any]]:
    """The longest stalls, as plain values."""
    from dataclasses import asdict

    from tracereel.trace.analysis.stalls import stalls

    return [
        {
            **asdict(stall),
            "step": int(trace.steps.index[stall.step]),
            "end_s": int(trace.steps.end_ns[stall.step]) / 1e9,
        }
        for stall in stalls(trace)[:SHOWN_STALLS]
        if stall.worst_ms
    ]


def show_stalls(page: "Sheet", facts: dict[str, Any]) -> None:
    """The steps whose prefill made decoding requests wait longest."""
    from tracereel.cli.tables import Table, number
    from tracereel.trace.format.text import request_label

    if STALLS not in facts:
        return
    page.remark("which prefill stalled whom: the longest stalls (the rule: trace/SCHEMA.md)")
    columns = (
        *("step", "its end, s", "prefilled", "prefill tokens", "decoding", "longest stalled"),
        *("its stall, ms", "all stalls, ms"),
    )
    rows = [
        (
            number(one["step"]),
            number(one["end_s"], 3),
            _listed(one["prefills"]),
            number(one["prefill_tokens"]),
            number(one["decodes"]),
            request_label(one["worst"]),
            number(one["worst_ms"], 3),
            number(one["total_ms"], 3),
        )
        for one in facts[STALLS]
    ]
    if rows:
        page.table(Table(columns, rows))
    else:
        page.remark("no request waited longer than its median gap for a token because of a prefill")
    page.gap()


def _listed(requests: tuple[int, ...]) -> str:
    from tracereel.trace.format.text import request_label

    more = len(requests) - SHOWN_REQUESTS
    return " ".join(map(request_label, requests[:SHOWN_REQUESTS])) + (f" and {more} more" if more > 0 else "")


def show_definitions(page: "Sheet", facts: dict[str, Any]) -> None:
    """How each metric that is shown is defined."""
    from tracereel.trace.analysis.registry import METRICS

    for metric in METRICS.values():
        value = facts[metric.name]
        if value is not None and (not metric.distribution or value["n"]):
            page.remark(f"{metric.label}: {metric.definition}")
    page.gap()
