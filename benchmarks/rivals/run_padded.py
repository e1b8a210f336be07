"""transformers' `generate` on padded batches: those who have arrived, up to the slots, until all have ended."""

import time


def start(model, slots):
    """Load the model; returns what runs a job."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()

    def generate(prompts, length):
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        config = GenerationConfig(
            do_sample=False, max_new_tokens=length, min_new_tokens=length, eos_token_id=None, pad_token_id=0
        )
        with torch.inference_mode():
            out = loaded.generate(ids, attention_mask=mask, generation_config=config)
        assert out.shape[1] == longest + length, "an engine gave another number of tokens"

    def run(prompts, lengths, due_s):
        # A batch gives its tokens when it ends: `generate` has no stream for batches.
        last = [0.0] * len(prompts)
        zero, at = time.perf_counter(), 0
        while at < len(prompts):
            now = time.perf_counter() - zero
            if due_s[at] > now:
                time.sleep(due_s[at] - now)
                continue
            end = at
            while end < len(prompts) and end - at < slots and due_s[end] <= now:
                end += 1
            generate(prompts[at:end], max(lengths[at:end]))
            last[at:end] = [time.perf_counter() - zero] * (end - at)
            at = end
        return {"first_s": last, "last_s": last}

    return run
