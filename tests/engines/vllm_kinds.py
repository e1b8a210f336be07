"""Run by vLLM's interpreter: a few requests to a tiny model, of one kind: hybrid, LoRA, drafts, experts, or KV from
elsewhere.

`python vllm_kinds.py MODELS KIND RECORDING ANSWERS`, with the folder that tiny_models.py wrote. The prompts are prose
and repeat themselves, so that n-gram drafts have something to find; the pool is so small that requests are preempted.
"""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
if sys.argv[2:3] == ["moe"]:
    # Only vLLM's second model runner returns which experts were taken. Its kernels are Triton's, which on a CPU are
    # interpreted; vLLM asks for a backend for CPUs nevertheless: one is named, which interpreted kernels do not use.
    os.environ |= {"VLLM_USE_V2_MODEL_RUNNER": "1", "TRITON_INTERPRET": "1"}
    from triton.backends import backends

    backends["cpu"] = SimpleNamespace(driver=SimpleNamespace(is_active=lambda: True), compiler=None)

from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

KINDS = {
    "sliding-window": ("tiny-gemma3", {"num_gpu_blocks_override": 61}),
    "mamba": ("tiny-granite", {"num_gpu_blocks_override": 13}),
    "lora": ("tiny-llama", {"num_gpu_blocks_override": 25, "enable_lora": True, "max_loras": 2, "max_lora_rank": 8}),
    "speculation": (
        "tiny-llama",
        {
            "num_gpu_blocks_override": 25,
            "speculative_config": {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3},
        },
    ),
    "moe": ("tiny-qwen3-moe", {"num_gpu_blocks_override": 25, "enable_return_routed_experts": True}),
    "elsewhere": (
        "tiny-llama",
        {
            "num_gpu_blocks_override": 25,
            "enable_prefix_caching": False,
            "kv_transfer_config": {
                "kv_connector": "ExampleConnector",
                "kv_role": "kv_both",
                "kv_connector_extra_config": {"shared_storage_path": "kv"},
            },
        },
    ),
    "loading": (
        "tiny-llama",
        {
            "num_gpu_blocks_override": 25,
            "enable_prefix_caching": False,
            "kv_transfer_config": {
                "kv_connector": "WaitingConnector",
                "kv_connector_module_path": "waiting_connector",
                "kv_role": "kv_both",
                "kv_connector_extra_config": {"shared_storage_path": "kv"},
            },
        },
    ),
}
SENTENCE = "The cat sat on the mat, and the dog sat on the log, and the cat sat on the mat again. "


def main() -> None:
    models, kind, recording, answers = sys.argv[1:]
    model, options = KINDS[kind]
    from_elsewhere = "kv_transfer_config" in options
    llm = LLM(
        str(Path(models) / model),
        max_model_len=256,
        max_num_seqs=4,
        # The example connector stores a prompt's KV after its first chunk: a prompt must be one.
        max_num_batched_tokens=512 if from_elsewhere else 64,
        enforce_eager=True,
        disable_log_stats=True,
        scheduler_cls="tracereel.engine.adapters.vllm.scheduler",
        additional_config={"tracereel": {"path": recording}},
        **({"block_size": 32} if kind != "mamba" else {}),
        **options,
    )
    prompts = [f"{SENTENCE * (1 + i % 3)}And then, for the {i}th time," for i in range(8)]
    sampling = [SamplingParams(max_tokens=16 + 13 * i % 60, temperature=0, ignore_eos=True) for i in range(8)]
    loras = None
    if kind == "lora":
        adapters = [LoRARequest(name, 1 + i, str(Path(models) / name)) for i, name in enumerate(("poet", "clerk"))]
        loras = [[None, *adapters][i % 3] for i in range(8)]
    for _ in range(2 if from_elsewhere else 1):
        outputs = llm.generate(prompts, sampling, use_tqdm=False, lora_request=loras)
    said = {output.request_id: (list(output.outputs[0].token_ids), output.outputs[0].text) for output in outputs}
    Path(answers).write_text(json.dumps(said))
    llm.llm_engine.engine_core.shutdown()


if __name__ == "__main__":
    main()
