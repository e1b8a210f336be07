"""The package's suites: each shows what it is there for. Lengths are pinned, so that no model need run to know."""

from pathlib import Path

import fakes
import pytest
from tracereel.engine.config import EngineConfig
from tracereel.engine.request import Request, SamplingParams
from tracereel.engine.scheduler import Scheduler, StepPlan
from tracereel.engine.suite import Suite, suite_named


@pytest.fixture(scope="module")
def encode(model_file: Path):
    """The real tokenizer."""
    from tracereel.engine.weights.gguf_file import GgufFile

    return GgufFile(model_file).tokenizer().encode_chat


def plans_of(suite: Suite, config: EngineConfig, encode) -> list[StepPlan]:
    """The steps of a run in which all come at once."""
    scheduler, runner = Scheduler(config), fakes.FakeRunner(config)
    for number, prompt in enumerate(suite.prompts):
        length = prompt.output_tokens
        sampling = SamplingParams(max_tokens=length, min_tokens=length)
        scheduler.add(number, Request(prompt.id, tuple(encode(prompt.prompt)), sampling))
    plans = []
    while (plan := scheduler.schedule(0)) is not None:
        plans.append(plan)
        scheduler.update(plan, runner.execute(plan).tokens)
    return plans


def test_paging_has_shared_prefixes_and_preemptions(encode):
    suite = suite_named("paging")
    steps = {}
    for case in suite.cases:
        config = suite.config(case)
        plans = plans_of(suite, config, encode)
        steps[case.name] = len(plans)
        assert any(plan.preempted for plan in plans)
        hits = [admission.cached for plan in plans for admission in plan.admitted if admission.cached]
        assert bool(hits) == config.enable_prefix_caching
        if hits:
            again = [sum(plan.preempted.count(number) for plan in plans) for number in range(len(suite.prompts))]
            assert len(hits) >= len(suite.prompts) - 2 + sum(again)
            seen: set[int] = set()
            for admission in (admission for plan in plans for admission in plan.admitted):
                assert admission.cached or admission.request not in seen, "who comes back finds its beginning again"
                seen.add(admission.request)
    assert steps["prefix-caching"] < steps["no-prefix-caching"]


def test_chunked_has_a_long_prompt_that_comes_while_others_decode(encode):
    suite = suite_named("chunked")
    lengths = {prompt.id: len(encode(prompt.prompt)) for prompt in suite.prompts}
    long = max(lengths, key=lengths.get)
    assert lengths[long] >= 800
    assert max(length for name, length in lengths.items() if name != long) < 64
    assert all(prompt.arrival_ms == 0 for prompt in suite.prompts if prompt.id != long)
    assert next(prompt.arrival_ms for prompt in suite.prompts if prompt.id == long) > 0
    chunked, unchunked = (suite.config(case) for case in suite.cases)
    assert unchunked.max_num_batched_tokens > lengths[long] > 8 * chunked.max_num_batched_tokens


def test_sweep_has_each_policy_at_each_batch_size():
    suite = suite_named("sweep")
    pairs = {(case.policy, suite.config(case).max_num_seqs) for case in suite.cases}
    assert pairs == {(policy, slots) for policy in ("static", "continuous") for slots in (2, 4, 8, 16, 32)}
    assert suite.prompts == suite_named("film").prompts


def test_the_film_for_gpus_fills_its_slots_and_never_runs_out_of_blocks(encode):
    suite = suite_named("film-gpu")
    assert suite.name == "film", "it lies among the film's recordings"
    assert len({prompt.id for prompt in suite.prompts}) == len(suite.prompts) == 8 * 48
    case = next(case for case in suite.cases if case.name == "continuous")
    config = suite.config(case)
    scheduler = Scheduler(config)
    for number, prompt in enumerate(suite.prompts):
        sampling = SamplingParams(max_tokens=prompt.output_tokens, min_tokens=prompt.output_tokens)
        scheduler.add(number, Request(prompt.id, tuple(encode(prompt.prompt)), sampling))
    batches = []
    while (plan := scheduler.schedule(0)) is not None:
        assert not plan.preempted
        batches.append(len(plan.requests))
        scheduler.update(plan, [1] * sum(plan.samples))
    assert max(batches) == config.max_num_seqs == 64
    assert sorted(batches)[len(batches) // 2] == 64, "at least half of the steps are full"
