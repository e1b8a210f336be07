"""Report on runs in one HTML file, to attach to a pull request: what inspect, compare and plot say, and the player.

Name the baseline's runs first, as for `compare`. The file needs no network: provenance, metrics with their definitions,
ratios with intervals, the waterfall, the figures, and the player with the median run of each case. Prints its path;
`tracereel verify FILE.html` makes it again from the recordings and compares.
"""

import argparse
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracereel.cli.options import across_option, allow_broken_option
from tracereel.cli.progress import ProgressReport
from tracereel.cli.terminal import say

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from tracereel.cli.html import HtmlPage
    from tracereel.trace.analysis.compare import Group
    from tracereel.trace.state.columns import Trace

LARGEST_SVG = 400_000
"""Bytes; a figure with more strokes goes into the file as pixels."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `report`."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="trace files or folders, baseline first")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the file (default: report.html)")
    parser.add_argument("--slo", metavar="LIMITS", help="limits in ms for goodput, as ttft=200,tpot=50")
    across_option(parser)
    allow_broken_option(parser)


def run(args: argparse.Namespace) -> int:
    """Make the report and write it."""
    from tracereel.cli.files import read_traces
    from tracereel.trace.analysis.comparable import require_comparable
    from tracereel.trace.analysis.compare import group_runs
    from tracereel.trace.analysis.metrics import parse_slo
    from tracereel.trace.format.storage import replace_text

    slo = parse_slo(args.slo) if args.slo is not None else None
    traces = read_traces(args.runs, args)
    require_comparable(traces, args.across)
    with ProgressReport() as report:
        text = report_of(group_runs(traces, slo), slo, args.across, report)
    replace_text(args.out, text)
    say(args.out)
    return 0


def report_of(
    groups: "Sequence[Group]", slo: dict[str, float] | None, across: Sequence[str], report: ProgressReport
) -> str:
    """The file's text, and in it what it takes to make it again.

    Raises what drawing the figures and making the player's page raise.
    """
    from tracereel.cli.html import HtmlPage
    from tracereel.cli.report_data import DATA_ID, data_of
    from tracereel.player.page import build_page, inline_digests
    from tracereel.trace import __version__
    from tracereel.trace.analysis.model_words import named_model
    from tracereel.trace.check.invariants import contradictions

    header = groups[0].traces[0].header
    against = f" against {groups[0].label}" if len(groups) > 1 else ""
    named = [group.label for group in groups[1:]] or [groups[0].label]
    runs = sum(len(group.traces) for group in groups)
    page = HtmlPage(
        f"{', '.join(named)}{against}",
        f"{named_model(header.model)} ({header.model.weights} weights) · {header.device.name} ·"
        f" {header.workload.name} · {runs} runs · made with tracereel {__version__}",
    )
    every = [trace for group in groups for trace in group.traces]
    said = {}
    for done, trace in enumerate(every):
        report("checking", done, len(every))
        wrong = contradictions(trace.path)
        for warning in wrong if not trace.faulty else trace.caveats[:1]:
            page.warning(f"{trace.path.name}: {warning}")
        said[trace.path] = [*trace.caveats, *wrong]
    if some := sum(map(bool, said.values())):
        page.remark(f"Of {some} of {runs} runs something must be said: see Runs.")
    for other in groups[1:]:
        _comparison(page, groups[0], other)
    page.section("Runs")
    for group in groups:
        _repeats(page, group, said)
    page.section("Figures")
    _figures(page, groups, report)
    page.section("Player")
    medians = [_median(group) for group in groups]
    page.text("The median run of each case: stop it, go back, look at one request.")
    page.frame("Player with the median runs", build_page(medians))
    page.section("Metrics and provenance")
    _facts(page, groups, slo)
    page.data(DATA_ID, data_of(every, slo, across))
    scripts, styles = inline_digests()
    return page.file(scripts=scripts, styles=styles)


def _comparison(page: "HtmlPage", base: "Group", other: "Group") -> None:
    from tracereel.cli import charts
    from tracereel.cli.compare import show_ratios, show_waterfall, waterfalls
    from tracereel.trace.analysis.compare import estimate
    from tracereel.trace.analysis.registry import compared, compared_title

    page.section(f"{other.label} against {base.label}")
    found = {name: estimate(base, other, name) for name in compared()}
    page.drawing(charts.intervals({compared_title(name): ratio for name, ratio in found.items() if ratio}))
    show_ratios(page, base, other, found)
    falls = waterfalls(base, other)
    page.heading("Where it comes from")
    page.drawing(charts.waterfall(falls[0]))
    show_waterfall(page, falls)


def _repeats(page: "HtmlPage", group: "Group", said: Mapping[Path, Sequence[str]]) -> None:
    """Every run of a case, what it measured, and what must be said of it."""
    from tracereel.cli.tables import Table, number
    from tracereel.trace.analysis.registry import compared_title

    shown = [key for key, values in group.values.items() if any(value is not None for value in values)]
    digests = ("digest", *(trace.name for trace in group.traces))
    rows = [digests, *((compared_title(key), *map(number, group.values[key])) for key in shown)]
    page.heading(f"{group.label}, {len(group.traces)} run{'s' if len(group.traces) > 1 else ''}")
    page.table(Table(("file", *(trace.path.name for trace in group.traces)), rows))
    for trace in group.traces:
        for caveat in said[trace.path]:
            page.remark(f"{trace.path.name}: {caveat}")


def _median(group: "Group") -> "Trace":
    from tracereel.trace.analysis.pairs import median_run

    answered = [trace for trace in group.traces if len(trace.steps.token_id)]
    return median_run(answered) if answered else group.traces[0]


def _figures(page: "HtmlPage", groups: "Sequence[Group]", report: ProgressReport) -> None:
    from tracereel.trace.plots.gallery import FIGURES, draw, missing
    from tracereel.trace.plots.style import THEMES, themed

    names = [name for name in FIGURES if not missing(name, groups)]
    for done, name in enumerate(names):
        report(f"drawing {name}", done, len(names))
        kind, drawn = "svg", {}
        for theme in THEMES.values():
            with themed(theme):
                figure = draw(name, groups, theme)
                drawn[theme.name] = _file(figure, kind)
                if len(drawn[theme.name]) > LARGEST_SVG:
                    kind, drawn[theme.name] = "png", _file(figure, "png")
        page.picture(f"figure {name}", kind, drawn)
        if kind == "png":
            page.remark(f"As pixels, for its size: `tracereel plot --figure {name}` draws it as SVG.")
    if not names:
        page.text("These runs hold too little for a figure.")


def _file(figure: "Figure", kind: str) -> bytes:
    from tracereel.trace.plots.style import save_figure

    written = io.BytesIO()
    save_figure(figure, written, kind)
    return written.getvalue()


def _facts(page: "HtmlPage", groups: "Sequence[Group]", slo: dict[str, float] | None) -> None:
    """The median run of each case in full, as `inspect` shows it; the definitions once."""
    from tracereel.cli.inspect import facts_of, show_bounds, show_definitions, show_metrics, show_origin

    known: dict[str, Any] = {}
    for group in groups:
        trace = _median(group)
        facts = facts_of(trace, slo)
        page.heading(f"{group.label}: {trace.path.name}, the median run")
        show_origin(page, facts)
        show_metrics(page, facts)
        show_bounds(page, facts)
        known |= {name: value for name, value in facts.items() if value is not None or name not in known}
    page.heading("Definitions")
    show_definitions(page, known)
