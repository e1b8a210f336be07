"""The lengths of a model's own answers: each prompt is answered greedily, and its answer's length is kept with it."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from tracereel.engine.config import EngineConfig
from tracereel.engine.generation import generate
from tracereel.engine.loading import LoadedModel
from tracereel.engine.request import SamplingParams
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
    answers = generate(
        loaded,
        [prompt.prompt for prompt in prompts],
        SamplingParams(max_tokens=max_tokens),
        config=EngineConfig(max_num_batched_tokens=128),
        progress=lambda done, total: progress("answering", done, total),
    )
    return [
        Answer(msgspec.structs.replace(prompt, output_tokens=len(own.token_ids)), own.text, own.finish_reason)
        for prompt, own in zip(prompts, answers, strict=True)
    ]
