"""One recorded run of vLLM: `python -m tracereel.engine.adapters.vllm.session SESSION.json`, by vLLM's own interpreter.

vLLM is left as it comes (compiled, where it compiles), but for the limits of the suite (slots, token budget, as many
tokens of KV cache; no prefix caching) and, on a CPU, its threads: it would leave a core to its scheduler, which on a
small machine is half of what the other engines compute with. VLLM_CPU_OMP_THREADS_BIND in the environment says
otherwise.
"""

import os
import time

import msgspec
from tracereel.engine.adapters.session import SessionRequest, session_from_command_line

CPU_BLOCK_SIZE = 32
"""vLLM's attention on a CPU wants blocks of a multiple of this."""


def main() -> None:
    """Load, warm up, run, leave."""
    session = session_from_command_line()
    # The KV cache is small and stated in blocks: nothing needs to be reserved for it.
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    if hasattr(os, "sched_getaffinity"):
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, sorted(os.sched_getaffinity(0)))))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    from vllm import LLM
    from vllm.platforms import current_platform

    on_cpu = current_platform.device_type == "cpu"
    block = max(session.block_size, CPU_BLOCK_SIZE) if on_cpu else session.block_size
    settings = {
        "path": session.path,
        "warmup": len(session.warmup),
        "workload": msgspec.to_builtins(session.workload),
        "run": msgspec.to_builtins(session.run),
    }
    llm = LLM(
        session.model,
        dtype="bfloat16",
        max_model_len=session.max_model_len,
        max_num_seqs=session.slots,
        max_num_batched_tokens=session.token_budget,
        block_size=block,
        # One block more: vLLM keeps one that it never gives to anybody.
        num_gpu_blocks_override=session.kv_blocks * session.block_size // block + 1,
        enable_prefix_caching=False,
        scheduler_cls="tracereel.engine.adapters.vllm.scheduler",
        additional_config={"tracereel": settings},
    )
    answer(llm.llm_engine, session.warmup, "warmup-")
    answer(llm.llm_engine, session.requests, "")


def answer(engine: object, requests: list[SessionRequest], prefix: str) -> None:
    """Submit all at once and step until they are done."""
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    arrival = time.time()
    for request in requests:
        sampling = SamplingParams(
            max_tokens=request.output_tokens,
            temperature=0,
            ignore_eos=True,
            extra_args={"tracereel_prompt": request.prompt},
        )
        prompt = TokensPrompt(prompt_token_ids=request.prompt_ids)
        engine.add_request(prefix + request.id, prompt, sampling, arrival_time=arrival)  # type: ignore[attr-defined]
    while engine.has_unfinished_requests():  # type: ignore[attr-defined]
        engine.step()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
