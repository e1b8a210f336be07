"""Plot traces: figures for a paper or a page, as SVG, PNG or PDF, light or dark.

slots: which request held which slot when. tokens: output tokens over time. latency: distributions of TTFT, TPOT, ITL
and E2EL. queue: requests waiting and running, KV blocks. bounds: what kept further requests out of the
steps, as shares of time. batch: latency and throughput against the number of slots, from a sweep. steps: time of a
decode step against its batch size. Prints what was written.
"""

import argparse
from pathlib import Path

from tracereel.cli.options import across_option, allow_broken_option
from tracereel.cli.progress import ProgressReport
from tracereel.cli.terminal import say
from tracereel.trace.plots.names import NAMES


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `plot`."""
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help="trace files or folders of one workload")
    parser.add_argument(
        "--figure", action="append", choices=NAMES, help="draw this one; may be given again (default: all there can be)"
    )
    parser.add_argument("--out", type=Path, default=Path("plots"), help="folder for the figures (default: plots)")
    parser.add_argument("--format", choices=("svg", "png", "pdf"), default="svg", help="default: svg")
    parser.add_argument("--theme", choices=("light", "dark"), default="light", help="default: light")
    across_option(parser)
    allow_broken_option(parser)


def run(args: argparse.Namespace) -> int:
    """Draw, write, print the files."""
    from tracereel.cli.files import read_traces
    from tracereel.trace.analysis.comparable import require_comparable
    from tracereel.trace.analysis.compare import group_runs
    from tracereel.trace.plots.gallery import FIGURES, draw, missing
    from tracereel.trace.plots.style import THEMES, themed, write_figure

    traces = read_traces(args.traces, args)
    require_comparable(traces, {"slots", *args.across})  # figures name the slots
    groups = group_runs(traces)
    names = args.figure or [name for name in FIGURES if not missing(name, groups)] or list(FIGURES)
    files = []
    with themed(THEMES[args.theme]), ProgressReport() as report:
        for done, name in enumerate(names):
            report(f"drawing {name}", done, len(names))
            path = args.out / f"{name}.{args.format}"
            write_figure(draw(name, groups, THEMES[args.theme]), path)
            files.append(path)
    for path in files:
        say(path)
    return 0
