"""One recorded run of transformers: `python -m tracereel.engine.adapters.transformers.session SESSION.json`.

Variant `continuous` is its continuous batching under the suite's limits; `static` is `generate` on padded batches of as
many prompts as there are slots, each row told when its answer is long enough.
"""

from typing import Any

import torch
from tracereel.engine.adapters.session import Session, SessionRequest, session_from_command_line
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
        for request in session.requests:
            recording.expect(request.id, request.prompt_ids, prompt=request.prompt, max_tokens=request.output_tokens)
        answer(model, session, session.requests)


def answer_continuously(model: Any, session: Session, requests: list[SessionRequest]) -> None:
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
        for request in requests:
            manager.add_request(
                request.prompt_ids, request_id=request.id, max_new_tokens=request.output_tokens, eos_token_id=-1
            )
        done = 0
        while done < len(requests):
            result = manager.get_result(timeout=60)
            if result is None and not manager.is_running():
                raise SystemExit("transformers' generation thread has ended before its requests")
            if result is not None and result.error is not None:
                raise SystemExit(f"{result.request_id}: {result.error}")
            done += result is not None and result.is_finished()


def answer_in_batches(model: Any, session: Session, requests: list[SessionRequest]) -> None:
    """Batches in the order of the requests, padded on the left, each until its longest answer is there."""
    for first in range(0, len(requests), session.slots):
        batch = requests[first : first + session.slots]
        width = max(len(request.prompt_ids) for request in batch)
        rows = [[PAD] * (width - len(request.prompt_ids)) + request.prompt_ids for request in batch]
        mask = [[0] * (width - len(request.prompt_ids)) + [1] * len(request.prompt_ids) for request in batch]
        lengths = [request.output_tokens for request in batch]
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
