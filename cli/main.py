"""The command line: parses, dispatches, and gives every end of a command its exit code (`errors` says it in a line)."""

import argparse
import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import NoReturn

from tracereel.cli import (
    check,
    clip,
    compare,
    diff,
    doctor,
    export,
    fetch,
    follow,
    inspect,
    ledger,
    merge,
    pin,
    play,
    plot,
    record,
    render,
    report,
    slides,
    verify,
)
from tracereel.cli.errors import explained, fault_report, faulty_input
from tracereel.cli.terminal import prepare, warn
from tracereel.trace import __version__

COMMANDS = (
    record,
    follow,
    render,
    slides,
    check,
    merge,
    inspect,
    compare,
    diff,
    plot,
    report,
    play,
    export,
    verify,
    ledger,
    clip,
    pin,
    fetch,
    doctor,
)


class _Parser(argparse.ArgumentParser):
    """argparse, with one printable line for what is wrong."""

    def error(self, message: str) -> NoReturn:
        """End the program with exit code 2."""
        warn(f"{self.prog}: {message}; see `{self.prog} --help`")
        raise SystemExit(2)


class _Terminated(BaseException):
    """The process was asked to end (SIGTERM)."""


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command's."""
    parser = _Parser(
        prog="tracereel",
        description="Record what an LLM inference engine really did, step by step, and make a film of exactly that.",
    )
    parser.add_argument("--version", action="version", version=f"tracereel {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        name = module.__name__.rsplit(".", 1)[-1]
        summary, _, details = (module.__doc__ or "").partition("\n\n")
        sub = commands.add_parser(
            name,
            help=summary.rstrip("."),
            description=f"{summary}\n\n{details}".strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.configure(sub)
        sub.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 a verdict against the file, 2 it could not be done.

    And 70 for a fault of tracereel's own, 130 where it was interrupted, 143 where SIGTERM ended it.
    """
    prepare()
    parser, given = build_parser(), sys.argv[1:] if argv is None else list(argv)
    if "" in given:  # a shell's variable that was not set: it would be taken for the default, or for this folder
        at = given.index("")
        parser.error(f"argument {at + 1} is empty{f', after {given[at - 1]}' if at else ''}")
    args = parser.parse_args(given)
    with _ended_in_order():
        try:
            code = int(args.run(args))
            sys.stdout.flush()  # here a full disk, or a reader that has left, still counts as a failure
            return code
        except KeyboardInterrupt:
            warn("tracereel: stopped")
            return 130
        except _Terminated:
            warn("tracereel: ended by SIGTERM")
            return 143
        except BrokenPipeError:
            # Whoever read our output has left, as `head` does; nothing more can be said to anybody.
            _drop_output()
            return 0
        except Exception as error:
            _name_output(error)
            line = explained(error) or faulty_input(args)
            warn(f"tracereel: {line or fault_report(error)}")
            return 2 if line else 70


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """Within it SIGTERM ends a command as Ctrl-C does: what it began is put in order."""

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _drop_output() -> None:
    """What is still to be printed has nowhere to go; Python would say so at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _name_output(error: Exception) -> None:
    """Name the output where it takes no more: what writes files names them itself."""
    if isinstance(error, OSError) and error.filename is None and error.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
        with contextlib.suppress(AttributeError):  # a library's own error
            error.filename = "the output"
        _drop_output()


if __name__ == "__main__":
    sys.exit(main())
