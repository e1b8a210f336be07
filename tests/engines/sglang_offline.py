"""Run by SGLang's interpreter: answer a handful of prompts offline, write down what came back.

`python sglang_offline.py MODEL ANSWERS OPTIONS` with more options of `Engine` as JSON. The prompts begin alike, the
longest takes several chunks; with SGLANG_TEST_RETRACT in the environment SGLang retracts requests again and again.
SGLang has no package of kernels for CPUs: with PyTorch's own attention it runs models that need none of them, of which
GPT-2 is one. The engine is ended as its server ends: its scheduler is asked to leave.
"""

import json
import sys
import time
from pathlib import Path

SHARED = "The quick brown fox jumps over the lazy dog, and then it tells the cat that it is time for lunch. " * 2


def main() -> None:
    import sglang
    from sglang.srt.managers.io_struct import ShutdownReq
    from sglang.srt.managers.tokenizer_manager import collect_scheduler_processes

    model, answers, options = sys.argv[1:]
    engine = sglang.Engine(
        model_path=model,
        device="cpu",
        attention_backend="torch_native",
        sampling_backend="pytorch",
        disable_cuda_graph=True,
        skip_server_warmup=True,
        context_length=256,
        page_size=16,
        max_running_requests=4,
        max_total_tokens=400,
        chunked_prefill_size=64,
        log_level="warning",
        **json.loads(options),
    )
    prompts = [f"{SHARED}Tell me about the number {i}, and {'why ' * (7 * i % 20)}" for i in range(12)]
    sampling = [{"temperature": 0, "ignore_eos": True, "max_new_tokens": 1 + 13 * i % 60} for i in range(len(prompts))]
    outputs = engine.generate(prompts, sampling)
    said = {output["meta_info"]["id"]: (output["output_ids"], output["text"]) for output in outputs}
    Path(answers).write_text(json.dumps(said))
    engine.tokenizer_manager._subprocess_watchdog.stop()
    engine.tokenizer_manager._dispatch_to_scheduler(ShutdownReq())
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and collect_scheduler_processes():
        time.sleep(0.1)
    engine.shutdown()


if __name__ == "__main__":
    main()
