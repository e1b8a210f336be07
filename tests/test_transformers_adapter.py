"""transformers itself, recorded, with a small model of random weights: what it returns is what the trace says."""

from types import SimpleNamespace

import pytest
import torch
from lazily import Lazily
from tracereel.engine.adapters import AdapterError
from tracereel.trace.check.invariants import check
from tracereel.trace.state.columns import Trace

pytestmark = pytest.mark.slow

transformers = Lazily("transformers")
adapter = Lazily("tracereel.engine.adapters.transformers")

PROMPTS = [[1 + (7 * i + j) % 90 for j in range(3 + 5 * i % 17)] for i in range(9)]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=96,
        pad_token_id=95,
    )
    return transformers.LlamaForCausalLM(config).eval()


def read(path):
    report = check(path)
    assert report.ok, (report.violations[:5], report.cut)
    return Trace.read(path)


def tokens_of(trace, request):
    return trace.steps.token_id[trace.tokens_of(request)].tolist()


def batching(**options):
    plain = {"page_size": 4, "num_blocks": 64, "max_batch_tokens": 16, "max_requests_per_batch": 4}
    return transformers.ContinuousBatchingConfig(
        **plain | {"allow_block_sharing": False, "use_cuda_graph": False} | options
    )


@pytest.fixture(scope="module")
def greedy():
    return transformers.GenerationConfig(do_sample=False, max_new_tokens=12, eos_token_id=96, pad_token_id=95)


@pytest.mark.parametrize("scheduler", ["fifo", "prefill_first"])
@pytest.mark.parametrize("crowded", [False, True])
def test_generate_batch_is_recorded(model, greedy, tmp_path, scheduler, crowded):
    # Crowded: so few blocks that requests are preempted and computed again.
    config = batching(scheduler_type=scheduler, num_blocks=12 if crowded else 64)
    with adapter.attach(model, tmp_path / "run.jsonl"):
        answers = model.generate_batch(PROMPTS, generation_config=greedy, continuous_batching_config=config)
    trace = read(tmp_path / "run.jsonl")
    names = {arrival.id.split()[0]: i for i, arrival in enumerate(trace.arrivals)}
    assert {id: tokens_of(trace, names[id]) for id in answers} == {
        id: answer.generated_tokens for id, answer in answers.items()
    }
    assert trace.header.policy == "continuous"
    assert trace.residencies.preempted.any() == crowded
    assert (trace.steps.kv_used > 0).all()
    assert len(trace.grants.block)
    assert "generate" not in vars(model), "the model is as it was"


def test_prefixes_that_are_shared_are_cached_tokens(model, greedy, tmp_path):
    shared = [[*range(1, 30), 40 + i] for i in range(6)]
    with adapter.attach(model, tmp_path / "run.jsonl"):
        model.generate_batch(
            shared,
            generation_config=greedy,
            continuous_batching_config=batching(allow_block_sharing=True, max_requests_per_batch=2),
        )
    trace = read(tmp_path / "run.jsonl")
    assert trace.residencies.cached.any()
    assert (trace.steps.kv_used > 0).all()


def test_generate_is_static_batching_with_its_padding(model, greedy, tmp_path):
    width = max(map(len, PROMPTS))
    rows = torch.tensor([[95] * (width - len(prompt)) + prompt for prompt in PROMPTS])
    mask = (rows != 95).long()
    with adapter.attach(model, tmp_path / "run.jsonl") as recording:
        for i, prompt in enumerate(PROMPTS):
            recording.expect(f"prompt {i}", prompt, prompt="a text of its own")
        for part in (slice(0, 5), slice(5, 9)):
            model.generate(rows[part], attention_mask=mask[part], generation_config=greedy)
    trace = read(tmp_path / "run.jsonl")
    assert trace.header.policy == "static"
    assert [arrival.id for arrival in trace.arrivals] == [f"prompt {i}" for i in range(len(PROMPTS))]
    assert trace.steps.waiting.tolist()[0] == 4
    steps = trace.steps
    # Whatever a row of the rectangle is not used for is padding.
    computed = [int(steps.member_computed[steps.members(i)].sum()) for i in range(len(steps))]
    firsts = [i for i in range(len(steps)) if not steps.member_decode[steps.members(i)].any()]
    for first, count in zip(firsts, (5, 4), strict=True):
        assert computed[first] + steps.padding[first] == count * width
    for i in set(range(len(steps))) - set(firsts):
        assert computed[i] + steps.padding[i] == (5 if i < firsts[1] else 4)
    with torch.no_grad():
        alone = model.generate(torch.tensor([PROMPTS[0]]), generation_config=greedy)[0, len(PROMPTS[0]) :].tolist()
    assert tokens_of(trace, 0) == alone


def test_what_cannot_be_recorded_is_one_line(model, greedy, tmp_path):
    with pytest.raises(AdapterError, match="beams"), adapter.attach(model, tmp_path / "beams.jsonl"):
        model.generate(torch.tensor([PROMPTS[0]]), num_beams=2, max_new_tokens=2)
    with adapter.attach(model, tmp_path / "both.jsonl"):
        model.generate(torch.tensor([PROMPTS[0]]), generation_config=greedy)
        with pytest.raises(AdapterError, match="one of its own"):
            model.generate_batch(PROMPTS, generation_config=greedy, continuous_batching_config=batching())
    assert len(read(tmp_path / "both.jsonl").arrivals) == 1


def test_what_transformers_lacks_is_named_in_one_line(tmp_path):
    less = SimpleNamespace(generate=None, init_continuous_batching=None)
    with (
        pytest.raises(AdapterError, match=r"no SimpleNamespace\._get_stopping_criteria, which"),
        adapter.attach(less, tmp_path / "run.jsonl"),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_run_that_failed_leaves_a_recording_that_is_known_to_be_cut(model, greedy, tmp_path):
    def interrupted():
        with adapter.attach(model, tmp_path / "cut.jsonl"):
            model.generate(torch.tensor([PROMPTS[0]]), generation_config=greedy)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not (tmp_path / "cut.jsonl").exists()
    (left,) = tmp_path.glob("cut.*.jsonl.partial")
    report = check(left)
    assert report.cut
    assert not report.violations
