"""Which trace files are meant by the paths on a command line, and how they are read."""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

from tracereel.trace.format.storage import TraceError
from tracereel.trace.recordings.index import traces_below
from tracereel.trace.state.columns import Trace


def trace_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files themselves, and the traces in and below folders. Raises TraceError for a folder without any."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        inside = traces_below(path)
        if not inside:
            raise TraceError(path, "holds no trace (.jsonl or .jsonl.zst)")
        yield from inside


def read_traces(paths: Iterable[Path], args: argparse.Namespace) -> list[Trace]:
    """The traces that are meant. Raises TraceError where one cannot be read, or is broken without --allow-broken."""
    return [Trace.read(path, allow_broken=args.allow_broken) for path in trace_files(paths)]
