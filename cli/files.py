"""Which trace files are meant by the paths on a command line."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tracereel.trace.format.storage import TraceError
from tracereel.trace.recordings.index import traces_below


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
