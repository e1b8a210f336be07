"""Run by vLLM's interpreter: prompts are prefilled by one engine and decoded by another, which gets their KV by NIXL.

`python vllm_prefill_decode.py MODELS RECORDING ANSWERS`, with the folder that tiny_models.py wrote. The engine that
decodes is recorded; it starts this file again as the one that prefills. ANSWERS gets what it answered, and what the one
that prefills answers by itself.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
# The prefilling engine tells the other one here where its KV is.
os.environ["VLLM_NIXL_SIDE_CHANNEL_PORT"] = "5601" if len(sys.argv) > 4 else "5602"

from vllm import LLM, SamplingParams

SENTENCE = "The cat sat on the mat, and the dog sat on the log, and the cat sat on the mat again. "
PROMPTS = [f"{SENTENCE * (1 + i % 3)}And then, for the {i}th time," for i in range(8)]
WAIT_S = 300


def engine(models: str, **options: Any) -> LLM:
    """An engine that can give KV away and take it."""
    return LLM(
        str(Path(models) / "tiny-llama"),
        max_model_len=256,
        max_num_seqs=4,
        max_num_batched_tokens=512,
        block_size=32,
        num_gpu_blocks_override=41,
        enable_prefix_caching=False,
        enforce_eager=True,
        disable_log_stats=True,
        kv_transfer_config={"kv_connector": "NixlConnector", "kv_role": "kv_both", "kv_buffer_device": "cpu"},
        **options,
    )


def sampling(tokens: int, transfer: dict[str, Any] | None = None) -> SamplingParams:
    """Greedily so many tokens; `transfer` is what vLLM's connector is told of the request."""
    extra = None if transfer is None else {"kv_transfer_params": transfer}
    return SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True, extra_args=extra)


def tokens_of(i: int) -> int:
    """How many tokens the i-th prompt is answered with."""
    return 16 + 13 * i % 60


def prefill(models: str, handed_over: Path) -> None:
    """Answer all prompts, then prefill them again for the other engine, and keep their KV until this is ended."""
    llm = engine(models)
    own = llm.generate(PROMPTS, [sampling(tokens_of(i)) for i in range(len(PROMPTS))], use_tqdm=False)
    ask = {"do_remote_decode": True, "do_remote_prefill": False}
    ask |= dict.fromkeys(("remote_engine_id", "remote_block_ids", "remote_host", "remote_port"))
    prefilled = llm.generate(PROMPTS, [sampling(1, ask)] * len(PROMPTS), use_tqdm=False)
    answers = [list(output.outputs[0].token_ids) for output in own]
    unfinished = handed_over.with_suffix(".partial")
    unfinished.write_text(json.dumps([answers, [output.kv_transfer_params for output in prefilled]]))
    unfinished.replace(handed_over)
    sys.stdin.read()


def decode(models: str, recording: str, answers: Path) -> None:
    """Decode what the other engine prefilled."""
    handed_over = answers.with_suffix(".transfers")
    command = [sys.executable, __file__, models, recording, str(handed_over), "prefill"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as other:
        llm = engine(
            models,
            scheduler_cls="tracereel.engine.adapters.vllm.scheduler",
            additional_config={"tracereel": {"path": recording}},
        )
        until = time.monotonic() + WAIT_S
        while not handed_over.exists():
            if other.poll() is not None or time.monotonic() > until:
                other.kill()
                raise SystemExit("the engine that prefills did not")
            time.sleep(0.1)
        own, transfers = json.loads(handed_over.read_text())
        asked = [sampling(tokens_of(i), transfer) for i, transfer in enumerate(transfers)]
        outputs = llm.generate(PROMPTS, asked, use_tqdm=False)
        llm.llm_engine.engine_core.shutdown()
        other.kill()
    answers.write_text(json.dumps([[list(output.outputs[0].token_ids) for output in outputs], own]))


if __name__ == "__main__":
    if len(sys.argv) > 4:
        prefill(sys.argv[1], Path(sys.argv[3]))
    else:
        decode(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
