"""Print a film's ledger: what it claims, in which frames, and how it is measured again.

JSON Lines: the first says what the film is made from, every other one is a figure on screen, with its frames, the line
that it stood in, the query that gives it, and the records of the trace behind it.
"""

import argparse
from pathlib import Path

from tracereel.cli.terminal import say


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `ledger`."""
    parser.add_argument("film", type=Path, help="a film made by tracereel, its ledger next to it")


def run(args: argparse.Namespace) -> int:
    """Print it."""
    from tracereel.film.ledger import ledger_lines, read_ledger

    for line in ledger_lines(read_ledger(args.film)[0]):
        say(line)
    return 0
