"""A model's configuration: sizes, the differences between architectures, and rotary frequencies.

Knows numbers only. Does not know where they were read (`weights/`) or how they are computed with (`model`).
"""

import math
from dataclasses import dataclass

ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""What is supported, by the names that GGUF files (`general.architecture`) and Hugging Face (`model_type`) share."""

MAX_VOCABULARY = 2**22
_MOST = {
    "layers": 1024,
    "hidden": 2**20,
    "heads": 2**12,
    "kv_heads": 2**12,
    "head_dim": 512,
    "intermediate": 2**20,
    "vocabulary": MAX_VOCABULARY,
    "context": 2**20,
}
"""A file is untrusted: sizes beyond any model's are refused before anything is made of them."""
_MOST_ROTARY = 2**27
"""The most elements of context times head_dim: what the tables of rotary positions take."""


class ModelFileError(Exception):
    """A model cannot be used; the message is one line and names the file and the fault."""


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a decoder with RMSNorm, rotary positions, grouped-query attention and SwiGLU; sizes in elements.

    `rope_frequencies` are the head_dim / 2 angles, in radians, that a pair of a query's or key's elements turns by from
    one position to the next. `tied`: the output matrix is the embedding. `qkv_bias`: query, key and value products have
    a bias (Qwen2). `qk_norm`: each query and key head passes an RMSNorm before rotation (Qwen3).

    Raises ValueError, which does not name the model, where a size is not valid.
    """

    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    context: int
    norm_epsilon: float
    rope_frequencies: tuple[float, ...]
    tied: bool
    qkv_bias: bool = False
    qk_norm: bool = False

    def __post_init__(self) -> None:
        for name in _MOST:
            require_size(name, getattr(self, name))
        if self.context * self.head_dim > _MOST_ROTARY:
            raise ValueError(f"context: {self.context} is too long for heads of {self.head_dim}")
        if not 0 <= self.norm_epsilon < 1:
            raise ValueError(f"norm_epsilon: {self.norm_epsilon} is not between 0 and 1")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot be shared by {self.kv_heads} KV heads")
        if self.head_dim % 2 or len(self.rope_frequencies) != self.head_dim // 2:
            raise ValueError(f"{len(self.rope_frequencies)} rotary frequencies for heads of {self.head_dim}")
        if not all(0 < frequency < math.inf for frequency in self.rope_frequencies):
            raise ValueError("the rotary frequencies are not all above 0")

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that a model of this shape has, by Hugging Face's name, with its shape: [out, in] or [size]."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, self.hidden)}
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}."
            shapes[f"{prefix}input_layernorm.weight"] = (self.hidden,)
            for part, size in (("q", query), ("k", key), ("v", key)):
                shapes[f"{prefix}self_attn.{part}_proj.weight"] = (size, self.hidden)
                if self.qkv_bias:
                    shapes[f"{prefix}self_attn.{part}_proj.bias"] = (size,)
            if self.qk_norm:
                shapes[f"{prefix}self_attn.q_norm.weight"] = (self.head_dim,)
                shapes[f"{prefix}self_attn.k_norm.weight"] = (self.head_dim,)
            shapes[f"{prefix}self_attn.o_proj.weight"] = (self.hidden, query)
            shapes[f"{prefix}post_attention_layernorm.weight"] = (self.hidden,)
            shapes[f"{prefix}mlp.gate_proj.weight"] = (self.intermediate, self.hidden)
            shapes[f"{prefix}mlp.up_proj.weight"] = (self.intermediate, self.hidden)
            shapes[f"{prefix}mlp.down_proj.weight"] = (self.hidden, self.intermediate)
        shapes["model.norm.weight"] = (self.hidden,)
        if not self.tied:
            shapes["lm_head.weight"] = (self.vocabulary, self.hidden)
        return shapes

    @property
    def parameters(self) -> int:
        """How many numbers the model has learnt; a tied output matrix counts once."""
        return sum(math.prod(shape) for shape in self.tensors().values())


def require_supported(architecture: str, model_name: str) -> None:
    """Raise ModelFileError, which names the model, for an architecture that is not supported."""
    if architecture not in ARCHITECTURES:
        raise ModelFileError(
            f"{model_name}: architecture {architecture!r} is not supported; supported: {', '.join(ARCHITECTURES)}"
        )


def require_size(name: str, size: int) -> None:
    """Raise ValueError for a size of that name (a field of ModelConfig) that no model has."""
    if not 1 <= size <= _MOST[name]:
        raise ValueError(f"{name}: {size} is not between 1 and {_MOST[name]}")


def rotary_frequencies(head_dim: int, theta: float) -> tuple[float, ...]:
    """Frequencies of rotary positions: theta^(−2i/d) for the pairs i (Su et al., "RoFormer", 2021).

    Raises ValueError for a head_dim that no model has, before anything is made of it, and a theta that is not above 0.
    """
    require_size("head_dim", head_dim)
    if not 0 < theta < math.inf:
        raise ValueError(f"theta: {theta} is not above 0")
    return tuple(theta ** (-2 * i / head_dim) for i in range(head_dim // 2))


def llama3_frequencies(
    frequencies: tuple[float, ...], *, factor: float, low: float, high: float, original_context: int
) -> tuple[float, ...]:
    """Llama 3's scaling of rotary frequencies to a longer context.

    Waves that fit into the original context fewer than `low` times are slowed down by `factor`, those that fit more
    than `high` times are kept, and between the two the change is gradual. After `apply_scaling` of Meta's llama-models.
    """

    def scaled(frequency: float) -> float:
        turns = original_context * frequency / (2 * math.pi)
        kept = min(max((turns - low) / (high - low), 0.0), 1.0)
        return kept * frequency + (1 - kept) * frequency / factor

    return tuple(scaled(frequency) for frequency in frequencies)
