"""Reads a GGUF model file: its geometry, its tokenizer's tables, and its weights in the names and order used here.

Knows the llama architecture. Does not know how weights are laid out for speed (`linear`) or computed with (`model`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

MAX_FILE_BYTES = 64 * 2**30


class ModelFileError(Exception):
    """A model file cannot be used; the message is one line and names the file and the fault."""


@dataclass(frozen=True)
class Geometry:
    """The shape of a llama model: sizes in elements, `rope_theta` the base of the rotary frequencies."""

    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    context: int
    rope_theta: float
    norm_epsilon: float


@dataclass(frozen=True)
class TokenizerTables:
    """What a byte-level BPE tokenizer is made of."""

    tokens: list[str]
    merges: list[str]
    control: frozenset[int]
    pre: str
    end_ids: frozenset[int]
    chat_template: str


class GgufFile:
    """One GGUF file, memory-mapped. Raises ModelFileError where it is none or of another architecture."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        try:
            self._reader = gguf.GGUFReader(self.path)
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise ModelFileError(f"{self.path}: not a readable GGUF file ({error})") from None
        architecture = str(self._value("general.architecture"))
        if architecture != "llama":
            raise ModelFileError(f"{self.path}: architecture {architecture!r} is not supported; supported: llama")
        heads = int(self._value("llama.attention.head_count"))
        hidden = int(self._value("llama.embedding_length"))
        self.geometry = Geometry(
            architecture=architecture,
            layers=int(self._value("llama.block_count")),
            hidden=hidden,
            heads=heads,
            kv_heads=int(self._value("llama.attention.head_count_kv", heads)),
            head_dim=int(self._value("llama.rope.dimension_count", hidden // heads)),
            intermediate=int(self._value("llama.feed_forward_length")),
            vocabulary=len(self._field("tokenizer.ggml.tokens").data),
            context=int(self._value("llama.context_length")),
            rope_theta=float(self._value("llama.rope.freq_base", 10_000.0)),
            norm_epsilon=float(self._value("llama.attention.layer_norm_rms_epsilon")),
        )

    def _field(self, name: str) -> Any:
        field = self._reader.fields.get(name)
        if field is None:
            raise ModelFileError(f"{self.path}: the key {name} is missing")
        return field

    def _value(self, name: str, default: Any = None) -> Any:
        if default is not None and name not in self._reader.fields:
            return default
        return self._field(name).contents()

    def tokenizer_tables(self) -> TokenizerTables:
        """The tokenizer's tables. Raises ModelFileError for a tokenizer that is not byte-level BPE."""
        kind = self._value("tokenizer.ggml.model")
        if kind != "gpt2":
            raise ModelFileError(f"{self.path}: tokenizer {kind!r} is not supported; supported: gpt2 (byte-level BPE)")
        types = self._value("tokenizer.ggml.token_type")
        return TokenizerTables(
            tokens=self._strings("tokenizer.ggml.tokens"),
            merges=self._strings("tokenizer.ggml.merges"),
            control=frozenset(i for i, kind in enumerate(types) if kind == gguf.TokenType.CONTROL),
            pre=str(self._value("tokenizer.ggml.pre")),
            end_ids=frozenset({int(self._value("tokenizer.ggml.eos_token_id"))}),
            chat_template=str(self._value("tokenizer.chat_template")),
        )

    def _strings(self, name: str) -> list[str]:
        field = self._field(name)
        return [str(bytes(field.parts[i]), "utf-8") for i in field.data]

    @property
    def has_output_head(self) -> bool:
        """Is there an output matrix of its own, or is the embedding used?"""
        return any(tensor.name == "output.weight" for tensor in self._reader.tensors)

    def weights(self) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        """Every weight as (GGUF name, fp32 array [out, in] or [size]), Q and K rows in the order of RoPE halves.

        llama-type files store the rows of Q and K permuted, pairs side by side; here they are put back into halves.
        """
        for tensor in self._reader.tensors:
            # A copy where the file's own memory would be handed out: torch wants arrays that may be written to.
            array = np.require(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32, "W")
            if tensor.name.endswith("attn_q.weight"):
                array = _halves(array, self.geometry.heads)
            elif tensor.name.endswith("attn_k.weight"):
                array = _halves(array, self.geometry.kv_heads)
            yield tensor.name, array


def _halves(array: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    rows, columns = array.shape
    pairs = array.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows, columns)
