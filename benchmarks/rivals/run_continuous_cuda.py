"""transformers' continuous batching on a GPU: the same geometry with random weights, everything else as it chooses."""

from run_continuous import serve
from tracereel.engine.weights.random_weights import MODEL_CONFIGS


def start(model, slots):
    """Make the model; returns what runs a job."""
    import torch
    from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig, Qwen3Config

    model_config = MODEL_CONFIGS[model]
    config = Qwen3Config(
        vocab_size=model_config.vocabulary,
        hidden_size=model_config.hidden,
        intermediate_size=model_config.intermediate,
        num_hidden_layers=model_config.layers,
        num_attention_heads=model_config.heads,
        num_key_value_heads=model_config.kv_heads,
        head_dim=model_config.head_dim,
        max_position_embeddings=model_config.context,
        rms_norm_eps=model_config.norm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings=model_config.tied,
    )
    with torch.device("cuda"):
        loaded = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    manager = loaded.init_continuous_batching(
        GenerationConfig(do_sample=False, max_new_tokens=16, eos_token_id=-1),
        ContinuousBatchingConfig(max_requests_per_batch=slots, max_memory_percent=0.4, allow_block_sharing=False),
    )
    manager.start()
    return serve(manager)
