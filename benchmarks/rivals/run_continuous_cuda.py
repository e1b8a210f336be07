"""transformers' continuous batching on a GPU: the same geometry with random weights, everything else as it chooses."""

from run_continuous import serve
from tracereel.engine.weights.random_weights import GEOMETRIES


def start(model, slots):
    """Make the model; returns what runs a job."""
    import torch
    from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig, Qwen3Config

    geometry = GEOMETRIES[model]
    config = Qwen3Config(
        vocab_size=geometry.vocabulary,
        hidden_size=geometry.hidden,
        intermediate_size=geometry.intermediate,
        num_hidden_layers=geometry.layers,
        num_attention_heads=geometry.heads,
        num_key_value_heads=geometry.kv_heads,
        head_dim=geometry.head_dim,
        max_position_embeddings=geometry.context,
        rms_norm_eps=geometry.norm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings=geometry.tied,
    )
    with torch.device("cuda"):
        loaded = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    manager = loaded.init_continuous_batching(
        GenerationConfig(do_sample=False, max_new_tokens=16, eos_token_id=-1),
        ContinuousBatchingConfig(max_requests_per_batch=slots, max_memory_percent=0.4, allow_block_sharing=False),
    )
    manager.start()
    return serve(manager)
