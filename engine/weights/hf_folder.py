"""Reads a model folder in Hugging Face's layout: config.json, safetensors (one file or sharded), tokenizer.json.

No pickle: folders with only PyTorch's own files are refused.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from tracereel.engine.json_file import read_json
from tracereel.engine.model_config import (
    ModelConfig,
    ModelFileError,
    llama3_frequencies,
    require_supported,
    rotary_frequencies,
)
from tracereel.engine.tokenizer import ChatTokenizer
from tracereel.engine.weights.hf_tokenizer import TEMPLATES, TOKENIZER_FILES, folder_tokenizer
from tracereel.trace.format.identity import file_digest

Size = Annotated[int, msgspec.Meta(ge=1, le=2**24)]
Factor = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
Ids = Annotated[int, msgspec.Meta(ge=0, le=2**31)]

_USED_UP = ("rotary_emb.inv_freq",)
"""Tensors of older files that say what the configuration says too."""
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_ROWS_AT_ONCE = 4096
_COMPARED = ("F64", "F32", "F16", "BF16")
_HEAD_DIM_OF_QWEN3 = 128
"""The head size of a Qwen3 configuration that does not name one."""


class _Rope(msgspec.Struct):
    rope_theta: Factor | None = None
    rope_type: str | None = None
    type: str | None = None
    factor: Factor = 1.0
    low_freq_factor: Factor = 1.0
    high_freq_factor: Factor = 4.0
    original_max_position_embeddings: Size | None = None
    partial_rotary_factor: Factor = 1.0


class _Architecture(msgspec.Struct):
    model_type: str


class _Config(msgspec.Struct):
    """What of config.json decides how a model computes; an absent field has the meaning that transformers gives it."""

    model_type: str
    hidden_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    intermediate_size: Size
    vocab_size: Size
    num_key_value_heads: Size | None = None
    head_dim: Size | None = None
    max_position_embeddings: Size = 2048
    rms_norm_eps: Factor = 1e-6
    rope_theta: Factor = 10_000.0
    rope_parameters: _Rope | None = None
    rope_scaling: _Rope | None = None
    tie_word_embeddings: bool | None = None
    hidden_act: str = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    use_sliding_window: bool = False
    quantization_config: dict[str, msgspec.Raw] | None = None
    eos_token_id: Ids | list[Ids] | None = None


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


class _Generation(msgspec.Struct):
    eos_token_id: Ids | list[Ids] | None = None


class HuggingFaceFolder:
    """One model folder; tensors are mapped from their files as they are asked for.

    Raises ModelFileError where something is missing, broken, or of another architecture.
    """

    random = False

    def __init__(self, folder: Path, name: str | None = None):
        self._folder = folder
        self.name = name or folder.resolve().name
        self._hf_config = self._read_config()
        self._files = self._tensor_files()
        try:
            self.config = self._model_config()
        except (ArithmeticError, ValueError) as error:
            raise ModelFileError(f"{folder / 'config.json'}: the model's sizes cannot be ({error})") from None

    def _read_config(self) -> _Config:
        path = self._folder / "config.json"
        # The architecture first: others have other fields, and the message would name one of those instead.
        require_supported(read_json(path, _Architecture).model_type, str(self._folder))
        return read_json(path, _Config)

    def _model_config(self) -> ModelConfig:
        config, path = self._hf_config, self._folder / "config.json"
        wanted = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "use_sliding_window": False}
        for field, value in wanted.items():
            if (found := getattr(config, field)) != value:
                raise ModelFileError(f"{path}: {field}: {found!r} is not supported; supported: {value!r}")
        if config.quantization_config:
            raise ModelFileError(f"{path}: quantization_config: quantized folders are not supported; a GGUF file is")
        even = config.hidden_size // config.num_attention_heads
        head_dim = config.head_dim or (_HEAD_DIM_OF_QWEN3 if config.model_type == "qwen3" else even)
        return ModelConfig(
            architecture=config.model_type,
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads or config.num_attention_heads,
            head_dim=head_dim,
            intermediate=config.intermediate_size,
            vocabulary=config.vocab_size,
            context=config.max_position_embeddings,
            norm_epsilon=config.rms_norm_eps,
            rope_frequencies=self._rope_frequencies(head_dim),
            tied=self._is_tied(),
            qkv_bias=config.model_type == "qwen2",
            qk_norm=config.model_type == "qwen3",
        )

    def _is_tied(self) -> bool:
        """Is the output matrix the embedding? Where the files hold another matrix, that one is used, whatever the
        configuration says, as transformers 5 does."""
        if _HEAD not in self._files:
            return self._hf_config.tie_word_embeddings is not False
        return bool(self._hf_config.tie_word_embeddings) and self._are_equal(_HEAD, _EMBEDDING)

    def _are_equal(self, one: str, other: str) -> bool:
        """Do two matrices hold the same numbers? Compared some rows at a time."""
        if other not in self._files:
            return False
        first, second = self._slice(one), self._slice(other)
        shape, kind = first.get_shape(), first.get_dtype()
        if shape != second.get_shape() or kind != second.get_dtype() or len(shape) != 2 or kind not in _COMPARED:
            return False
        rows = shape[0]
        return all(
            torch.equal(first[at : at + _ROWS_AT_ONCE], second[at : at + _ROWS_AT_ONCE])
            for at in range(0, rows, _ROWS_AT_ONCE)
        )

    def _rope_frequencies(self, head_dim: int) -> tuple[float, ...]:
        path = self._folder / "config.json"
        rope = self._hf_config.rope_parameters or self._hf_config.rope_scaling or _Rope()
        kind = rope.rope_type or rope.type or "default"
        if kind not in ("default", "llama3"):
            raise ModelFileError(f"{path}: rope_type: {kind!r} is not supported; supported: default, llama3")
        if rope.partial_rotary_factor != 1:
            raise ModelFileError(f"{path}: partial_rotary_factor: {rope.partial_rotary_factor} is not supported")
        frequencies = rotary_frequencies(head_dim, rope.rope_theta or self._hf_config.rope_theta)
        if kind == "default":
            return frequencies
        if rope.original_max_position_embeddings is None or rope.high_freq_factor <= rope.low_freq_factor:
            raise ModelFileError(
                f"{path}: llama3 RoPE scaling needs original_max_position_embeddings and a high_freq_factor above"
                " low_freq_factor"
            )
        return llama3_frequencies(
            frequencies,
            factor=rope.factor,
            low=rope.low_freq_factor,
            high=rope.high_freq_factor,
            original_context=rope.original_max_position_embeddings,
        )

    def _tensor_files(self) -> dict[str, Path]:
        """Which file each tensor is in."""
        index = self._folder / "model.safetensors.index.json"
        single = self._folder / "model.safetensors"
        if index.is_file():
            names = sorted(set(read_json(index, _Index).weight_map.values()))
            if any(Path(name).name != name for name in names):
                raise ModelFileError(f"{index}: weight_map: a file outside the folder is named")
            paths = [self._folder / name for name in names]
        elif single.is_file():
            paths = [single]
        else:
            raise ModelFileError(f"{self._folder}: holds no model.safetensors and no model.safetensors.index.json")
        self._opened: dict[Path, Any] = {}
        files: dict[str, Path] = {}
        for path in paths:
            try:
                self._opened[path] = safe_open(path, framework="pt")
            except (OSError, SafetensorError) as error:
                raise ModelFileError(f"{path}: not a readable safetensors file ({error})") from None
            files.update(dict.fromkeys(self._opened[path].keys(), path))
        return {name: path for name, path in files.items() if not name.endswith(_USED_UP)}

    def names(self) -> set[str]:
        """The tensors that there are; see the contract."""
        return set(self._files)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """A tensor's shape; see the contract."""
        return tuple(self._slice(name).get_shape())

    def _slice(self, name: str) -> Any:
        path = self._files[name]
        try:
            return self._opened[path].get_slice(name)
        except SafetensorError as error:
            raise ModelFileError(f"{path}: the tensor {name} cannot be read ({error})") from None

    def read(self, name: str, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """One tensor; see the contract."""
        path = self._files[name]
        try:
            tensor: torch.Tensor = self._opened[path].get_tensor(name)
        except SafetensorError as error:
            raise ModelFileError(f"{path}: the tensor {name} cannot be read ({error})") from None
        if not tensor.is_floating_point() or tensor.itemsize < 2:
            raise ModelFileError(f"{path}: the tensor {name} is {tensor.dtype}, which is not supported")
        return tensor.to(device, dtype)

    def tokenizer(self) -> ChatTokenizer:
        """The folder's tokenizer; where it has none, one that takes token ids alone. See the contract."""
        path = self._folder / "generation_config.json"
        ends = read_json(path, _Generation).eos_token_id if path.is_file() else None
        if ends is None:
            ends = self._hf_config.eos_token_id
        end_ids = frozenset([ends] if isinstance(ends, int) else ends or [])
        found = folder_tokenizer(self._folder, end_ids, self.config.vocabulary, self.config.architecture)
        return ChatTokenizer.of_ids(self.config.vocabulary, end_ids, self.name) if found is None else found

    def digest(self) -> str:
        """SHA-256 (hex) over the files of configuration, tokenizer, template and tensors, sorted by name."""
        total = hashlib.sha256()
        others = {path for name in TOKENIZER_FILES if (path := self._folder / name).is_file()}
        others |= set((self._folder / TEMPLATES).glob("*.jinja"))
        for path in sorted({self._folder / "config.json", *others, *self._opened}):
            total.update(f"{path.name}\0{file_digest(path)}\n".encode())
        return total.hexdigest()
