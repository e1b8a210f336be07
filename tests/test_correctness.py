"""Whatever the engine is set to do, its fp32 greedy tokens are those of transformers, for every family of models."""

import itertools
import random
import time
from dataclasses import dataclass

import families
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tracereel.engine.attention import BatchLayout
from tracereel.engine.config import EngineConfig
from tracereel.engine.layer_ops import make_layer_ops
from tracereel.engine.loading import load_model
from tracereel.engine.policies import POLICIES
from tracereel.engine.request import Request, SamplingParams
from tracereel.engine.suite import SUITES
from tracereel.engine.workload_files import read_prompts

TOKENS = 64
SLOTS = 16
CHUNK = 32
COMBINATIONS = [
    {"policy": policy, "chunked": chunked, "cached": cached, "preempted": preempted}
    for policy, chunked, cached, preempted in itertools.product(POLICIES, (False, True), (False, True), (False, True))
    if POLICIES[policy].chunks or not chunked
]


def named(combination):
    return "-".join([combination["policy"], *(name for name, on in combination.items() if on is True)])


@dataclass
class Seen:
    """What happened while a set of requests was answered."""

    answers: list[list[int]]
    preempted: int = 0
    cached: int = 0
    longest_chunk: int = 0


class Watched:
    """A runner that looks at the plans."""

    def __init__(self, runner, seen):
        self._runner, self._seen = runner, seen

    def execute(self, plan):
        self._seen.preempted += len(plan.preempted)
        self._seen.cached += sum(admission.cached for admission in plan.admitted)
        self._seen.longest_chunk = max(self._seen.longest_chunk, *map(len, plan.token_ids))
        return self._runner.execute(plan)


def answer(loaded, prompts, sampling, config):
    """The engine's answers, and what it did for them."""
    seen = Seen([[] for _ in prompts])
    engine = loaded.engine(config, runner=Watched(loaded.runner(config), seen))
    each = sampling if isinstance(sampling, list) else [sampling] * len(prompts)
    for i, (prompt, own) in enumerate(zip(prompts, each, strict=True)):
        engine.add(Request(str(i), tuple(prompt), own))
    while (ready_ns := engine.ready_in_ns()) is not None:
        time.sleep(ready_ns / 1e9)
        for output in engine.step():
            seen.answers[output.request].append(output.token_id)
    assert engine.metrics().kv_used == 0
    return seen


def config_of(combination, prompts, tokens, slots, context):
    """The configuration that brings a combination about: a small budget cuts prompts, a small pool runs out."""
    longest = max(map(len, prompts)) + tokens
    blocks = -(-longest // 16)
    # A padded batch that is fed in small chunks closes with few members: it takes a smaller pool to run out of blocks.
    closes_small = POLICIES[combination["policy"]].pads and combination["chunked"]
    scarce = blocks + (6 if closes_small else slots * 3)
    return EngineConfig(
        policy=combination["policy"],
        max_num_seqs=slots,
        max_num_batched_tokens=CHUNK if combination["chunked"] else 4096,
        num_blocks=scarce if combination["preempted"] else slots * blocks,
        max_model_len=min(context, 1024),
        enable_prefix_caching=combination["cached"],
        max_wait_ms=1,
    )


def assert_as_meant(seen, combination, prompts):
    """Did the configuration bring about what it is meant to?"""
    assert (seen.preempted > 0) is combination["preempted"]
    # Whole prompts, the shortest first and each once: no block is computed before a prompt that could share it comes.
    once = not combination["chunked"] and not combination["preempted"]
    shares = not (combination["policy"] == "shortest-prompt-first" and once)
    assert (seen.cached > 0) is (combination["cached"] and shares)
    # A preempted sequence is recomputed, output and all: longer than any prompt where nothing cuts it.
    assert seen.longest_chunk <= CHUNK if combination["chunked"] else seen.longest_chunk >= max(map(len, prompts)) - 32


def assert_greedy(model, prompts, answers):
    """Every token is the one that transformers puts first after what stands before it.

    Token by token, that makes the answers those that its greedy generation gives; one pass over each says so.
    """
    for prompt, own in zip(prompts, answers, strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + own])).logits[0, len(prompt) - 1 : -1]
        assert logits.argmax(-1).tolist() == own


GREEDY = SamplingParams(max_tokens=TOKENS, ignore_eos=True)


@dataclass
class Subject:
    """A model as the engine and as transformers load it, prompts, and answers that transformers agrees with."""

    loaded: object
    model: object
    prompts: list[list[int]]
    answers: list[list[int]]


def some_prompts(count=32):
    """Token ids of eight lengths; every other four prompts begin with the same 37 tokens."""
    rng = random.Random(1)
    shared = [rng.randrange(families.SIZES["vocab_size"]) for _ in range(37)]
    prompts = []
    for i in range(count):
        own = [rng.randrange(families.SIZES["vocab_size"]) for _ in range(3 + 9 * (i % 4))]
        prompts.append(own if i % 8 < 4 else shared + own)
    return prompts


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A subject for each family, made when it is first asked for."""
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("families") / name
            model = families.make_model(families.FAMILIES[name], folder)
            loaded = load_model(folder, "cpu", "fp32")
            prompts = some_prompts()
            plain = EngineConfig(max_num_seqs=SLOTS, max_num_batched_tokens=4096, max_model_len=256)
            answers = answer(loaded, prompts, GREEDY, plain).answers
            assert_greedy(model, prompts, answers)
            assert len({token for own in answers for token in own}) > 100, "answers that say nothing prove nothing"
            made[name] = Subject(loaded, model, prompts, answers)
        return made[name]

    return get


@pytest.mark.slow
@pytest.mark.parametrize("name", families.FAMILIES)
def test_tokens_are_those_of_transformers_alone(tiny, name):
    subject = tiny(name)
    alone = EngineConfig(max_num_seqs=1, max_model_len=256)
    for prompt, expected in list(zip(subject.prompts, subject.answers, strict=True))[::5]:
        assert answer(subject.loaded, [prompt], GREEDY, alone).answers == [expected]


FAMILIES = ("llama3-rope", "qwen2", "qwen3")


def every_combination():
    """Each combination with one family, and each of the three families with a third of them; the rest is exhaustive."""
    for (i, combination), (j, name) in itertools.product(enumerate(COMBINATIONS), enumerate(FAMILIES)):
        mark = pytest.mark.long if i % len(FAMILIES) == j else pytest.mark.exhaustive
        yield pytest.param(name, combination, marks=mark, id=f"{name}-{named(combination)}")


@pytest.mark.parametrize(("name", "combination"), list(every_combination()))
def test_tokens_are_those_of_transformers_in_every_combination(tiny, name, combination):
    subject = tiny(name)
    config = config_of(combination, subject.prompts, TOKENS, SLOTS, families.CONTEXT)
    seen = answer(subject.loaded, subject.prompts, GREEDY, config)
    assert seen.answers == subject.answers
    assert_as_meant(seen, combination, subject.prompts)


# The real model


@pytest.fixture(scope="module")
def smollm2(model_file):
    """Real weights: 32 prompts of 64 tokens, checked with transformers' own reading of the same file."""
    from transformers import AutoModelForCausalLM

    loaded = load_model(model_file, "cpu", "fp32")
    prompts = [prompt.prompt for prompt in read_prompts(SUITES / "film.jsonl")][:30]
    prompts += ["Say 12345 in words — naïve café, 漢字, 🎬.", "  leading spaces\n\nand <|im_end|> spelled out"]
    ids = [loaded.tokenizer.encode_chat(prompt) for prompt in prompts]
    chunked = EngineConfig(max_num_seqs=SLOTS, max_num_batched_tokens=128, num_blocks=512)
    answers = answer(loaded, ids, GREEDY, chunked).answers
    folder, name = str(model_file.parent), model_file.name
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    assert_greedy(model, ids, answers)
    return Subject(loaded, model, ids, answers)


@pytest.mark.long
def test_the_real_models_tokens_are_those_of_transformers(smollm2):
    assert len(smollm2.prompts) == 32
    assert all(len(own) == TOKENS for own in smollm2.answers)


@pytest.mark.long
@pytest.mark.parametrize(
    "combination",
    [
        {"policy": "continuous", "chunked": True, "cached": True, "preempted": True},
        {"policy": "continuous-unchunked", "chunked": False, "cached": True, "preempted": False},
        {"policy": "static", "chunked": True, "cached": False, "preempted": False},
        {"policy": "dynamic", "chunked": False, "cached": True, "preempted": True},
        {"policy": "same-position", "chunked": True, "cached": True, "preempted": False},
    ],
    ids=named,
)
def test_the_real_models_tokens_are_the_same_in_combinations(smollm2, combination):
    # Those that differ most from each other, on a few prompts; all of them, on all prompts, take minutes (see below).
    few, tokens, slots = smollm2.prompts[-8:], 24, 6
    config = config_of(combination, few, tokens, slots, 1024)
    seen = answer(smollm2.loaded, few, SamplingParams(max_tokens=tokens, ignore_eos=True), config)
    assert seen.answers == [own[:tokens] for own in smollm2.answers[-8:]]


@pytest.mark.exhaustive
@pytest.mark.parametrize("combination", COMBINATIONS, ids=named)
def test_the_real_models_tokens_are_those_of_transformers_in_every_combination(smollm2, combination):
    config = config_of(combination, smollm2.prompts, TOKENS, SLOTS, 1024)
    seen = answer(smollm2.loaded, smollm2.prompts, GREEDY, config)
    assert seen.answers == smollm2.answers
    assert_as_meant(seen, combination, smollm2.prompts)


# Who shares a batch does not matter

CHOICES = [
    SamplingParams(max_tokens=12, ignore_eos=True),
    SamplingParams(max_tokens=7, temperature=1.0, seed=5),
    SamplingParams(max_tokens=15, temperature=0.7, top_p=0.9, seed=6, repetition_penalty=1.3),
    SamplingParams(max_tokens=9, temperature=1.4, top_k=40, min_p=0.01, seed=7),
]


@pytest.mark.long
@given(
    others=st.lists(st.tuples(st.integers(0, 31), st.integers(0, 3)), max_size=9),
    own=st.tuples(st.integers(0, 31), st.integers(0, 3)),
    at=st.integers(0, 9),
    policy=st.sampled_from(sorted(POLICIES)),
    slots=st.integers(1, 8),
    budget=st.integers(8, 100),
    blocks=st.integers(8, 40),
    block_size=st.sampled_from([4, 16]),
    cached=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_a_requests_tokens_do_not_depend_on_who_shares_its_batch(
    tiny, others, own, at, policy, slots, budget, blocks, block_size, cached
):
    subject = tiny("qwen3")
    asked = [*others[:at], own, *others[at:]]
    at = min(at, len(others))
    prompts = [subject.prompts[prompt] for prompt, _ in asked]
    sampling = [CHOICES[choice] for _, choice in asked]
    alone_config = EngineConfig(max_num_seqs=1, max_model_len=128)
    alone = answer(subject.loaded, [prompts[at]], [sampling[at]], alone_config).answers[0]
    config = EngineConfig(
        policy=policy,
        max_num_seqs=slots,
        max_num_batched_tokens=128 if not POLICIES[policy].chunks else budget,
        num_blocks=blocks * 16 // block_size,
        block_size=block_size,
        max_model_len=128,
        enable_prefix_caching=cached,
        max_wait_ms=1,
    )
    assert answer(subject.loaded, prompts, sampling, config).answers[at] == alone


# bf16


def logits_after(loaded, ids):
    """Logits after every token of a prompt, computed in one go."""
    count = len(ids)
    layer_ops = make_layer_ops(loaded.model.shape, 16)
    layer_ops.allocate(16)
    tiles = torch.tensor([*range(0, count, layer_ops.tile_tokens), count], dtype=torch.int32)
    tokens, tables = torch.arange(count, dtype=torch.int32), torch.arange(16, dtype=torch.int32).reshape(1, 16)
    layer_ops.prepare(BatchLayout(0, tokens * 0, tokens, tables, tiles))
    return loaded.model.forward(torch.tensor(ids), layer_ops, torch.arange(count)).float()


@pytest.mark.slow
@pytest.mark.parametrize("name", families.FAMILIES)
def test_bf16_is_near_fp32_in_every_family(tmp_path, name):
    # Sizes that the C kernels take, where there are any, and weights spread as learnt ones are.
    sizes = {"hidden_size": 64, "head_dim": 32, "initializer_range": 0.1}
    families.make_model(families.FAMILIES[name], tmp_path, **sizes)
    fp32, bf16 = load_model(tmp_path, "cpu", "fp32"), load_model(tmp_path, "cpu", "bf16")
    for prompt in some_prompts(4):
        exact = logits_after(fp32, prompt)
        assert (logits_after(bf16, prompt) - exact).norm() / exact.norm() < 2e-2
