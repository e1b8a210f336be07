"""Tiny models with random weights, made by transformers: one of each family and of each thing that sets it apart."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

CONTEXT = 1024
SIZES = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "vocab_size": 320,
    "max_position_embeddings": CONTEXT,
    # Far from the usual 0.02, at which a model so small says the same token for ever.
    "initializer_range": 0.5,
}


@dataclass(frozen=True)
class Family:
    """A way to make a model: the configuration's class in transformers, and its arguments besides the sizes."""

    config: str
    settings: dict[str, Any]
    shard_bytes: int | None = None


FAMILIES = {
    "llama": Family("LlamaConfig", {"tie_word_embeddings": True}),
    "llama3-rope": Family(
        "LlamaConfig",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10_000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
        shard_bytes=60_000,
    ),
    "qwen2": Family("Qwen2Config", {}),
    "qwen2-tied": Family("Qwen2Config", {"tie_word_embeddings": True}),
    "qwen3": Family("Qwen3Config", {"head_dim": 20, "tie_word_embeddings": True}, shard_bytes=60_000),
}


def make_model(family: Family, folder: Path, **sizes: Any) -> Any:
    """Make the model, save it to the folder as anybody would, and return it for comparison (fp32)."""
    import transformers

    config = getattr(transformers, family.config)(**{**SIZES, **family.settings, **sizes})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for name, parameter in model.named_parameters():
            # As they are initialised, biases are zeros and norms are ones: leaving them out would change nothing.
            if name.endswith(("bias", "norm.weight")):
                torch.nn.init.normal_(parameter, float(name.endswith("weight")), 0.3)
    limit = {"max_shard_size": family.shard_bytes} if family.shard_bytes else {}
    model.save_pretrained(folder, **limit)
    return model.eval()
