"""tracereel's own engine, continuous batching, no recorder."""

import time
from pathlib import Path

from tracereel.engine.config import EngineConfig
from tracereel.engine.engine import Engine
from tracereel.engine.loading import load_model
from tracereel.engine.request import Request, SamplingParams
from tracereel.engine.runner import ModelRunner


def start(model, slots):
    """Load the model; returns what runs a job."""
    loaded = load_model(Path(model), "cpu", "bf16")
    config = EngineConfig(max_num_seqs=slots, num_blocks=2048, max_num_batched_tokens=512)
    return serve(loaded, config, ModelRunner(loaded.model, config))


def serve(loaded, config, runner):
    """What runs a job on a runner."""

    def run(prompts, lengths, due_s):
        engine = Engine(runner, config, new_stream=loaded.tokenizer.stream, end_ids=loaded.tokenizer.end_ids)
        requests = [
            Request(str(i), tuple(prompt), SamplingParams(max_tokens=length, min_tokens=length))
            for i, (prompt, length) in enumerate(zip(prompts, lengths, strict=True))
        ]
        first, last = [0.0] * len(requests), [0.0] * len(requests)
        counts = [0] * len(requests)
        zero, waiting = time.perf_counter(), 0
        while waiting < len(requests) or engine.has_work:
            now = time.perf_counter() - zero
            while waiting < len(requests) and due_s[waiting] <= now:
                engine.add(requests[waiting])
                waiting += 1
            if not engine.has_work:
                time.sleep(due_s[waiting] - now)
                continue
            outputs = engine.step()
            now = time.perf_counter() - zero
            for output in outputs:
                first[output.request] = first[output.request] or now
                last[output.request] = now
                counts[output.request] += 1
        assert counts == lengths, "an engine gave another number of tokens"
        return {"first_s": first, "last_s": last}

    return run
