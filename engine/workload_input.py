"""The lines of a workload file: opened once, so that it may be a pipe; unpacked, bounded, recognised.

Knows what a file looks like from its first bytes. Does not know what its lines mean.
"""

import codecs
import gzip
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import zstandard
from tracereel.engine.workload import WorkloadError

MAX_LINES = 1_000_001
MAX_LINE_BYTES = 16 << 20
MAX_BYTES = 4 << 30

_HEAD_BYTES = 1 << 16
_PACKED_BYTES = 1 << 10
"""Packed bytes that are unpacked at once: they give at most about 30 MB."""
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_NOT_TEXT = {
    b"version https://git-lfs.github.com/spec/": "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`",
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"\xfd7zXZ\x00": "an xz archive; unpack it first",
    b"BZh": "a bzip2 archive; unpack it first",
    b"PAR1": "a Parquet file; convert it to JSON Lines",
    b"SQLite format 3": "an SQLite database; convert it to JSON Lines",
    b"\xff\xfe": "text in UTF-16; convert it to UTF-8",
    b"\xfe\xff": "text in UTF-16; convert it to UTF-8",
    b"<!DOCTYPE": "a web page, not the file behind it",
    b"<html": "a web page, not the file behind it",
}
"""Files that are refused, by their first bytes."""

Line = tuple[int, bytes]
"""A line's number, from 1, and its bytes."""


@dataclass(frozen=True)
class WorkloadInput:
    """A workload file that is being read: its first line that is not blank, and all of them, once."""

    path: Path
    first: bytes
    lines: Iterator[Line]

    def fault(self, line: int, what: str) -> WorkloadError:
        """The error that names the file and the line."""
        return WorkloadError(f"{self.path}, line {line}: {what}")

    @property
    def suffix(self) -> str:
        """The ending that says what is in it, that of the packing left out."""
        path = self.path.with_suffix("") if self.path.suffix in (".gz", ".zst") else self.path
        return path.suffix

    def text(self, most: int) -> str:
        """Everything that is left, as a text of at most so many bytes. Raises WorkloadError."""
        content = bytearray()
        number = 1
        for line_number, line in self.lines:
            content += b"\n" * (line_number - number) + line.rstrip(b"\r\n")  # blank lines keep their numbers
            number = line_number
            if len(content) > most:
                raise WorkloadError(f"{self.path}: is larger than {most:,} bytes")
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise WorkloadError(f"{self.path}: is not UTF-8 ({error.reason} at byte {error.start})") from None


def open_workload(path: Path) -> WorkloadInput:
    """Open a file, packed with gzip or zstd or not. Raises WorkloadError, which names its kind, for binary data."""
    lines = _lines(path)
    first = next(lines, None)
    return WorkloadInput(path, b"" if first is None else first[1], lines if first is None else _again(first, lines))


def _again(first: Line, rest: Iterator[Line]) -> Iterator[Line]:
    return itertools.chain([first], rest)


def _lines(path: Path) -> Iterator[Line]:
    """The lines that are not blank, with their numbers."""
    if path.is_dir():
        raise WorkloadError(f"{path}: is a folder, not a workload file")
    try:
        with path.open("rb") as file, _unpacked(path, file) as content:
            read = 0
            for number in itertools.count(1):
                line = content.readline(MAX_LINE_BYTES + 1)
                read += len(line)
                if not line:
                    return
                if len(line) > MAX_LINE_BYTES:
                    raise WorkloadError(f"{path}, line {number}: is longer than {MAX_LINE_BYTES >> 20} MiB")
                if number > MAX_LINES or read > MAX_BYTES:
                    raise WorkloadError(f"{path}: has more than {MAX_LINES:,} lines or {MAX_BYTES >> 30} GiB")
                if line.strip():
                    yield number, line.removeprefix(codecs.BOM_UTF8)
    except (EOFError, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise WorkloadError(f"{path}: cannot be unpacked ({error})") from None
    except OSError as error:
        raise WorkloadError(f"{path}: cannot be read ({error.strerror or error})") from None


def _unpacked(path: Path, file: BinaryIO) -> BinaryIO:
    """The content of a file, whatever it is packed with. Raises WorkloadError where it is not text."""
    head = file.read(_HEAD_BYTES)
    whole = cast("BinaryIO", io.BufferedReader(_Rewound(head, file)))
    if head.startswith(_GZIP):
        return _text_of(path, cast("BinaryIO", gzip.GzipFile(fileobj=whole)))
    if head.startswith(_ZSTD):
        return _text_of(path, cast("BinaryIO", io.BufferedReader(_Unzstd(whole))))
    return _text_of(path, whole)


def _text_of(path: Path, content: BinaryIO) -> BinaryIO:
    head = content.read(_HEAD_BYTES)
    for magic, what in _NOT_TEXT.items():
        if head.startswith(magic):
            raise WorkloadError(f"{path}: is {what}")
    if head.startswith((_GZIP, _ZSTD)):
        raise WorkloadError(f"{path}: is packed twice; unpack it first")
    return cast("BinaryIO", io.BufferedReader(_Rewound(head, content)))


class _Rewound(io.RawIOBase):
    """A stream whose beginning has been read already: that is read again from memory."""

    def __init__(self, head: bytes, rest: BinaryIO):
        self._head, self._rest = memoryview(head), rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        if self._head:
            part, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        else:
            part = memoryview(self._rest.read(len(buffer)))
        buffer[: len(part)] = part
        return len(part)


class _Unzstd(io.RawIOBase):
    """What a zstd stream holds; raises EOFError where a frame is cut, which the library's own reader does not say."""

    def __init__(self, packed: BinaryIO):
        self._packed = packed
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._rest, self._open, self._ready = b"", False, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        while not self._ready:
            packed = self._rest or self._packed.read(_PACKED_BYTES)
            if not packed:
                if self._open:
                    raise EOFError("it ends too early")
                return 0
            self._ready = memoryview(self._frame.decompress(packed))
            self._rest, self._open = self._frame.unused_data, not self._frame.eof
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
        part, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)
