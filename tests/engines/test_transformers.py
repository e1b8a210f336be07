"""transformers with the real model, recorded: its tokens are the trace's, and each recording makes a film."""

import pytest
import torch
from recorded import render, said, trace_of
from tracereel.engine.adapters.transformers import attach
from tracereel.engine.model_store import FILE_SHA256
from transformers import AutoModelForCausalLM, AutoTokenizer, ContinuousBatchingConfig, GenerationConfig

QUESTIONS = [f"Tell me about the number {i}, {'and why ' * (5 * i % 9)}please." for i in range(6)]


@pytest.fixture(scope="module")
def tokenizer(model_folder):
    return AutoTokenizer.from_pretrained(model_folder)


@pytest.fixture(scope="module")
def model(model_folder):
    return AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16).eval()


@pytest.mark.parametrize("scheduler", ["fifo", "prefill_first"])
def test_generate_batch(model, tokenizer, tmp_path, scheduler):
    config = ContinuousBatchingConfig(
        scheduler_type=scheduler,
        page_size=16,
        num_blocks=14,
        max_batch_tokens=64,
        max_requests_per_batch=4,
        allow_block_sharing=False,
    )
    greedy = GenerationConfig(do_sample=False, max_new_tokens=24, eos_token_id=2, pad_token_id=2)
    prompts = [tokenizer(question)["input_ids"] for question in QUESTIONS]
    with attach(model, tmp_path / "run.jsonl", tokenizer=tokenizer):
        answers = model.generate_batch(prompts, generation_config=greedy, continuous_batching_config=config)
    trace = trace_of(tmp_path / "run.jsonl")
    told = {name.split()[0]: tokens for name, (tokens, _) in said(trace).items()}
    assert told == {name: answer.generated_tokens for name, answer in answers.items()}
    assert trace.header.model.digest == FILE_SHA256
    render(tmp_path / "run.jsonl", tmp_path)


def test_generate(model, tokenizer, tmp_path):
    tokenizer.padding_side = "left"
    batch = tokenizer(QUESTIONS[:4], return_tensors="pt", padding=True)
    with attach(model, tmp_path / "run.jsonl", tokenizer=tokenizer):
        answers = model.generate(**batch, do_sample=False, max_new_tokens=16, pad_token_id=2)
    trace = trace_of(tmp_path / "run.jsonl")
    for row, (tokens, _) in zip(answers[:, batch["input_ids"].shape[1] :].tolist(), said(trace).values(), strict=True):
        assert row[: len(tokens)] == tokens
        assert set(row[len(tokens) :]) <= {2}
    assert trace.steps.padding[0] > 0
    render(tmp_path / "run.jsonl", tmp_path)
