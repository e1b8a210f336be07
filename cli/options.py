"""Options that several commands share."""

import argparse


def allow_broken_option(parser: argparse.ArgumentParser) -> None:
    """The option of every command that reads traces to take those that do not hold what was recorded."""
    parser.add_argument(
        "--allow-broken",
        action="store_true",
        help="read recordings that are broken (changed after they were written, steps or requests missing) all the"
        " same; every output says that they are",
    )
