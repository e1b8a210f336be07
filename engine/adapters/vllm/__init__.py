"""Records vLLM: a scheduler that does what vLLM's does and writes down what it did.

    vllm serve MODEL --scheduler-cls tracereel.engine.adapters.vllm.scheduler \
        --additional-config '{"tracereel": {"path": "run"}}'
    LLM(MODEL, scheduler_cls="tracereel.engine.adapters.vllm.scheduler",
        additional_config={"tracereel": {"path": "run"}})

or, without touching either, with the environment variable TRACEREEL_VLLM=run (a plugin in vLLM's group
`vllm.general_plugins`). `run` is a folder, which gets one trace for each engine core (data-parallel replica); or a file
that ends in .jsonl or .jsonl.zst.

Every fact is read in the engine core, where the scheduler is: on the engine's thread only references are taken, on the
recorder's thread they become records. Where vLLM schedules ahead (asynchronous scheduling, pipeline parallelism), the
steps are put one after the other: a step lasts from the end of its schedule, or of the step before where that is later,
until its tokens are there; `latency_ns` is the whole of it.

Knows vLLM's V1 scheduler, as of the versions in `header.TRIED`, and its block tables, by group of layers.
Does not know the workers: what one rank computes, and when, is not in the trace.
"""

from typing import Any


def scheduler(vllm_config: Any, *args: Any, **kwargs: Any) -> Any:
    """For `--scheduler-cls`: vLLM's own scheduler, the asynchronous or the synchronous as configured, and recorded."""
    from tracereel.engine.adapters.vllm.traced import chosen_scheduler, traced

    return traced(chosen_scheduler(vllm_config))(vllm_config, *args, **kwargs)
