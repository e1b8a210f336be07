"""The command line: parses, dispatches, and turns every expected error into one line and exit code 2."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import metadata

from tracereel.cli import (
    check,
    clip,
    compare,
    diff,
    doctor,
    export,
    fetch,
    inspect,
    merge,
    pin,
    play,
    plot,
    record,
    render,
    verify,
)
from tracereel.cli.terminal import printable

COMMANDS = (record, render, check, merge, inspect, compare, diff, plot, play, export, verify, clip, pin, fetch, doctor)

EXTRAS = {
    "engine": ("torch", "gguf", "safetensors", "huggingface_hub", "tokenizers", "jinja2"),
    "scenes": ("manim", "uharfbuzz", "cairo", "av", "segno", "fontpkg_inter", "fontpkg_jetbrains_mono"),
    "analysis": ("matplotlib", "pyarrow"),
}
"""The optional parts of the package, and the modules that each brings."""


class CommandError(Exception):
    """What was asked cannot be done; the message is one line."""


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command's."""
    parser = argparse.ArgumentParser(
        prog="tracereel",
        description="Record what an LLM inference engine really did, step by step, and make a film of exactly that.",
    )
    parser.add_argument("--version", action="version", version=f"tracereel {metadata.version('tracereel')}")
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
    """Run one command; returns its exit code: 0 done, 1 a verdict against the file, 2 it could not be done."""
    args = build_parser().parse_args(argv)
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        print("tracereel: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has left, as `head` does; nothing more can be said to anybody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        extra = {package: extra for extra, packages in EXTRAS.items() for package in packages}
        if missing not in extra:
            raise
        print(
            f"tracereel: {missing} is not installed; install it with: pip install 'tracereel[{extra[missing]}]'",
            file=sys.stderr,
        )
        return 2
    except Exception as error:
        if not _is_expected(error):
            raise
        print(f"tracereel: {printable(str(error))}", file=sys.stderr)
        return 2


def _is_expected(error: Exception) -> bool:
    """Is it one of ours, whose message says in one line what is wrong and what to do?"""
    return type(error).__module__.startswith("tracereel.")


if __name__ == "__main__":
    sys.exit(main())
