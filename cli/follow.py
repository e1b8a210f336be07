"""Follow a llama.cpp server that runs already, and record its slots from outside.

Looks at /slots again and again, and sends prompts itself where they are given: JSON Lines with id, prompt and, if
wanted, output_tokens (the most, default: 128) and arrival_ms. Ends when they are answered; without prompts after
--seconds, or with Ctrl-C. A step of the trace is the time from one look that saw a slot advance to the next one. What
cannot be seen from outside is absent; docs/engines.md says what that is.
"""

import argparse
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tracereel.cli.options import trace_file
from tracereel.cli.terminal import say, warn


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `follow`."""
    parser.add_argument("url", metavar="URL", help="the server's address, such as http://127.0.0.1:8080")
    parser.add_argument("--out", type=trace_file, required=True, help="the trace file, .jsonl or .jsonl.zst")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="send these prompts")
    parser.add_argument("--seconds", type=_positive, metavar="S", help="follow for so long (default: until Ctrl-C)")
    parser.add_argument(
        "--interval-ms", type=_positive, default=1.0, metavar="MS", help="least time between two looks (default: 1)"
    )


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) <= 1e6:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is no number above 0, a million at most")


def run(args: argparse.Namespace) -> int:
    """Follow, and print the file."""
    from tracereel.engine.adapters.llama_cpp.follow import OUTPUT_TOKENS, Prompt, follow
    from tracereel.engine.adapters.llama_cpp.server import Server
    from tracereel.engine.workload_files import read_prompts

    prompts = [
        Prompt(each.id, each.prompt, each.output_tokens or OUTPUT_TOKENS, each.arrival_ms or 0.0)
        for each in (read_prompts(args.prompts) if args.prompts else ())
    ]
    stop, server = threading.Event(), Server(args.url)

    def end() -> None:
        stop.set()
        server.interrupt()

    with _called_by_signals(end):
        outcome = follow(
            server,
            args.out,
            prompts=prompts,
            workload=args.prompts.stem if args.prompts else "what came",
            seconds=args.seconds,
            interval_ms=args.interval_ms,
            stop=stop,
            ready=lambda: warn(f"following {args.url}; Ctrl-C ends the recording"),
        )
    say(args.out)
    if outcome.unseen:
        warn(f"tracereel: no look saw {outcome.unseen} requests, which are in no step")
    if outcome.broken:
        warn(f"tracereel: {outcome.broken} answers broke off ({outcome.fault or 'without a word'})")
        return 1
    return 0


@contextlib.contextmanager
def _called_by_signals(end: Callable[[], None]) -> Iterator[None]:
    """Within it Ctrl-C and SIGTERM end the recording in order; the file is whole then."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda *_: end())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
