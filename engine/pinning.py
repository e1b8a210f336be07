"""How long a model's own answers are: each prompt answered greedily, its length kept with it."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from tracereel.engine.config import EngineConfig
from tracereel.engine.engine import Engine, Output
from tracereel.engine.loading import LoadedModel
from tracereel.engine.request import Request, SamplingParams
from tracereel.engine.runner import ModelRunner
from tracereel.engine.workload import Prompt


@dataclass(frozen=True)
class Answer:
    """A prompt with the length of its answer, the answer, and why it ended."""

    prompt: Prompt
    text: str
    reason: str


def pin_lengths(
    prompts: list[Prompt], loaded: LoadedModel, max_tokens: int, progress: Callable[[str, int, int], None]
) -> list[Answer]:
    """Answer every prompt up to the model's end token or `max_tokens`; the prompts come back with those lengths."""
    config = EngineConfig(max_num_batched_tokens=128)
    engine = Engine(
        ModelRunner(loaded.model, config),
        config,
        new_stream=loaded.tokenizer.stream,
        end_ids=loaded.tokenizer.end_ids,
    )
    for prompt in prompts:
        ids = tuple(loaded.tokenizer.encode_chat(prompt.prompt))
        engine.add(Request(prompt.id, ids, SamplingParams(max_tokens=max_tokens), prompt.prompt))
    outputs: list[list[Output]] = [[] for _ in prompts]
    while engine.has_work:
        for output in engine.step():
            outputs[output.request].append(output)
        progress("answering", engine.metrics().finished, len(prompts))
    return [
        Answer(
            msgspec.structs.replace(prompt, output_tokens=len(own)),
            "".join(output.text for output in own),
            str(own[-1].finish_reason),
        )
        for prompt, own in zip(prompts, outputs, strict=True)
    ]
