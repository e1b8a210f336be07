"""What the adapter relies on in vLLM, looked up by name: vLLM's scheduler interface is not public and moves."""

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any

from tracereel.engine.adapters.pieces import has_piece, lacking

SCHEDULER = (
    "get_request_counts",
    "kv_cache_manager.block_pool.get_num_free_blocks",
    "kv_cache_manager.block_pool.free_blocks",
    "kv_cache_manager.block_pool.num_gpu_blocks",
    "kv_cache_manager.get_block_ids",
    "kv_cache_config.kv_cache_groups",
    "max_num_running_reqs",
    "max_num_scheduled_tokens",
    "block_size",
    "requests",
    "vllm_config.max_concurrent_batches",
    "vllm_config.scheduler_config.policy",
    "vllm_config.scheduler_config.async_scheduling",
    "vllm_config.scheduler_config.enable_chunked_prefill",
    "vllm_config.cache_config.enable_prefix_caching",
    "vllm_config.cache_config.cache_dtype",
    "vllm_config.model_config.model",
    "vllm_config.model_config.dtype",
    "vllm_config.model_config.max_model_len",
    "vllm_config.model_config.enforce_eager",
    "vllm_config.model_config.quantization",
    "vllm_config.load_config.load_format",
    "vllm_config.parallel_config.tensor_parallel_size",
    "vllm_config.parallel_config.pipeline_parallel_size",
    "vllm_config.parallel_config.data_parallel_size",
    "vllm_config.parallel_config.data_parallel_index",
    "vllm_config.parallel_config.distributed_executor_backend",
    "vllm_config.speculative_config",
    "vllm_config.lora_config",
    "vllm_config.kv_transfer_config",
)
"""Attributes of a scheduler that has been built."""
RECORDS = {
    "vllm.v1.core.sched.output:SchedulerOutput": (
        "scheduled_new_reqs",
        "scheduled_cached_reqs",
        "num_scheduled_tokens",
        "total_num_scheduled_tokens",
        "scheduled_spec_decode_tokens",
        "num_invalid_spec_tokens",
        "preempted_req_ids",
    ),
    "vllm.v1.core.sched.output:NewRequestData": ("req_id", "num_computed_tokens", "block_ids"),
    "vllm.v1.core.sched.output:CachedRequestData": (
        "req_ids",
        "resumed_req_ids",
        "new_block_ids",
        "num_computed_tokens",
    ),
    "vllm.v1.engine:EngineCoreOutputs": ("outputs",),
    "vllm.v1.engine:EngineCoreOutput": ("request_id", "new_token_ids", "finish_reason"),
}
"""Fields of the records that a scheduler takes and gives, by where vLLM has their class."""


def piece(place: str) -> Any:
    """What stands at `module:name` in vLLM; the name may be dotted. Raises AdapterError where it is not there."""
    module, name = place.split(":")
    try:
        found = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        raise lacking("vLLM", [place]) from None
    return found


def require(scheduler: Any) -> None:
    """Raises AdapterError that names what this version of vLLM lacks."""
    lacks = [f"Scheduler.{name}" for name in SCHEDULER if not has_piece(scheduler, name)]
    for place, names in RECORDS.items():
        lacks += [f"{place.split(':')[1]}.{name}" for name in _absent(piece(place), names)]
    if lacks:
        raise lacking("vLLM", lacks)


def _absent(kind: Any, names: Iterable[str]) -> list[str]:
    """Which of these fields a record lacks: a dataclass, or a struct of msgspec's."""
    there = {field.name for field in fields(kind)} if is_dataclass(kind) else getattr(kind, "__struct_fields__", ())
    return [name for name in names if name not in there]
