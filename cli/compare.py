"""Compare runs: what each measured, the ratios with their uncertainty, and where a speed-up comes from.

Name the runs of the baseline first, then those it is compared with: `tracereel compare A-*.zst B-*.zst`. Runs with the
same settings count as repeats of each other. Refuses runs of different workloads, models, dtypes or devices, and runs
that differ in a setting that --across does not name.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracereel.cli.options import across_option, allow_broken_option

if TYPE_CHECKING:
    from tracereel.cli.tables import Sheet
    from tracereel.trace.analysis.compare import Estimate, Group
    from tracereel.trace.analysis.waterfall import Waterfall
    from tracereel.trace.state.columns import Trace

FEW = 5


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `compare`."""
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help="trace files or folders, baseline first")
    parser.add_argument("--slo", metavar="LIMITS", help="limits in ms for goodput, as ttft=200,tpot=50")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="one JSON object for each comparison instead of tables")
    how.add_argument("--markdown", action="store_true", help="Markdown instead of tables for a terminal")
    across_option(parser)
    allow_broken_option(parser)


def run(args: argparse.Namespace) -> int:
    """Compare the first group with each of the others."""
    from tracereel.cli.files import read_traces
    from tracereel.cli.tables import Page
    from tracereel.cli.terminal import say_json
    from tracereel.trace.analysis.comparable import NotComparableError, require_comparable
    from tracereel.trace.analysis.compare import estimate, group_runs
    from tracereel.trace.analysis.metrics import parse_slo
    from tracereel.trace.analysis.registry import compared

    slo = parse_slo(args.slo) if args.slo is not None else None
    traces = read_traces(args.traces, args)
    require_comparable(traces, args.across)
    base, *others = group_runs(traces, slo)
    if not others:
        runs = f"all {len(traces)} runs are repeats" if len(traces) > 1 else "the only run is"
        raise NotComparableError(f"{runs} of one case ({base.label}); name the runs of two cases or engines")
    page = Page(args.markdown)
    if not args.json:
        show_caveats(page, traces)
    for other in others:
        found = {name: estimate(base, other, name) for name in compared()}
        falls = waterfalls(base, other)
        if args.json:
            say_json(as_json(base, other, found, falls))
            continue
        page.heading(f"{other.label} against {base.label}")
        show_ratios(page, base, other, found)
        show_waterfall(page, falls)
    return 0


def waterfalls(base: "Group", other: "Group") -> "list[Waterfall]":
    """The waterfall of the median pair, then those of all pairs."""
    from tracereel.trace.analysis.pairs import median_pair, pairs_of
    from tracereel.trace.analysis.waterfall import waterfall

    pairs = [(base.traces[i], other.traces[k]) for i, k in pairs_of(base.traces, other.traces)]
    return [waterfall(before, after) for before, after in (median_pair(base.traces, other.traces), *pairs)]


def show_caveats(page: "Sheet", traces: "Sequence[Trace]") -> None:
    """What must be said of some of the traces, above all that is made from them."""
    caveats = [f"{trace.path}: {caveat}" for trace in traces for caveat in trace.caveats]
    for caveat in caveats:
        page.warning(caveat)
    if caveats:
        page.gap()


def show_ratios(
    page: "Sheet",
    base: "Group",
    other: "Group",
    found: "dict[str, Estimate | None]",
    names: tuple[str, str] | None = None,
) -> None:
    """Medians, ratio and interval of each metric; `names` head the columns in place of the groups' labels."""
    from tracereel.cli.tables import Table, number
    from tracereel.trace.analysis.comparable import differing_settings, settings_of
    from tracereel.trace.analysis.registry import compared_title

    rows = []
    for name, ratio in found.items():
        sides = [group.values[name] for group in (base, other)]
        medians = [_median([value for value in side if value is not None]) for side in sides]
        if medians == [None, None] or not any(medians):
            continue
        shown = f"{ratio.ratio:.2f}×" if ratio else "–"
        interval = f"{ratio.low:.2f}× to {ratio.high:.2f}×" if ratio and ratio.low is not None else "–"
        rows.append((compared_title(name), *(number(value) for value in medians), shown, interval))
    page.table(Table(("median of the runs", *(names or (base.label, other.label)), "ratio", "95 % interval"), rows))
    runs = f"{len(base.traces)} and {len(other.traces)} runs"
    some = next((ratio for ratio in found.values() if ratio), None)
    if some is None or some.low is None:
        page.remark(f"{runs}: too few for an interval")
    elif some.paired:
        page.remark(f"{runs}; ratio: median of the {some.n} pairs made one right after the other; interval: bootstrap")
    else:
        page.remark(f"{runs}, not interleaved; ratio: that of the medians; interval: bootstrap")
    if some and some.low is not None and some.n < FEW:
        page.remark(f"of fewer than {FEW} runs an interval comes out too narrow")
    for name, first, second in differing_settings([base.traces[0], other.traces[0]]):
        values = (settings_of(trace.header)[name] for trace in (first, second))
        page.remark(f"they differ in {name}: {' and '.join(map(str, values))}")
    page.gap()


def _median(values: "Sequence[float]") -> float | None:
    """The median, whole where all values are."""
    if not values:
        return None
    found = statistics.median(values)
    return int(found) if found == int(found) and all(isinstance(value, int) for value in values) else found


def show_waterfall(page: "Sheet", falls: "Sequence[Waterfall]") -> None:
    """Where the speed-up of the median pair comes from, and how far the pairs differ."""
    from tracereel.cli.tables import Table

    shown, every = falls[0], falls[1:]
    rows = [("as it was", f"{shown.before_ms:.3f}", "1.00×", "")]
    for i, part in enumerate(shown.parts):
        spread = [pair.parts[i].saved_ms for pair in every]
        between = f"{-max(spread):+.3f} to {-min(spread):+.3f}" if len(spread) > 1 else "–"
        rows.append((part.name, f"{-part.saved_ms:+.3f}", f"{part.speedup:.2f}×", between))
    rows.append(("as it is", f"{shown.after_ms:.3f}", f"{shown.speedup:.2f}×", ""))
    page.table(Table(("waterfall", "ms an output token", "speed-up so far", "over all pairs"), rows))
    ceiling = "" if shown.ceiling is None else f"refilling slots could give {shown.ceiling:.2f}× at most here; "
    page.remark(
        f"of the pair with the median speed-up; {ceiling}{shown.priced:.0%} of the step time is in steps of a"
        " shape that both measured, and faster steps speaks of those alone"
    )
    page.gap()


def as_json(
    base: "Group", other: "Group", found: "dict[str, Estimate | None]", falls: "Sequence[Waterfall]"
) -> dict[str, Any]:
    """One comparison as plain values."""
    return {
        "baseline": as_side(base),
        "compared": as_side(other),
        "ratios": found,
        "waterfall": falls[0],
        "waterfalls_of_pairs": falls[1:],
    }


def as_side(group: "Group") -> dict[str, Any]:
    """The runs of a case as plain values."""
    caveats = {str(trace.path): trace.caveats for trace in group.traces if trace.caveats}
    files = [str(trace.path) for trace in group.traces]
    return {"label": group.label, "files": files, "caveats": caveats, **group.values}
