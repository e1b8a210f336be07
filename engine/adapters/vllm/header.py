"""What is known of a run of vLLM before it starts, by vLLM's own configuration; and where its trace goes."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import vllm
from tracereel.engine.adapters.export import dtype_name, read_note
from tracereel.engine.adapters.vllm.kv import KvCache
from tracereel.engine.adapters.vllm.pieces import piece
from tracereel.engine.adapters.vllm.settings import Settings
from tracereel.trace.format.events import (
    SCHEMA_VERSION,
    DeviceInfo,
    EngineInfo,
    Header,
    ModelInfo,
    ParallelInfo,
    RunInfo,
    WorkloadInfo,
)
from tracereel.trace.format.identity import cpu_name
from tracereel.trace.format.recorder import start_clock

current_platform = piece("vllm.platforms:current_platform")

TRIED = ("0.25", "0.32", "0.33")
"""Versions of vLLM that this adapter has been tried with."""


def trace_path(path: str, vllm_config: Any, run: int | None = None) -> Path:
    """Where a replica's trace goes: a file in the folder `path`, or `path` itself, with the replica's number from 1.

    `run`: the number of the run, where each of several has a file of its own.
    """
    replica = vllm_config.parallel_config.data_parallel_index
    target = Path(path)
    numbers = "".join(f"-{number}" for number in (replica or None, run) if number is not None)
    for suffix in (".jsonl.zst", ".jsonl"):
        if path.endswith(suffix):
            return target.with_name(f"{target.name.removesuffix(suffix)}{numbers}{suffix}")
    started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    numbered = "" if run is None else f"-run-{run}"
    return target / f"vllm-{started}-{os.getpid()}-replica-{replica}{numbered}.jsonl.zst"


def header(scheduler: Any, settings: Settings, kv: KvCache, run: RunInfo | None) -> Header:
    """What is known of a run before it starts; its clock starts here."""
    config = scheduler.vllm_config
    parallel, options, cache_config = config.parallel_config, config.scheduler_config, config.cache_config
    return Header(
        schema=SCHEMA_VERSION,
        engine=EngineInfo(name="vLLM", version=vllm.__version__),
        policy="continuous",
        slots=scheduler.max_num_running_reqs,
        token_budget=scheduler.max_num_scheduled_tokens,
        kv_blocks=kv.blocks,
        kv_block_tokens=scheduler.block_size,
        kv_groups=[] if kv.one_table or not kv.known else kv.groups,
        model=model_info(config),
        device=device_info(parallel),
        workload=settings.workload or WorkloadInfo(name="served"),
        run=run,
        parallel=ParallelInfo(
            tensor=parallel.tensor_parallel_size,
            pipeline=parallel.pipeline_parallel_size,
            data=replicas_of(parallel),
            replica=parallel.data_parallel_index,
        ),
        config={
            "scheduler": type(scheduler).__mro__[1].__name__,
            "scheduling_policy": str(options.policy),
            "async_scheduling": bool(options.async_scheduling),
            "chunked_prefill": bool(options.enable_chunked_prefill),
            "prefix_caching": bool(cache_config.enable_prefix_caching),
            "kv_cache_dtype": str(cache_config.cache_dtype),
            "max_model_len": config.model_config.max_model_len,
            "compiled": not config.model_config.enforce_eager,
            "executor": str(parallel.distributed_executor_backend),
            "quantization": config.model_config.quantization,
            **scheduling_knobs(config),
        },
        libraries={"torch": str(torch.__version__)},
        clock=start_clock(),
    )


def scheduling_knobs(config: Any) -> dict[str, bool | int | float | str | None]:
    """What decides who is scheduled and how, where it is set at all: a knob that is off is not in the header."""
    options, speculative = config.scheduler_config, config.speculative_config
    lora, transfer = config.lora_config, config.kv_transfer_config
    knobs = {
        "prefill_schedule_interval": _above(options, "prefill_schedule_interval", 1),
        "long_prefill_token_threshold": _above(options, "long_prefill_token_threshold", 0),
        "long_prefill_token_threshold_adaptive": _set(options, "long_prefill_token_threshold_adaptive"),
        "max_num_partial_prefills": _above(options, "max_num_partial_prefills", 1),
        "max_num_active_seqs": _above(options, "max_num_active_seqs", 0),
        "watermark": _set(options, "watermark"),
        "speculative_method": getattr(speculative, "method", None),
        "speculative_tokens": getattr(speculative, "num_speculative_tokens", None),
        "max_loras": getattr(lora, "max_loras", None),
        "kv_connector": getattr(transfer, "kv_connector", None),
    }
    return {name: value for name, value in knobs.items() if value is not None}


def _above(options: Any, name: str, off: int) -> int | None:
    value = getattr(options, name, None)
    return int(value) if value is not None and value > off else None


def _set(options: Any, name: str) -> bool | float | None:
    """A knob that is off where it is False or 0."""
    value = getattr(options, name, None)
    return value if isinstance(value, bool | float) and value else None


def replicas_of(parallel: Any) -> int:
    """How many data-parallel replicas there are.

    Each replica of a dense model is told that it is the only one; one field is left that says how many were asked for.
    """
    elastic = getattr(parallel, "enable_elastic_ep", False)
    asked = 1 if elastic else getattr(parallel, "elastic_ep_max_dp_size", None) or 1
    return int(max(parallel.data_parallel_size, asked, parallel.data_parallel_index + 1))


def model_info(config: Any) -> ModelInfo:
    """The model by its own name; an export of tracereel's carries a note of where its weights came from."""
    model = config.model_config
    weights = "random" if config.load_config.load_format == "dummy" else "real"
    note = read_note(Path(model.model)) if weights == "real" else None
    if note is not None:
        return note.model_info(model.dtype)
    name = Path(model.model).name if Path(model.model).is_dir() else model.model
    architecture = getattr(getattr(model, "hf_config", None), "model_type", None)
    return ModelInfo(name=str(name), weights=weights, dtype=dtype_name(model.dtype), architecture=architecture)


def device_info(parallel: Any) -> DeviceInfo:
    """The device by its own name."""
    kind = str(current_platform.device_type)
    if kind == "cpu":
        # The threads of a worker in a process of its own are not known here.
        return DeviceInfo(
            kind=kind,
            name=cpu_name(),
            threads=torch.get_num_threads() if parallel.distributed_executor_backend == "uni" else None,
        )
    return DeviceInfo(
        kind=kind,
        name=current_platform.get_device_name(),
        driver=torch.version.cuda,
        memory_bytes=current_platform.get_device_total_memory(),
    )
