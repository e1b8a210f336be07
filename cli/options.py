"""Options that several commands share."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path


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


def trace_file(text: str) -> Path:
    """The name of a trace file that is to be written, as an option's type."""
    if not text.endswith((".jsonl", ".jsonl.zst")):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .jsonl or .jsonl.zst")
    return Path(text)


def whole(low: int, high: int) -> Callable[[str], int]:
    """What reads a whole number from `low` to `high`, as an option's type."""

    def read(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return read


def number(low: float, high: float) -> Callable[[str], float]:
    """What reads a number from `low` to `high`, as an option's type."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")
        return value

    return read
