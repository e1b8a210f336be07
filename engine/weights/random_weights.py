"""The configuration of a known model with weights drawn at random: to measure what a model costs without having it.

The numbers are drawn by torch's generator of the device, from a seed made of the tensor's name: the same for every run
on that kind of device. Such a model's answers mean nothing, and a trace says `weights: random`.
"""

import hashlib

import torch
from tracereel.engine.model_config import ModelConfig, ModelFileError, llama3_frequencies, rotary_frequencies
from tracereel.engine.tokenizer import ChatTokenizer

SPREAD = 0.02
"""Standard deviation of the numbers drawn, the one that the families of these models are initialised with."""

# From the models' own config.json.
MODEL_CONFIGS = {
    "Llama-3.1-8B": ModelConfig(
        architecture="llama",
        layers=32,
        hidden=4096,
        heads=32,
        kv_heads=8,
        head_dim=128,
        intermediate=14336,
        vocabulary=128_256,
        context=131_072,
        norm_epsilon=1e-5,
        rope_frequencies=llama3_frequencies(
            rotary_frequencies(128, 500_000.0), factor=8.0, low=1.0, high=4.0, original_context=8192
        ),
        tied=False,
    ),
    "Llama-3.2-1B": ModelConfig(
        architecture="llama",
        layers=16,
        hidden=2048,
        heads=32,
        kv_heads=8,
        head_dim=64,
        intermediate=8192,
        vocabulary=128_256,
        context=131_072,
        norm_epsilon=1e-5,
        rope_frequencies=llama3_frequencies(
            rotary_frequencies(64, 500_000.0), factor=32.0, low=1.0, high=4.0, original_context=8192
        ),
        tied=True,
    ),
    "Qwen2.5-0.5B": ModelConfig(
        architecture="qwen2",
        layers=24,
        hidden=896,
        heads=14,
        kv_heads=2,
        head_dim=64,
        intermediate=4864,
        vocabulary=151_936,
        context=32_768,
        norm_epsilon=1e-6,
        rope_frequencies=rotary_frequencies(64, 1_000_000.0),
        tied=True,
        qkv_bias=True,
    ),
    "Qwen3-0.6B": ModelConfig(
        architecture="qwen3",
        layers=28,
        hidden=1024,
        heads=16,
        kv_heads=8,
        head_dim=128,
        intermediate=3072,
        vocabulary=151_936,
        context=40_960,
        norm_epsilon=1e-6,
        rope_frequencies=rotary_frequencies(128, 1_000_000.0),
        tied=True,
        qk_norm=True,
    ),
    "SmolLM2-135M": ModelConfig(
        architecture="llama",
        layers=30,
        hidden=576,
        heads=9,
        kv_heads=3,
        head_dim=64,
        intermediate=1536,
        vocabulary=49_152,
        context=8192,
        norm_epsilon=1e-5,
        rope_frequencies=rotary_frequencies(64, 100_000.0),
        tied=True,
    ),
}


class RandomWeights:
    """A configuration of `MODEL_CONFIGS` by its name, filled. Raises ModelFileError for a name that is not there."""

    random = True

    def __init__(self, name: str):
        known = {key.lower(): key for key in MODEL_CONFIGS}
        if name.lower() not in known:
            raise ModelFileError(f"random:{name}: this model is not known; known: {', '.join(sorted(MODEL_CONFIGS))}")
        self.name = known[name.lower()]
        self.config = MODEL_CONFIGS[self.name]
        self._shapes = self.config.tensors()

    def names(self) -> set[str]:
        """The tensors that there are; see the contract."""
        return set(self._shapes)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """A tensor's shape; see the contract."""
        return self._shapes[name]

    def read(self, name: str, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """Draw one tensor: norms are ones, all else is uniform about 0."""
        shape = self._shapes[name]
        if name.endswith("norm.weight"):
            return torch.ones(shape, dtype=dtype, device=device)
        seed = int.from_bytes(hashlib.sha256(f"{self.name} {name}".encode()).digest()[:7], "big")
        generator = torch.Generator(device).manual_seed(seed)
        reach = SPREAD * 3**0.5
        # In the dtype itself: a second embedding in fp32 would be the largest thing in memory.
        return torch.empty(shape, dtype=dtype, device=device).uniform_(-reach, reach, generator=generator)

    def tokenizer(self) -> ChatTokenizer:
        """A token a byte: the model's own tokenizer is not available."""
        return ChatTokenizer.of_bytes(self.config.vocabulary)

    def digest(self) -> str:
        """SHA-256 (hex) over the configuration and how it is filled: nothing else decides the numbers."""
        return hashlib.sha256(f"{self.config} uniform {SPREAD}".encode()).hexdigest()
