"""What the adapter relies on in vLLM, looked up by name: vLLM's scheduler interface is not public and moves."""

from collections.abc import Iterable
from dataclasses import fields
from importlib import import_module
from typing import Any

from tracereel.engine.adapters import AdapterError, has_piece

SCHEDULER = (
    "get_request_counts",
    "kv_cache_manager.block_pool.get_num_free_blocks",
    "kv_cache_manager.block_pool.num_gpu_blocks",
    "kv_cache_config.kv_cache_groups",
    "max_num_running_reqs",
    "max_num_scheduled_tokens",
    "block_size",
    "requests",
    "vllm_config.scheduler_config",
    "vllm_config.cache_config",
    "vllm_config.max_concurrent_batches",
)
"""Attributes of a scheduler that has been built."""
OUTPUTS = {
    "SchedulerOutput": (
        "scheduled_new_reqs",
        "scheduled_cached_reqs",
        "num_scheduled_tokens",
        "total_num_scheduled_tokens",
        "scheduled_spec_decode_tokens",
        "preempted_req_ids",
    ),
    "NewRequestData": ("req_id", "num_computed_tokens", "block_ids"),
    "CachedRequestData": ("req_ids", "resumed_req_ids", "new_block_ids", "num_computed_tokens"),
}
"""Fields of the records in `vllm.v1.core.sched.output`."""


def piece(place: str) -> Any:
    """What stands at `module:name` in vLLM. Raises AdapterError where it is not there."""
    module, name = place.split(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError):
        raise _missing([place]) from None


def require(scheduler: Any, outputs: Any = None) -> None:
    """Raises AdapterError that names what this version of vLLM lacks; `outputs` is vLLM's module of records."""
    lacks = [f"Scheduler.{name}" for name in SCHEDULER if not has_piece(scheduler, name)]
    if outputs is None:
        outputs = import_module("vllm.v1.core.sched.output")
    for record, names in OUTPUTS.items():
        kind = getattr(outputs, record, None)
        lacks += [f"{record}.{name}" for name in _absent(kind, names)]
    if lacks:
        raise _missing(lacks)


def _absent(kind: Any, names: Iterable[str]) -> list[str]:
    there = {field.name for field in fields(kind)} if kind is not None else set()
    return [name for name in names if name not in there]


def _missing(lacks: list[str]) -> AdapterError:
    return AdapterError(
        f"tracereel: this vLLM has no {', '.join(lacks)}, which recording relies on; record with a version that"
        " docs/engines.md names"
    )
