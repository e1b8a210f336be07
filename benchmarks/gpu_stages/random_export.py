"""A geometry with random weights as a folder in Hugging Face's layout, for another engine to compute with."""

import json
from pathlib import Path
from typing import Any

import msgspec
from safetensors.torch import save_file
from tracereel.engine.adapters.export import NOTE, WEIGHTS, Note
from tracereel.engine.loading import LoadedModel
from tracereel.engine.model_config import ModelConfig, rotary_frequencies
from tracereel.engine.weights.random_weights import RandomWeights
from tracereel.trace.format.identity import file_digest

CLASSES = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}


def export_random(loaded: LoadedModel, folder: Path) -> None:
    """Write what a loaded `random:NAME` computes with, in bf16, drawn on its device; with the note of an export.

    There is no tokenizer. Raises ValueError for an architecture or rotary frequencies that cannot be said there.
    """
    weights = RandomWeights(loaded.info.name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_of(weights.config), indent=1) + "\n")
    dtype, device = loaded.model.dtype, loaded.model.device
    tensors = {name: weights.read(name, device, dtype).cpu() for name in sorted(weights.names())}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    note = Note(
        name=loaded.info.name,
        digest=loaded.info.digest or "",
        architecture=weights.config.architecture,
        parameters=weights.config.parameters,
        weights_sha256=file_digest(folder / WEIGHTS),
        weights="random",
    )
    (folder / NOTE).write_bytes(msgspec.json.encode(note) + b"\n")


def config_of(config: ModelConfig) -> dict[str, Any]:
    """Hugging Face's config.json of a geometry. Raises ValueError."""
    if config.architecture not in CLASSES:
        raise ValueError(f"{config.architecture} is not one of {', '.join(CLASSES)}")
    theta = config.rope_frequencies[1] ** (-config.head_dim / 2)
    expected = rotary_frequencies(config.head_dim, theta)
    if any(abs(a / b - 1) > 1e-6 for a, b in zip(config.rope_frequencies, expected, strict=True)):
        raise ValueError("the rotary frequencies are scaled, which is not written here")
    return {
        "architectures": [CLASSES[config.architecture]],
        "model_type": config.architecture,
        "vocab_size": config.vocabulary,
        "hidden_size": config.hidden,
        "intermediate_size": config.intermediate,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "tie_word_embeddings": config.tied,
        "hidden_act": "silu",
        "attention_bias": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": None,
        "eos_token_id": None,
    }
