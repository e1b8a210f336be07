"""Prompts in, answers out: the engine runs until every request has ended.

Knows how to ask an `Engine`. For tokens as they come use `Engine.step` or `OnlineEngine`.
"""

import time
from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import dataclass

from tracereel.engine.config import EngineConfig
from tracereel.engine.engine import Output
from tracereel.engine.loading import LoadedModel
from tracereel.engine.request import Request, RequestError, SamplingParams, TokenLogprobs
from tracereel.trace.format import events
from tracereel.trace.format.bounds import fault, shown


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer: its tokens, its text, and why it ended (`stop`, `length`).

    `logprobs` has an entry for each token where they were asked for, and is empty where not.
    """

    prompt: str
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    text: str
    finish_reason: str
    logprobs: tuple[TokenLogprobs, ...] = ()


def generate(
    loaded: LoadedModel,
    prompts: Many[str],
    sampling: SamplingParams | Many[SamplingParams] | None = None,
    *,
    chat: bool = True,
    config: EngineConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Completion]:
    """Answer every prompt, batched under `config`; the answers are in the order of the prompts.

    `sampling` is one for all or one for each. `chat` puts each prompt into the model's chat template, else it is a text
    to be continued. `progress` is called with (answers done, answers in all) after each step. Raises ConfigError,
    RequestError, and NeverFitsError before anything is computed where a prompt is too long.
    """
    each = [sampling or SamplingParams()] * len(prompts) if not isinstance(sampling, Many) else sampling
    if len(each) != len(prompts):
        raise RequestError(f"sampling: {len(each)} for {len(prompts)} prompts")
    for number, prompt in enumerate(prompts):
        if what := fault(prompt, events.Prompt):
            raise RequestError(f"prompts[{number}]: {shown(prompt)}: {what}")
    encode = loaded.tokenizer.encode_chat if chat else loaded.tokenizer.encode_prompt
    engine = loaded.engine(config)
    requests = [
        Request(str(number), tuple(encode(prompt)), own, prompt)
        for number, (prompt, own) in enumerate(zip(prompts, each, strict=True))
    ]
    for request in requests:
        engine.add(request)
    outputs: list[list[Output]] = [[] for _ in requests]
    while (ready_ns := engine.ready_in_ns()) is not None:
        time.sleep(ready_ns / 1e9)
        for output in engine.step():
            outputs[output.request].append(output)
        if progress:
            progress(engine.metrics().finished, len(requests))
    return [
        Completion(
            prompt=prompt,
            prompt_ids=request.prompt_ids,
            token_ids=tuple(output.token_id for output in own),
            text="".join(output.text for output in own),
            finish_reason=str(own[-1].finish_reason),
            logprobs=tuple(output.logprobs for output in own if output.logprobs),
        )
        for prompt, request, own in zip(prompts, requests, outputs, strict=True)
    ]
