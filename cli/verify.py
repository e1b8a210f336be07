"""Verify a film or a page of `play`: recompute every number in it from the traces.

Reads the ledger next to a film; a page holds its own. Exit code 0: every claim is what the traces say;
1: one is not, or the ledger is not the film's; 2: something cannot be read.
"""

import argparse
from pathlib import Path

from tracereel.cli.terminal import say


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `verify`."""
    parser.add_argument(
        "film", type=Path, help="a film made by tracereel, its .ledger.json next to it, or a page of play"
    )
    parser.add_argument(
        "--trace",
        type=Path,
        nargs="+",
        metavar="TRACE",
        help="trace files or folders (default: $TRACEREEL_RECORDINGS, then the package's recordings)",
    )


def run(args: argparse.Namespace) -> int:
    """Recompute and say what differs."""
    import os

    from tracereel.trace.recordings.index import ENVIRONMENT, PACKAGE_RECORDINGS

    traces = args.trace or [Path(os.environ.get(ENVIRONMENT) or PACKAGE_RECORDINGS)]
    if args.film.suffix == ".html":
        return _verify_page(args.film, traces)
    from tracereel.film.verification import verify

    verdict = verify(args.film, traces)
    for fault in verdict.faults[:20]:
        say(f"  {fault}")
    more = len(verdict.faults) - 20
    if more > 0:
        say(f"  and {more} more")
    say(f"{args.film}: {verdict.claims} claims, {len(verdict.faults)} fault(s)")
    return 1 if verdict.faults else 0


def _verify_page(page: Path, traces: list[Path]) -> int:
    from tracereel.player.verification import verify_page

    verdict = verify_page(page, traces)
    for fault in verdict.faults[:20]:
        say(f"  {fault}")
    say(f"{page}: {verdict.runs} run(s), {verdict.figures} figures, {len(verdict.faults)} fault(s)")
    return 1 if verdict.faults else 0
