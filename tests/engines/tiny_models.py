"""Tiny random models, with SmolLM2's tokenizer: a sliding-window hybrid, a Mamba hybrid, a LoRA adapter."""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

src, out = Path(sys.argv[1]), Path(sys.argv[2])
torch.manual_seed(0)
tok = AutoTokenizer.from_pretrained(src)
V = len(tok)


def save(model, name):
    model.to(torch.bfloat16).save_pretrained(out / name)
    tok.save_pretrained(out / name)
    print(name, sum(p.numel() for p in model.parameters()))


from transformers import Gemma3ForCausalLM, Gemma3TextConfig

cfg = Gemma3TextConfig(
    vocab_size=V,
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    sliding_window=64,
    max_position_embeddings=512,
    layer_types=["sliding_attention"] * 5 + ["full_attention"],
    bos_token_id=tok.bos_token_id,
    eos_token_id=tok.eos_token_id,
    pad_token_id=tok.pad_token_id,
    query_pre_attn_scalar=32,
)
save(Gemma3ForCausalLM(cfg), "tiny-gemma3")
try:
    from transformers import BambaConfig, BambaForCausalLM

    cfg = BambaConfig(
        vocab_size=V,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_layer_indices=[1, 3],
        mamba_n_heads=8,
        mamba_d_head=32,
        mamba_n_groups=1,
        mamba_d_state=32,
        mamba_expand=2,
        max_position_embeddings=512,
        bos_token_id=tok.bos_token_id,
        eos_token_id=tok.eos_token_id,
        pad_token_id=tok.pad_token_id,
    )
    save(BambaForCausalLM(cfg), "tiny-bamba")
except Exception as e:
    print("bamba", repr(e)[:300])
cfg = LlamaConfig(
    vocab_size=V,
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    max_position_embeddings=512,
    bos_token_id=tok.bos_token_id,
    eos_token_id=tok.eos_token_id,
    pad_token_id=tok.pad_token_id,
)
save(LlamaForCausalLM(cfg), "tiny-llama")
from safetensors.torch import save_file

for name, seed in (("poet", 1), ("clerk", 2)):
    torch.manual_seed(seed)
    d = out / name
    d.mkdir(exist_ok=True)
    t = {}
    for l in range(3):
        for m, (i, o) in {"q_proj": (128, 128), "v_proj": (128, 64)}.items():
            p = f"base_model.model.model.layers.{l}.self_attn.{m}."
            t[p + "lora_A.weight"] = torch.randn(8, i) * 0.05
            t[p + "lora_B.weight"] = torch.randn(o, 8) * 0.05
    save_file(t, d / "adapter_model.safetensors")
    (d / "adapter_config.json").write_text(
        json.dumps(
            {
                "peft_type": "LORA",
                "r": 8,
                "lora_alpha": 16,
                "target_modules": ["q_proj", "v_proj"],
                "bias": "none",
                "task_type": "CAUSAL_LM",
            }
        )
    )
