"""The header of a GGUF file: keys and values, and the place of each tensor.

The `gguf` package's reader is not used, because it makes several arrays for every token of the vocabulary: 3 s and
160 MB for a file of 98 MB. Follows https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3,
little-endian. Trusts no size in the file: memory is taken only for bytes that the file has, and for no more than a
model needs. Knows no architecture.
"""

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf.constants import GGUFValueType

_VERSIONS = (2, 3)
_NUMBERS: dict[GGUFValueType, np.dtype[Any]] = {
    GGUFValueType.UINT8: np.dtype("<u1"),
    GGUFValueType.INT8: np.dtype("<i1"),
    GGUFValueType.UINT16: np.dtype("<u2"),
    GGUFValueType.INT16: np.dtype("<i2"),
    GGUFValueType.UINT32: np.dtype("<u4"),
    GGUFValueType.INT32: np.dtype("<i4"),
    GGUFValueType.UINT64: np.dtype("<u8"),
    GGUFValueType.INT64: np.dtype("<i8"),
    GGUFValueType.FLOAT32: np.dtype("<f4"),
    GGUFValueType.FLOAT64: np.dtype("<f8"),
    GGUFValueType.BOOL: np.dtype("?"),
}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_MOST_BYTES = 64 * 2**20
"""The size of a header: 10 MB in a file of a large vocabulary. Python's values take up to 8 times more."""
_MOST_NAMES = 2**15
_LEAST_STRING, _LEAST_FIELD, _LEAST_TENSOR = 8, 13, 32
"""The fewest bytes that one can take: a count that the file has no room for is refused before anything is read."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor's shape with the rows first, its type, and the place of its bytes in the file."""

    shape: tuple[int, ...]
    kind: gguf.GGMLQuantizationType
    at: int
    row_bytes: int

    @property
    def rows(self) -> int:
        """How many rows of `row_bytes` there are."""
        return prod(self.shape[:-1])

    def read(self, path: Path, first: int, rows: int) -> npt.NDArray[np.uint8]:
        """Rows `first` and following as they are stored, [rows, row_bytes]. Raises OSError and ValueError."""
        data = np.fromfile(path, np.uint8, rows * self.row_bytes, offset=self.at + first * self.row_bytes)
        return data.reshape(rows, self.row_bytes)


@dataclass(frozen=True)
class GgufHeader:
    """A file's keys and tensors; a list of strings or numbers is a Python list."""

    values: dict[str, Any]
    tensors: dict[str, StoredTensor]


def read_header(path: Path) -> GgufHeader:
    """Read a file's header. Raises OSError, and ValueError where it is not a whole GGUF file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _Cursor(content).header()


class _Cursor:
    def __init__(self, content: mmap.mmap):
        self._content, self._size, self._at = content, len(content), 0

    def header(self) -> GgufHeader:
        if self._take(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version = self._u32()
        if version not in _VERSIONS:
            raise ValueError(f"version {version} is not supported; supported: 2 and 3, little-endian")
        tensors, fields = self._count(_LEAST_TENSOR), self._count(_LEAST_FIELD)
        if max(tensors, fields) > _MOST_NAMES:
            raise ValueError(f"it has {tensors} tensors and {fields} keys; at most {_MOST_NAMES:,} of each can be")
        values = self._named("key", fields, lambda: self._value(GGUFValueType(self._u32())))
        places = self._named("tensor", tensors, self._place)
        alignment = values.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment % 8:
            raise ValueError(f"general.alignment is {alignment!r}, expected a multiple of 8")
        data_at = -(-self._at // alignment) * alignment
        return GgufHeader(values, {name: self._tensor(name, data_at, *place) for name, place in places.items()})

    def _named(self, what: str, count: int, read: Callable[[], Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(count):
            name = self._string()
            if name in found:
                raise ValueError(f"the {what} {name!r} is there twice")
            found[name] = read()
        return found

    def _value(self, kind: GGUFValueType) -> Any:
        if kind == GGUFValueType.STRING:
            return self._string()
        if kind != GGUFValueType.ARRAY:
            return self._numbers(kind, 1)[0]
        of = GGUFValueType(self._u32())
        if of == GGUFValueType.STRING:
            return [self._string() for _ in range(self._count(_LEAST_STRING))]
        return self._numbers(of, self._u64())

    def _numbers(self, kind: GGUFValueType, count: int) -> list[Any]:
        if kind not in _NUMBERS:
            raise ValueError("an array of arrays is not supported")
        dtype = _NUMBERS[kind]
        numbers: list[Any] = np.frombuffer(self._take(count * dtype.itemsize), dtype).tolist()
        return numbers

    def _place(self) -> tuple[tuple[int, ...], int, int]:
        sizes = [self._u64() for _ in range(min(self._u32(), 5))]
        if not 1 <= len(sizes) <= 4:
            raise ValueError("a tensor has no or more than four dimensions")
        return tuple(reversed(sizes)), self._u32(), self._u64()

    def _tensor(self, name: str, data_at: int, shape: tuple[int, ...], kind_number: int, offset: int) -> StoredTensor:
        kind = gguf.GGMLQuantizationType(kind_number)
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        if not all(shape) or shape[-1] % block:
            raise ValueError(f"the tensor {name!r} of {kind.name} cannot have the shape {list(shape)}")
        tensor = StoredTensor(shape, kind, data_at + offset, shape[-1] // block * block_bytes)
        if tensor.at + tensor.rows * tensor.row_bytes > self._size:
            raise ValueError(f"the tensor {name!r} reaches beyond the file's end")
        return tensor

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > self._size:
            raise ValueError("it ends too early")
        if end > _MOST_BYTES:
            raise ValueError(f"over {_MOST_BYTES:,} bytes precede its weights")
        taken = self._content[self._at : end]
        self._at = end
        return taken

    def _u32(self) -> int:
        number: int = _U32.unpack(self._take(4))[0]
        return number

    def _u64(self) -> int:
        number: int = _U64.unpack(self._take(8))[0]
        return number

    def _count(self, least_bytes: int) -> int:
        count = self._u64()
        if count * least_bytes > self._size - self._at:
            raise ValueError("it ends too early")
        return count

    def _string(self) -> str:
        return str(self._take(self._u64()), "utf-8")
