"""How many KV blocks a device has room for, after the model and what a step needs.

Knows sizes in bytes. The device itself is only asked how much is free.
"""

from dataclasses import replace

import torch
from tracereel.engine.accelerator import DeviceError
from tracereel.engine.config import EngineConfig
from tracereel.engine.model import LlamaModel
from tracereel.engine.model_config import ModelConfig

FRACTION = 0.9
"""The share of what is free that the pool and the steps may have; the rest is the allocator's and other programs'."""


def block_bytes(model_config: ModelConfig, config: EngineConfig, dtype: torch.dtype) -> int:
    """The bytes of a KV block over all layers."""
    per_token = 2 * model_config.layers * model_config.kv_heads * model_config.head_dim * dtype.itemsize
    return config.block_size * per_token


def step_bytes(model_config: ModelConfig, config: EngineConfig, dtype: torch.dtype) -> int:
    """An upper bound of the bytes that the largest step takes: all that is alive at the same time, twice.

    The residual and what is added to it, a layer's widest product and its gate, queries twice; logits in the dtype for
    every sequence, once more in fp32 for those that are drawn from.
    """
    tokens, rows = config.max_num_batched_tokens, config.max_num_seqs
    queries = model_config.heads * model_config.head_dim
    wide = max(3 * model_config.intermediate, 3 * queries + 2 * model_config.kv_heads * model_config.head_dim)
    per_token = 4 * model_config.hidden + dtype.itemsize * (3 * model_config.hidden + wide)
    return 2 * (tokens * per_token + rows * model_config.vocabulary * (dtype.itemsize + 4))


def blocks_that_fit(
    model_config: ModelConfig, config: EngineConfig, dtype: torch.dtype, free_bytes: int, fraction: float = FRACTION
) -> int:
    """The most KV blocks for a pool where `free_bytes` are free. Raises DeviceError where one sequence has no room."""
    room = int(free_bytes * fraction) - step_bytes(model_config, config, dtype)
    blocks = room // block_bytes(model_config, config, dtype) - 1  # one is spare: idle rows write there
    needed = -(-config.max_model_len // config.block_size)
    if blocks < needed:
        wanted = (needed + 1) * block_bytes(model_config, config, dtype) + step_bytes(model_config, config, dtype)
        raise DeviceError(
            f"the device has {free_bytes / 2**30:.1f} GiB free, of which {fraction:.0%} may be used; steps of"
            f" {config.max_num_batched_tokens} tokens and the KV of one sequence of {config.max_model_len} need"
            f" {wanted / 2**30:.1f} GiB: lower max_num_batched_tokens or max_model_len"
        )
    return int(blocks)


def sized(config: EngineConfig, model: LlamaModel, fraction: float = FRACTION) -> EngineConfig:
    """The configuration with as many KV blocks as the model's device has room for, but no more than all slots can use.

    On a CPU, whose memory other processes share, it stays as it is. Raises DeviceError where there is too little.
    """
    if model.device.type != "cuda":
        return config
    torch.cuda.empty_cache()
    free_bytes, _ = torch.cuda.mem_get_info(model.device)
    most = config.max_num_seqs * -(-config.max_model_len // config.block_size)
    return replace(
        config, num_blocks=min(most, blocks_that_fit(model.config, config, model.dtype, free_bytes, fraction))
    )
