"""Run by vLLM's interpreter: answer a handful of prompts offline, write down what came back.

`python vllm_offline.py MODEL ANSWERS OPTIONS` with the options of `LLM` as JSON; RUNS in the environment: as often as
that, the last answers count. The pool is small enough for
preemptions, the prompts begin alike, the longest takes several chunks. With TWO_IN_FLIGHT in the environment vLLM keeps
two batches in its queue, as it does under pipeline parallelism, and so schedules ahead.
"""

import json
import os
import sys
from pathlib import Path

from vllm import LLM, SamplingParams
from vllm.config import VllmConfig

SHARED = "The quick brown fox jumps over the lazy dog, and then it tells the cat that it is time for lunch. " * 2

if "TWO_IN_FLIGHT" in os.environ:  # here, not in main: the engine core imports this file in a process of its own
    VllmConfig.max_concurrent_batches = property(lambda self: 2)


def main() -> None:
    model, answers, options = sys.argv[1:]
    llm = LLM(
        model,
        max_model_len=256,
        max_num_seqs=6,
        max_num_batched_tokens=64,
        enforce_eager=True,
        block_size=32,
        num_gpu_blocks_override=14,
        disable_log_stats=True,
        **json.loads(options),
    )
    prompts = [f"{SHARED}Tell me about the number {i}, and {'why ' * (7 * i % 20)}" for i in range(12)]
    sampling = [
        SamplingParams(max_tokens=1 + 13 * i % 60, temperature=0, ignore_eos=True, stop=["never said"])
        for i in range(len(prompts))
    ]
    for _ in range(int(os.environ.get("RUNS", "1"))):
        outputs = llm.generate(prompts, sampling, use_tqdm=False)
    said = {output.request_id: (list(output.outputs[0].token_ids), output.outputs[0].text) for output in outputs}
    Path(answers).write_text(json.dumps(said))
    # On a busy machine vLLM would otherwise kill its engine core five seconds after this process ends.
    llm.llm_engine.engine_core.shutdown(timeout=120)


if __name__ == "__main__":
    main()
