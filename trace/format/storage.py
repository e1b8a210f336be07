"""Trace files: lines in and lines out, plain or zstd, bounded, and never half-replaced.

Knows bytes, lines and digests. Does not know what a line means: that is `events` and `invariants`.
"""

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import zstandard
from tracereel.trace.format.atomic import PARTIAL_SUFFIX, replacing, target_of, unfinished_name

MAX_LINE_BYTES = 32 * 2**20
"""A longer line is refused: it bounds the memory that reading takes, also of a compressed file made to explode."""

MAX_EXPANSION = 250
"""Times that a compressed trace may grow when it is read; recordings grow 5 to 13 times. Bounds the columns' memory."""
_FREE_BYTES = 32 * 2**20

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_GZIP_MAGIC = b"\x1f\x8b"
_LFS_POINTER = b"version https://git-lfs"
_CHUNK = 2**20
_BUFFER_BYTES = 2**16


class TraceError(Exception):
    """A trace cannot be used. The message is one line: the file, the line where there is one, and the fault."""

    def __init__(self, path: Path | str, message: str, line: int | None = None):
        self.path, self.line, self.reason = Path(path), line, message
        super().__init__(f"{path}{'' if line is None else f', line {line}'}: {message}")


class LineReader:
    """Iterates over the whole lines of a trace file as (line number from 1, bytes without the line end).

    After the iteration `digest` is the SHA-256 (hex) of all lines but the last, `digest_all` of all of them, each with
    its line end, and `cut` says why the file is not whole, or is None: it ends within a record, or its name says that
    its writer has not put it in its place.

    Raises TraceError where the file cannot be opened, holds a line over MAX_LINE_BYTES or broken zstd data.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.cut: str | None = None
        self.digest = self.digest_all = hashlib.sha256().hexdigest()

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        hashed = hashlib.sha256()
        last = b""  # the newest whole line; hashed once another one follows it
        number = 0
        rest = b""
        for chunk in self._chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            if lines:
                hashed.update(b"\n".join((last, *lines[:-1], b"")) if number else b"\n".join((*lines[:-1], b"")))
                last = lines[-1]
            for line in lines:
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise TraceError(self.path, f"the line is over {MAX_LINE_BYTES} bytes", number)
                yield number, line
            if len(rest) > MAX_LINE_BYTES:
                raise TraceError(self.path, f"the line is over {MAX_LINE_BYTES} bytes", number + 1)
        if rest and self.cut is None:
            self.cut = f"line {number + 1} has no end"
        if self.cut is None and self.path.name.endswith(PARTIAL_SUFFIX):
            # A writer that is ended between its last line and the move leaves all of them.
            self.cut = f"its name ends in {PARTIAL_SUFFIX}, so its writer was ended before it was done"
        self.digest = hashed.hexdigest()
        if number:
            hashed.update(last + b"\n")
        self.digest_all = hashed.hexdigest()

    def _chunks(self) -> Iterator[bytes]:
        try:
            # A trace is read more than once, and opening a pipe that nobody writes to would wait for ever.
            if not stat.S_ISREG(mode := self.path.stat().st_mode) and not stat.S_ISDIR(mode):
                raise TraceError(self.path, "is not a regular file; write the trace to a file first")
            with self.path.open("rb") as file:
                head = file.read(len(_LFS_POINTER))
                file.seek(0)
                if head.startswith(_GZIP_MAGIC):
                    raise TraceError(self.path, "is gzip data; a trace is JSON Lines, plain or zstd: unpack it first")
                if head == _LFS_POINTER:
                    raise TraceError(self.path, "is a Git LFS pointer, not the trace; get that with `git lfs pull`")
                compressed = head.startswith(ZSTD_MAGIC)
                yield from self._decompressed(file) if compressed else iter(lambda: file.read(_CHUNK), b"")
        except IsADirectoryError:
            raise TraceError(self.path, "is a folder; name a trace file") from None
        except OSError as error:
            raise TraceError(self.path, f"cannot be read ({error.strerror or error})") from None

    def _decompressed(self, file: BinaryIO) -> Iterator[bytes]:
        # Asked for a bounded number of bytes at a time: a small file may expand without end.
        unpack = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(file, read_across_frames=True)
        allowed = max(_FREE_BYTES, MAX_EXPANSION * os.fstat(file.fileno()).st_size)
        try:
            while chunk := unpack.read(_CHUNK):
                if (allowed := allowed - len(chunk)) < 0:
                    raise TraceError(self.path, f"expands more than {MAX_EXPANSION} times; no recording does")
                yield chunk
        except zstandard.ZstdError as error:
            self.cut = f"the zstd data is broken ({error})"


class LineWriter:
    """Writes lines to `path`, zstd where its name ends in .zst.

    The lines go to a temporary file next to it, named `….partial`; `commit()` ends that file and puts it in
    the place of `path` in one move, so that an earlier file is replaced only by a whole one. As a context manager it
    commits at a normal end and removes the partial file after an exception. A forked child's copy writes nothing.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._target = target_of(self.path)
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self.partial = self._target.with_name(unfinished_name(self._target.name))
        self.digest = hashlib.sha256()
        # Not buffered by Python, which would write a forked child's copy of the buffer at that child's end.
        self._file = self.partial.open("xb", buffering=0)
        self._buffer = bytearray()
        self._pack = zstandard.ZstdCompressor(level=6).compressobj() if self.path.suffix == ".zst" else None
        self._process = os.getpid()

    def write(self, lines: bytes) -> None:
        """Write one or more whole lines."""
        self.digest.update(lines)
        self._buffer += self._pack.compress(lines) if self._pack else lines
        if len(self._buffer) >= _BUFFER_BYTES:
            self._drain()

    def flush(self) -> None:
        """Make what was written readable by others. Raises OSError, also where the file has vanished meanwhile."""
        if self._pack:
            self._buffer += self._pack.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        self._drain()
        if not self.partial.exists():  # a removed file takes writes without a word
            raise FileNotFoundError(errno.ENOENT, f"{self.partial.name} is not there any more")

    def _drain(self) -> None:
        try:
            while self._buffer and os.getpid() == self._process:
                del self._buffer[: self._file.write(self._buffer)]
        except OSError as error:
            error.filename = str(self.path)
            raise

    def commit(self) -> None:
        """End the file and put it in its place. Raises OSError; the partial file is left then."""
        if os.getpid() != self._process:
            return
        if self._pack:
            self._buffer += self._pack.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH)
            self._pack = None  # it takes nothing more, should the disk not take this
        self._drain()
        os.fsync(self._file.fileno())
        self._file.close()
        self.partial.replace(self._target)

    def abandon(self) -> None:
        """Close the partial file as it is and leave it where it is; one that holds nothing is removed."""
        with contextlib.suppress(OSError):  # what is still in memory has no place on a full disk
            self.flush()
        with contextlib.suppress(OSError):
            self._file.close()
        if os.getpid() == self._process:
            with contextlib.suppress(OSError):
                if self.partial.stat().st_size == 0:
                    self.partial.unlink()

    def discard(self) -> None:
        """Close the partial file and remove it."""
        with contextlib.suppress(OSError):
            self._file.close()
        if os.getpid() == self._process:
            with contextlib.suppress(OSError):
                self.partial.unlink()

    def __enter__(self) -> "LineWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if kind is None:
                self.commit()
        except BaseException:
            self.discard()
            raise
        if kind is not None:
            self.discard()


def replace_text(path: Path, text: str) -> None:
    """Write a small text file whole or not at all. Raises OSError that names `path`."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, data: bytes) -> None:
    """Write a small file whole or not at all. Raises OSError that names `path`."""
    with replacing(path) as part:
        part.write_bytes(data)
