"""What the adapter relies on in SGLang, looked up by name: SGLang's scheduler is not a public interface and moves."""

from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tracereel.engine.adapters.pieces import has_piece, lacking

TRIED = ("0.5.23",)
"""Versions of SGLang that this adapter has been tried with."""

SCHEDULER = (
    "spec_algorithm.is_none",
    "disaggregation_mode.value",
    "dllm_config",
    "is_generation",
    "is_hybrid_swa",
    "is_hybrid_ssm",
    "page_size",
    "max_total_num_tokens",
    "max_running_requests",
    "chunked_prefill_size",
    "schedule_policy",
    "enable_overlap",
    "tokenizer",
    "waiting_queue",
    "server_args.model_path",
    "server_args.load_format",
    "server_args.device",
    "model_config.dtype",
    "token_to_kv_pool_allocator.available_size",
    "tree_cache.evictable_size",
)
"""Attributes of a scheduler that has been built."""
BATCH = ("reqs", "forward_mode", "prefix_lens", "extend_lens")
"""Fields of `sglang.srt.managers.schedule_batch.ScheduleBatch`."""


def installed() -> str:
    """SGLang's version, `unknown` where it is not a package."""
    try:
        return version("sglang")
    except PackageNotFoundError:
        return "unknown"


def require(scheduler: Any) -> None:
    """Raises AdapterError that names what this version of SGLang lacks."""
    batch = getattr(import_module("sglang.srt.managers.schedule_batch"), "ScheduleBatch", None)
    fields = getattr(batch, "__dataclass_fields__", {})
    refuse(
        [f"Scheduler.{name}" for name in SCHEDULER if not has_piece(scheduler, name)]
        + [f"ScheduleBatch.{name}" for name in BATCH if name not in fields]
    )


def refuse(lacks: Iterable[str]) -> None:
    """Raises AdapterError where anything is lacking."""
    if missing := list(lacks):
        raise lacking(f"SGLang ({installed()})", missing)
