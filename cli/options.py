"""Options that several commands share."""

import argparse


def across_option(parser: argparse.ArgumentParser) -> None:
    """The option of commands that compare to let settings differ that are what is compared."""
    parser.add_argument(
        "--across",
        action="append",
        default=[],
        metavar="SETTING",
        help="runs may differ in this setting, because it is what is compared: slots, token_budget, kv_blocks,"
        " kv_block_tokens, or config.NAME; may be given again",
    )


def allow_broken_option(parser: argparse.ArgumentParser) -> None:
    """The option of every command that reads traces to take those that do not hold what was recorded."""
    parser.add_argument(
        "--allow-broken",
        action="store_true",
        help="read recordings that are broken (changed after they were written, steps or requests missing) all the"
        " same; every output says that they are",
    )
