"""transformers' continuous batching (`generate_batch`'s manager), its cache sized by hand: it sizes GPUs' only."""

import time


def start(model, slots):
    """Load the model; returns what runs a job."""
    import torch
    from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()
    manager = loaded.init_continuous_batching(
        GenerationConfig(do_sample=False, max_new_tokens=16, eos_token_id=-1),
        ContinuousBatchingConfig(
            page_size=16,
            num_blocks=2048,
            max_batch_tokens=512,
            max_requests_per_batch=slots,
            allow_block_sharing=False,
        ),
    )
    manager.start()
    return serve(manager)


def serve(manager):
    """What runs a job on a manager that was started."""

    def run(prompts, lengths, due_s):
        first, last = [0.0] * len(prompts), [0.0] * len(prompts)
        zero, waiting, left = time.perf_counter(), 0, len(prompts)
        while left:
            now = time.perf_counter() - zero
            while waiting < len(prompts) and due_s[waiting] <= now:
                manager.add_request(
                    prompts[waiting],
                    request_id=str(waiting),
                    max_new_tokens=lengths[waiting],
                    record_timestamps=True,
                    eos_token_id=-1,
                )
                waiting += 1
            pause = max(0.001, due_s[waiting] - now) if waiting < len(prompts) else 1.0
            output = manager.get_result(timeout=min(pause, 1.0))
            if output is None or not output.is_finished():
                continue
            assert output.error is None, output.error
            index = int(output.request_id)
            assert len(output.generated_tokens) == lengths[index], "an engine gave another number of tokens"
            first[index], last[index] = output.timestamps[0] - zero, output.timestamps[-1] - zero
            left -= 1
        return {"first_s": first, "last_s": last}

    return run
