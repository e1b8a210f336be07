"""vLLM on the CPU as it comes: compiled, its own process for the core, default token budget; prefix caching off."""

import os
import time

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def start(model, slots):
    """Load the model; returns what runs a job."""
    from vllm import LLM, SamplingParams

    llm = LLM(model, dtype="bfloat16", max_model_len=2048, max_num_seqs=slots, enable_prefix_caching=False)
    engine = llm.llm_engine
    submitted = 0

    def run(prompts, lengths, due_s):
        nonlocal submitted
        base = submitted
        first, last = [0.0] * len(prompts), [0.0] * len(prompts)
        counts = [0] * len(prompts)
        zero, waiting = time.perf_counter(), 0
        while waiting < len(prompts) or engine.has_unfinished_requests():
            now = time.perf_counter() - zero
            while waiting < len(prompts) and due_s[waiting] <= now:
                sampling = SamplingParams(temperature=0, max_tokens=lengths[waiting], ignore_eos=True, detokenize=True)
                engine.add_request(str(submitted), {"prompt_token_ids": prompts[waiting]}, sampling)
                waiting += 1
                submitted += 1
            if not engine.has_unfinished_requests():
                time.sleep(due_s[waiting] - now)
                continue
            outputs = engine.step()
            now = time.perf_counter() - zero
            for output in outputs:
                index = int(output.request_id) - base
                first[index] = first[index] or now
                last[index] = now
                counts[index] = len(output.outputs[0].token_ids)
        assert counts == lengths, "an engine gave another number of tokens"
        return {"first_s": first, "last_s": last}

    return run
