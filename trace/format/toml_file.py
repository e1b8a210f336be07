"""TOML files that people write: bounded before they are read, and refused in a line.

Knows bytes and types. Does not know what the values mean.
"""

from pathlib import Path
from typing import TypeVar

import msgspec

MAX_BYTES = 2**20
T = TypeVar("T")


class TomlFileError(Exception):
    """A file is not the TOML that it should be; the message is one line that does not name the file."""


def read_toml(path: Path, kind: type[T]) -> T:
    """The file's content as a value of the type.

    Raises TomlFileError where it cannot be read, holds over MAX_BYTES, is no TOML, is nested deeper or holds longer
    numbers than Python reads, or is not of the type.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise TomlFileError(f"cannot be read ({error.strerror or error})") from None
    if len(content) > MAX_BYTES:
        raise TomlFileError(f"is over {MAX_BYTES:,} bytes")
    try:
        return msgspec.toml.decode(content.decode(), type=kind)
    except UnicodeDecodeError as error:
        raise TomlFileError(f"is not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise TomlFileError("is nested too deep") from None
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise TomlFileError(" ".join(str(error).split())) from None
