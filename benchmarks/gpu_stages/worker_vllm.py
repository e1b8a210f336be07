"""vLLM in a process of its own: runs a session each time a line comes, and our adapter records each run.

    python -m gpu_stages.worker_vllm SESSION.json [--dry-run]

The session's model is a folder in Hugging Face's layout, its path the folder of the recordings. vLLM is left as it
comes (compiled, CUDA graphs, its own process for the core), but for the session's limits, no prefix caching, and the
share of the memory, since another engine is on the device. Answers as `worker_tracereel` does.
"""

import os
import sys
from pathlib import Path

import msgspec
from tracereel.engine.adapters.session import session_from_command_line
from tracereel.engine.adapters.vllm.session import answer

MEMORY = 0.5
"""The share of the device's memory that vLLM may count on; its KV blocks are stated besides."""


def main() -> None:
    """Load, warm up, and run as often as asked."""
    session = session_from_command_line()
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    from vllm import LLM

    has_text = (Path(session.model) / "tokenizer.json").is_file()
    settings = {
        "path": f"{session.path}/vllm.jsonl.zst",
        "warmup": len(session.warmup),
        "requests_per_run": len(session.requests),
        "content": has_text,
        "workload": msgspec.to_builtins(session.workload),
        "run": msgspec.to_builtins(session.run),
    }
    llm = LLM(
        session.model,
        dtype="bfloat16",
        max_model_len=session.max_model_len,
        max_num_seqs=session.slots,
        max_num_batched_tokens=session.token_budget,
        block_size=session.block_size,
        # One block more: vLLM keeps one that it never gives to a request.
        num_gpu_blocks_override=session.kv_blocks + 1,
        gpu_memory_utilization=MEMORY,
        enable_prefix_caching=False,
        skip_tokenizer_init=not has_text,
        scheduler_cls="tracereel.engine.adapters.vllm.scheduler",
        additional_config={"tracereel": settings},
    )
    answer(llm.llm_engine, session.warmup, "warmup-")
    print("@@ ready", flush=True)
    for _ in sys.stdin:
        answer(llm.llm_engine, session.requests, "")
        print("@@ done", flush=True)
    # The engine core closes the last recording when it is shut down.
    llm.llm_engine.engine_core.shutdown()


if __name__ == "__main__":
    main()
