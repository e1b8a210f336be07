"""Show what moved between two recordings of the same work: after an engine change, the old ones and the new ones.

OLD and NEW are trace files, or folders of repeats and cases; cases are matched by name. Shows each metric with its
interval, the first step in which the schedules of the median runs differ, what bound their steps, and the requests that
gained and lost most.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tracereel.cli.options import allow_broken_option

if TYPE_CHECKING:
    from tracereel.cli.tables import Page
    from tracereel.trace.analysis.diff import Difference, RequestChange

SHOWN = 5
"""Requests, and members of a step, that are listed on each side."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `diff`."""
    parser.add_argument("old", type=Path, metavar="OLD", help="a trace file, or a folder of them")
    parser.add_argument("new", type=Path, metavar="NEW", help="a trace file, or a folder of them")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="one JSON object for each case instead of tables")
    how.add_argument("--markdown", action="store_true", help="Markdown instead of tables for a terminal")
    allow_broken_option(parser)


def run(args: argparse.Namespace) -> int:
    """Compare case by case."""
    from tracereel.cli.compare import as_side, show_caveats
    from tracereel.cli.files import read_traces
    from tracereel.cli.tables import Page
    from tracereel.cli.terminal import say_json
    from tracereel.trace.analysis.diff import differences

    old, new = (read_traces([side], args) for side in (args.old, args.new))
    page = Page(args.markdown)
    if not args.json:
        show_caveats(page, [*old, *new])
    for difference in differences(old, new):
        if args.json:
            sides = {"old": as_side(difference.old), "new": as_side(difference.new)}
            bounds = dict(zip(("old", "new"), difference.bounds, strict=True))
            rest = {
                "ratios": difference.metrics,
                "step_bounds": bounds,
                "parting": difference.parting,
                "requests": difference.requests,
            }
            say_json({**sides, **rest})
        else:
            show(page, difference)
    return 0


def show(page: "Page", difference: "Difference") -> None:
    """One case's tables."""
    from tracereel.cli.compare import show_ratios
    from tracereel.trace.analysis.diff import case_of
    from tracereel.trace.analysis.registry import compared_title

    old, new = difference.old, difference.new
    cases = [case_of(group.traces[0]) for group in (old, new)]
    page.heading(
        f"{cases[0]}: new against old" if cases[0] == cases[1] else f"{cases[1]} (new) against {cases[0]} (old)"
    )
    show_ratios(page, old, new, difference.metrics, ("old", "new"))
    moved = [compared_title(name) for name, ratio in difference.metrics.items() if ratio and ratio.moved]
    if moved:
        page.remark(f"moved (the interval leaves out 1.00×): {', '.join(moved)}")
    parting = difference.parting
    if parting is None:
        page.remark("the schedules are the same, step by step")
    else:
        page.remark(f"the schedules part at step {parting.step}")
        for name, members in (("old", parting.old), ("new", parting.new)):
            more = f"; and {len(members) - SHOWN} more" if len(members) > SHOWN else ""
            page.remark(f"  only {name}: {'; '.join(members[:SHOWN]) or 'nothing'}{more}")
    page.gap()
    _show_bounds(page, difference)
    helped = [change for change in difference.requests if change.new_ms < change.old_ms][:SHOWN]
    hurt = [change for change in reversed(difference.requests) if change.new_ms > change.old_ms][:SHOWN]
    _show_requests(page, "most helped", helped)
    _show_requests(page, "most hurt", hurt)


def _show_bounds(page: "Page", difference: "Difference") -> None:
    """What bound the steps of both sides, as shares of their time."""
    from tracereel.cli.tables import Table, number
    from tracereel.trace.analysis.step_bounds import WORDS

    rows = []
    for name, called in WORDS.items():
        old, new = (round(100 * side.get(name, 0.0), 1) for side in difference.bounds)
        if old or new:
            rows.append((called, number(old, 1), number(new, 1), f"{new - old:+.1f}"))
    page.table(Table(("what bound the steps, % of their time", "old", "new", "change"), rows))
    page.gap()


def _show_requests(page: "Page", title: str, changes: "Sequence[RequestChange]") -> None:
    from tracereel.cli.tables import Table, number

    rows = [
        (
            change.id,
            number(change.old_ms),
            number(change.new_ms),
            f"{change.new_ms - change.old_ms:+,.2f}",
            f"{change.new_ms / change.old_ms:.2f}×" if change.old_ms else "–",
        )
        for change in changes
    ]
    if rows:
        page.table(Table((f"{title}: E2EL, ms", "old", "new", "change", "ratio"), rows))
        page.gap()
