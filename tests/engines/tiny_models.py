"""Tiny models with random weights and a given tokenizer, made on the spot: `python tiny_models.py TOKENIZER FOLDER`.

tiny-gemma3 has sliding windows in five of six layers, tiny-granite a Mamba state of constant size in every other layer,
tiny-llama is plain and has two LoRA adapters, poet and clerk, tiny-gpt2 has learned positions instead of rotary ones,
tiny-qwen3-moe has eight experts in two of three layers, of which each token takes two.
"""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import save_file
from tracereel.engine.adapters.export import NOTE, WEIGHTS, Note
from tracereel.trace.format.identity import file_digest
from transformers import (
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteMoeHybridConfig,
    GraniteMoeHybridForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

HIDDEN, KV, LAYERS, RANK = 128, 64, 3, 8


def main() -> None:
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
    folder = Path(sys.argv[2])
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    windows = ["sliding_attention"] * 5 + ["full_attention"]
    gemma = Gemma3TextConfig(
        **shape, num_hidden_layers=6, head_dim=32, sliding_window=64, layer_types=windows, query_pre_attn_scalar=32
    )
    granite = GraniteMoeHybridConfig(
        **shape,
        num_hidden_layers=4,
        layer_types=["mamba", "attention"] * 2,
        num_local_experts=0,
        num_experts_per_tok=0,
        shared_intermediate_size=256,
        mamba_n_heads=8,
        mamba_d_head=32,
        mamba_n_groups=1,
        mamba_d_state=32,
    )
    ends = {name: shape[name] for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
    # Wide enough that what it says changes from token to token.
    gpt2 = GPT2Config(**ends, n_positions=512, n_embd=HIDDEN, n_layer=2, n_head=4, initializer_range=0.3)
    moe = Qwen3MoeConfig(
        **shape,
        num_hidden_layers=LAYERS,
        head_dim=32,
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        mlp_only_layers=[0],
    )
    models = {
        "tiny-gemma3": Gemma3ForCausalLM(gemma),
        "tiny-granite": GraniteMoeHybridForCausalLM(granite),
        "tiny-gpt2": GPT2LMHeadModel(gpt2),
        "tiny-llama": LlamaForCausalLM(LlamaConfig(**shape, num_hidden_layers=LAYERS, head_dim=32)),
        "tiny-qwen3-moe": Qwen3MoeForCausalLM(moe),
    }
    for name, model in models.items():
        model.to(torch.bfloat16).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        note(folder / name, name, model)
    for seed, name in enumerate(("poet", "clerk"), 1):
        save_adapter(folder / name, seed)


def note(folder: Path, name: str, model: Any) -> None:
    """Say in the folder that these weights are random, so that no recording takes them for a real model's."""
    digest = file_digest(folder / WEIGHTS)
    said = Note(
        name=name,
        digest=digest,
        architecture=model.config.model_type,
        parameters=model.num_parameters(),
        weights_sha256=digest,
        weights="random",
    )
    (folder / NOTE).write_bytes(msgspec.json.encode(said) + b"\n")


def save_adapter(folder: Path, seed: int) -> None:
    """A LoRA adapter of tiny-llama, as peft writes them."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {}
    for layer in range(LAYERS):
        for module, outputs in (("q_proj", HIDDEN), ("v_proj", KV)):
            place = f"base_model.model.model.layers.{layer}.self_attn.{module}."
            weights[f"{place}lora_A.weight"] = torch.randn(RANK, HIDDEN) * 0.05
            weights[f"{place}lora_B.weight"] = torch.randn(outputs, RANK) * 0.05
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config | {"bias": "none", "task_type": "CAUSAL_LM"}))


if __name__ == "__main__":
    main()
