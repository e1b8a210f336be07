"""Join the traces of an engine's replicas into one, on a common clock.

Checks each trace first. Refuses traces of different engines, models, workloads or settings, two of the same replica,
and runs whose times do not overlap, and names the field. Then it writes nothing.
"""

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `merge`."""
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help="one trace a replica")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="the merged trace")


def run(args: argparse.Namespace) -> int:
    """Merge."""
    from tracereel.cli.terminal import say
    from tracereel.trace.export.merge import merge
    from tracereel.trace.state.columns import Trace

    header = merge(args.traces, args.out)
    trace = Trace.read(args.out, allow_broken=True)
    say(f"{args.out}: {len(header.replicas)} replicas, {len(trace.arrivals)} requests, {len(trace.steps)} steps")
    if trace.broken:
        say(f"  {trace.broken}: a replica's recording lacks them, and so does this")
    if trace.cut:
        say(f"  {trace.cut}: a replica's recording was not whole, so neither is this")
    return 0
