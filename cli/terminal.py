"""The only way to the terminal: what is said there is printable, and escaped where the encoding lacks a character."""

import contextlib
import sys
from typing import Any

from rich.console import Console
from tracereel.trace.format.text import json_line, printable

__all__ = ["Terminal", "json_line", "prepare", "printable", "say", "say_json", "warn"]


class Terminal(Console):
    """Rich's console without its own markup; a reader that has left is an error like any other (rich exits with 1)."""

    def __init__(self, **options: Any):
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def on_broken_pipe(self) -> None:
        """Let the error through."""
        raise  # it is called where the error is handled


def prepare() -> None:
    """Have both streams take every text, whatever their encoding."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # a stream put there by somebody else
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def say(text: object = "") -> None:
    """Print lines to the output, at once: a full disk is known by then."""
    print("\n".join(map(printable, str(text).split("\n"))), flush=True)


def say_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    print(json_line(value), flush=True)


def warn(text: object) -> None:
    """Print one line to the error stream; where nobody reads that, nothing can be said."""
    with contextlib.suppress(OSError, ValueError):
        print(printable(str(text)), file=sys.stderr, flush=True)
