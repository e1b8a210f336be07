"""Reads the small JSON files that lie beside a model: bounded, typed, and refused in one line."""

from pathlib import Path
from typing import TypeVar

import msgspec
from tracereel.engine.model_config import ModelFileError

MAX_JSON_BYTES = 256 * 2**20
T = TypeVar("T")


def read_json(path: Path, kind: type[T]) -> T:
    """The file as a value of that type. Raises ModelFileError that names the file and the field at fault."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ModelFileError(f"{path}: larger than {MAX_JSON_BYTES} bytes")
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path}: {error}") from None
