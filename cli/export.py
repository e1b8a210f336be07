"""Export a trace: Chrome JSON for ui.perfetto.dev, or Parquet or CSV tables.

Perfetto shows slots as threads, requests as spans, and counters for queue, batch, KV blocks and tokens. The tables are
requests, residencies in slots, steps, members (one row for each sequence of a step) and tokens, in a folder. Prints
what was written.
"""

import argparse
from pathlib import Path

from tracereel.cli.options import allow_broken_option
from tracereel.cli.progress import ProgressReport
from tracereel.cli.terminal import say

FORMATS = ("perfetto", "parquet", "csv")


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `export`."""
    parser.add_argument("trace", type=Path, metavar="TRACE", help="a trace file")
    parser.add_argument("--format", choices=FORMATS, default="perfetto", help="default: perfetto")
    parser.add_argument(
        "--out",
        type=Path,
        help="file (perfetto) or folder (tables) to write (default: here, named after the trace)",
    )
    allow_broken_option(parser)


def run(args: argparse.Namespace) -> int:
    """Write it and print the files."""
    from tracereel.trace.export.perfetto import write_perfetto
    from tracereel.trace.state.columns import Trace

    if args.format != "perfetto":
        from tracereel.trace.export.tables import write_tables
    trace = Trace.read(args.trace, allow_broken=args.allow_broken)
    name = args.trace.name.split(".jsonl")[0]
    with ProgressReport() as report:

        def progress(done: int, total: int) -> None:
            report(f"writing {args.format}", done, total)

        if args.format == "perfetto":
            files = [args.out or Path(f"{name}.perfetto.json")]
            write_perfetto(trace, files[0], progress)
        else:
            files = write_tables(trace, args.out or Path(f"{name}.{args.format}"), args.format, progress)
    for file in files:
        say(file)
    return 0
