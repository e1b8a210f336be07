"""Check traces against everything that must hold: lifecycle, tokens, slots, blocks, queues, times, digest.

Prints one line for each file, and every violation with its line. --strict is for authors of emitters. Exit code 0: all
whole and valid; 1: a violation, or a recording that was cut off; 2: a file that cannot be read.
"""

import argparse
from itertools import islice
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `check`."""
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help="trace files, or folders of them")
    parser.add_argument(
        "--strict",
        action="store_true",
        help="name misspelt fields, requests that never end and ids given twice as well: the conformance check of an"
        " emitter",
    )
    parser.add_argument(
        "--first",
        "--limit",
        dest="limit",
        type=int,
        default=20,
        metavar="N",
        help="print the first N violations of each file, 0 for all of them (default: 20)",
    )


def run(args: argparse.Namespace) -> int:
    """Check each file."""
    from tracereel.cli.files import trace_files
    from tracereel.cli.terminal import say
    from tracereel.trace.check.conformance import strictly
    from tracereel.trace.check.invariants import check

    bad = False
    for path in trace_files(args.traces):
        limit = args.limit if args.limit > 0 else None
        report = check(path, limit=limit)
        if args.strict and report.complete:
            found = strictly(path)
            report.violations += islice(found, limit and limit - len(report.violations))
            report.complete = next(found, None) is None
        bad = bad or not report.ok
        counts = f"{report.requests} requests, {report.steps} steps, {report.output_tokens} output tokens"
        more = "" if report.complete else " or more"
        verdict = f"{len(report.violations)}{more} violation(s)" if report.violations else report.cut or "ok"
        say(f"{path}: {verdict} ({counts})")
        for violation in report.violations:
            say(f"  {violation}")
    return 1 if bad else 0
