"""One recorded run of transformers: `python -m tracereel.engine.adapters.session_transformers SESSION.json`.

Variant `continuous` is its continuous batching under the suite's limits; `static` is `generate` on padded batches of as
many prompts as there are slots, each row told when its answer is long enough.
"""

from typing import Any

import torch
from tracereel.engine.adapters.session import Ask, Session, session_from_command_line
from tracereel.engine.adapters.transformers import attach
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    ContinuousBatchingConfig,
    GenerationConfig,
    StoppingCriteria,
    StoppingCriteriaList,
)

PAD = 0
Configured: Any = GenerationConfig


class PinnedLengths(StoppingCriteria):
    """Ends each row once it has as many new tokens as it was asked for."""

    def __init__(self, lengths: list[int], width: int):
        self.limits = torch.tensor(lengths) + width

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """A verdict for each row."""
        return input_ids.shape[1] >= self.limits.to(input_ids.device)


def main() -> None:
    """Load, warm up, run."""
    session = session_from_command_line()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(session.model, dtype=torch.bfloat16)
    model.to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(session.model)
    answer = {"continuous": answer_continuously, "static": answer_in_batches}[session.variant]
    answer(model, session, session.warmup)
    with attach(model, session.path, tokenizer=tokenizer, workload=session.workload, run=session.run) as recording:
        for ask in session.asks:
            recording.expect(ask.id, ask.prompt_ids, prompt=ask.prompt, max_tokens=ask.output_tokens)
        answer(model, session, session.asks)


def answer_continuously(model: Any, session: Session, asks: list[Ask]) -> None:
    """Submit all at once to its continuous batching, and wait for the last."""
    limits = ContinuousBatchingConfig(
        page_size=session.block_size,
        num_blocks=session.kv_blocks,
        max_batch_tokens=session.token_budget,
        max_requests_per_batch=session.slots,
        allow_block_sharing=False,
    )
    greedy = Configured(do_sample=False, eos_token_id=-1, pad_token_id=PAD)
    with model.continuous_batching_context_manager(
        generation_config=greedy, continuous_batching_config=limits
    ) as manager:
        for ask in asks:
            manager.add_request(ask.prompt_ids, request_id=ask.id, max_new_tokens=ask.output_tokens, eos_token_id=-1)
        done = 0
        while done < len(asks):
            result = manager.get_result(timeout=60)
            if result is None and not manager.is_running():
                raise SystemExit("transformers' generation thread has ended before its requests")
            if result is not None and result.error is not None:
                raise SystemExit(f"{result.request_id}: {result.error}")
            done += result is not None and result.is_finished()


def answer_in_batches(model: Any, session: Session, asks: list[Ask]) -> None:
    """Batches in the order of the requests, padded on the left, each until its longest answer is there."""
    for first in range(0, len(asks), session.slots):
        batch = asks[first : first + session.slots]
        width = max(len(ask.prompt_ids) for ask in batch)
        rows = [[PAD] * (width - len(ask.prompt_ids)) + ask.prompt_ids for ask in batch]
        mask = [[0] * (width - len(ask.prompt_ids)) + [1] * len(ask.prompt_ids) for ask in batch]
        lengths = [ask.output_tokens for ask in batch]
        model.generate(
            torch.tensor(rows, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            stopping_criteria=StoppingCriteriaList([PinnedLengths(lengths, width)]),
            generation_config=Configured(
                do_sample=False, max_new_tokens=max(lengths), eos_token_id=-1, pad_token_id=PAD
            ),
        )


if __name__ == "__main__":
    main()
