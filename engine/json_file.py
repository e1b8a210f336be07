"""Reads the small files of a model's folder: bounded, typed, and refused in one line."""

from pathlib import Path
from typing import TypeVar

import msgspec
from tracereel.engine.model_config import ModelFileError

MAX_JSON_BYTES = 16 * 2**20
"""More than any file but the tokenizer's holds; a value takes up to 25 times its bytes in memory."""
_CHUNK_BYTES = 2**16
T = TypeVar("T")


def read_json(path: Path, kind: type[T], most: int = MAX_JSON_BYTES) -> T:
    """The file as a value of that type. Raises ModelFileError that names the file and the field at fault."""
    try:
        return msgspec.json.decode(read_bounded(path, most), type=kind)
    except RecursionError:
        raise ModelFileError(f"{path}: is nested too deep") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path}: {error}") from None


def read_bounded(path: Path, most: int) -> bytes:
    """The file's content. Raises ModelFileError where it cannot be read or holds more than `most` bytes."""
    content = bytearray()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                content += chunk
                if len(content) > most:
                    raise ModelFileError(f"{path}: is larger than {most:,} bytes")
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from None
    return bytes(content)
