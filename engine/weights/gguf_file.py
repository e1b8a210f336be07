"""Reads a GGUF model file: configuration, tokenizer tables, and tensors in the names and order that the model wants.

Every type that the `gguf` package dequantizes is read (F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K, Q6_K and others).
"""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
from tracereel.engine.model_config import ModelConfig, ModelFileError, require_supported, rotary_frequencies
from tracereel.engine.tokenizer import ChatTokenizer
from tracereel.engine.weights.gguf_header import read_header
from tracereel.engine.weights.gguf_tokenizer import gguf_tokenizer
from tracereel.trace.format.identity import file_digest

_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_ROPE_FACTORS = "rope_freqs.weight"
_CHUNK_ELEMENTS = 2**18
"""Elements dequantized at a time: few enough for the caches, many enough that Python's time does not matter."""


class GgufFile:
    """One GGUF file. Raises ModelFileError where it is not one, or of an unsupported architecture."""

    random = False

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.name = self.path.name.removesuffix(".gguf")
        try:
            header = read_header(self.path)
        except (OSError, ValueError) as error:
            raise ModelFileError(f"{self.path}: not a readable GGUF file ({error})") from None
        self._values, self._tensors = header.values, header.tensors
        self._own_names = {_hugging_face_name(name): name for name in self._tensors if name != _ROPE_FACTORS}
        try:
            self._require_whole()
            self.config = self._read_config()
        except (ArithmeticError, TypeError, ValueError) as error:
            raise ModelFileError(f"{self.path}: the model's sizes cannot be ({error})") from None

    def _read_config(self) -> ModelConfig:
        architecture = str(self._value("general.architecture"))
        require_supported(architecture, str(self.path))

        def value(name: str, default: Any = None) -> Any:
            return self._value(f"{architecture}.{name}", default)

        if experts := int(value("expert_count", 0)):
            raise ModelFileError(f"{self.path}: a mixture of {experts} experts is not supported; dense models are")
        heads = int(value("attention.head_count"))
        hidden = int(value("embedding_length"))
        head_dim = int(value("attention.key_length", hidden // max(heads, 1)))
        rotated = int(value("rope.dimension_count", head_dim))
        if rotated != head_dim:
            raise ModelFileError(f"{self.path}: heads rotated in part ({rotated} of {head_dim}) are not supported")
        slower = self._rope_factor(architecture)
        frequencies = tuple(f / slower for f in rotary_frequencies(head_dim, float(value("rope.freq_base", 10_000.0))))
        if _ROPE_FACTORS in self._tensors:  # Llama 3's scaling: what each frequency is divided by
            of_this_shape = self._tensors[_ROPE_FACTORS].shape == (len(frequencies),)
            factors = self._dequantize(_ROPE_FACTORS, torch.float64).tolist() if of_this_shape else []
            if not factors or not all(factor > 0 for factor in factors):
                raise ModelFileError(f"{self.path}: {_ROPE_FACTORS} does not hold {len(frequencies)} factors")
            frequencies = tuple(f / factor for f, factor in zip(frequencies, factors, strict=True))
        return ModelConfig(
            architecture=architecture,
            layers=int(value("block_count")),
            hidden=hidden,
            heads=heads,
            kv_heads=int(value("attention.head_count_kv", heads)),
            head_dim=head_dim,
            intermediate=int(value("feed_forward_length")),
            vocabulary=len(self._value("tokenizer.ggml.tokens")),
            context=int(value("context_length")),
            norm_epsilon=float(value("attention.layer_norm_rms_epsilon")),
            rope_frequencies=frequencies,
            tied="output.weight" not in self._tensors,
            qkv_bias=architecture == "qwen2",
            qk_norm=architecture == "qwen3",
        )

    def _rope_factor(self, architecture: str) -> float:
        """What every rotary frequency is divided by. A factor without a type means linear scaling, as in llama.cpp."""
        kind = str(self._value(f"{architecture}.rope.scaling.type", "linear"))
        if kind == "none":
            return 1.0
        if kind != "linear":
            raise ModelFileError(
                f"{self.path}: RoPE scaling {kind!r} is not supported; supported: none, linear, Llama 3's"
            )
        older = self._value(f"{architecture}.rope.scale_linear", 0.0)
        factor = float(self._value(f"{architecture}.rope.scaling.factor", older)) or 1.0
        if not 0 < factor < 1e9:
            raise ModelFileError(f"{self.path}: {architecture}.rope.scaling.factor: {factor:g} is not above 0")
        return factor

    def _require_whole(self) -> None:
        """Raise ModelFileError for a part of a file that llama.cpp's gguf-split has split."""
        parts = int(self._value("split.count", 0))
        if parts > 1:
            part = int(self._value("split.no", 0)) + 1
            raise ModelFileError(
                f"{self.path}: is part {part} of {parts} of a split GGUF file, which is not read; join the parts with"
                " llama.cpp's gguf-split --merge"
            )

    def _value(self, name: str, default: Any = None) -> Any:
        value = self._values.get(name, default)
        if value is None:
            raise ModelFileError(f"{self.path}: the key {name} is missing")
        return value

    def names(self) -> set[str]:
        """The tensors that there are; see the contract."""
        return set(self._own_names)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """A tensor's shape; see the contract."""
        return self._tensors[self._own_names[name]].shape

    def read(self, name: str, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """One tensor; llama-type files store the rows of Q and K in pairs, here they are put back into halves."""
        tensor = self._dequantize(self._own_names[name], dtype)
        if self.config.architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = self.config.heads if name.endswith("q_proj.weight") else self.config.kv_heads
            rows, columns = tensor.shape
            if rows % (2 * heads):
                raise ModelFileError(f"{self.path}: {name}: {rows} rows are no pairs for {heads} heads")
            tensor = tensor.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)
        return tensor.to(device)

    def _dequantize(self, own_name: str, dtype: torch.dtype) -> torch.Tensor:
        """A tensor in `dtype`, some rows at a time, so that no second, whole copy in fp32 is made."""
        stored = self._tensors[own_name]
        out = torch.empty(stored.shape, dtype=dtype)
        rows = out.view(-1, stored.shape[-1])
        at_once = max(1, _CHUNK_ELEMENTS // stored.shape[-1])
        try:
            for first in range(0, stored.rows, at_once):
                part = rows[first : first + at_once]
                part[:] = _fp32(gguf.dequantize(stored.read(self.path, first, len(part)), stored.kind))
        except (NotImplementedError, OSError, ValueError) as error:
            raise ModelFileError(f"{self.path}: the tensor {own_name} cannot be read ({error})") from None
        return out

    def tokenizer(self) -> ChatTokenizer:
        """The file's tokenizer. Raises ModelFileError for one that is not byte-level BPE, or is broken."""
        try:
            return gguf_tokenizer(self._values)
        except ModelFileError as error:
            raise ModelFileError(f"{self.path}: {error}") from None
        except (LookupError, TypeError, ValueError) as error:
            raise ModelFileError(f"{self.path}: the tokenizer's tables are broken ({error})") from None

    def digest(self) -> str:
        """SHA-256 (hex) of the file."""
        return file_digest(self.path)


def _hugging_face_name(own_name: str) -> str:
    """blk.3.attn_q.weight is model.layers.3.self_attn.q_proj.weight; a name that is not known stays as it is."""
    stem, _, kind = own_name.rpartition(".")
    layer, _, part = stem.removeprefix("blk.").rpartition(".")
    if part not in _NAMES:
        return own_name
    prefix = f"model.layers.{layer}." if layer else ""
    return f"{prefix}{_NAMES[part]}.{kind}"


def _fp32(array: npt.NDArray[Any]) -> torch.Tensor:
    # A copy where this is the file's own memory: torch takes only arrays that may be written to.
    return torch.from_numpy(np.require(array, np.float32, "W"))
