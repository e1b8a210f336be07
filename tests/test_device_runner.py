"""The runner for devices: the same tokens as the CPU's, its inputs row by row, and faults in one line."""

import dataclasses
import inspect
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tracereel.engine import accelerator
from tracereel.engine.accelerator import DeviceError, faults_named, require_cuda
from tracereel.engine.attention import BatchLayout, DecoderShape
from tracereel.engine.attention.varlen import VarlenAttention, VarlenError
from tracereel.engine.block_tables import BlockTables
from tracereel.engine.config import ConfigError, EngineConfig
from tracereel.engine.engine import Engine
from tracereel.engine.graph_buckets import GraphBuckets, bucket_for, decode_sizes
from tracereel.engine.layer_ops import make_triton_ops
from tracereel.engine.loading import choose_device
from tracereel.engine.memory import blocks_that_fit
from tracereel.engine.model import LlamaModel
from tracereel.engine.model_config import ModelConfig, rotary_frequencies
from tracereel.engine.model_inputs import StepShape, TableShape, fill_inputs, idle_inputs, shape_of, table_writes
from tracereel.engine.request import Request, SamplingParams
from tracereel.engine.runner import ModelRunner

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

TINY = ModelConfig(
    architecture="qwen3",
    layers=2,
    hidden=32,
    heads=4,
    kv_heads=2,
    head_dim=16,
    intermediate=48,
    vocabulary=64,
    context=128,
    norm_epsilon=1e-6,
    rope_frequencies=rotary_frequencies(16, 10_000.0),
    tied=False,
    qk_norm=True,
)


class TinyWeights:
    """Drawn so widely that what such a model says changes from token to token."""

    name, config, random = "tiny", TINY, True

    def names(self):
        return set(TINY.tensors())

    def shape_of(self, name):
        return TINY.tensors()[name]

    def read(self, name, device, dtype):
        generator = torch.Generator().manual_seed(sum(name.encode()))
        drawn = torch.randn(TINY.tensors()[name], generator=generator)
        return (1 + 0.2 * drawn if name.endswith("norm.weight") else 0.5 * drawn).to(device, dtype)


class NoText:
    def text(self, token_id, last=False):
        return ""


def device_runner(model, config, *, captured=True):
    """On a CPU its graphs are computed as they come, from the same padded inputs."""
    from tracereel.engine.device_runner import DeviceRunner

    ops = make_triton_ops(model.shape, config.block_size, batch_invariant=config.batch_invariant)
    ops.captures = captured
    return DeviceRunner(model, config, ops)


def answers(runner, config, requests, end_ids=frozenset()):
    engine = Engine(runner, config, new_stream=NoText, end_ids=end_ids)
    for request in requests:
        engine.add(request)
    tokens = [[] for _ in requests]
    while engine.has_work:
        for output in engine.step():
            tokens[output.request].append(output.token_id)
    return tokens


CONFIG = EngineConfig(max_num_seqs=3, max_num_batched_tokens=12, num_blocks=20, block_size=4, max_model_len=64)


@pytest.mark.long
@needs_triton
@pytest.mark.parametrize(
    ("changes", "captured"),
    [
        ({}, True),
        ({}, False),
        ({"policy": "static"}, True),
        ({"num_blocks": 9, "max_model_len": 32, "enable_prefix_caching": True}, True),
    ],
    ids=["chunked", "without graphs", "padded", "preempted-cached"],
)
def test_a_devices_tokens_are_those_of_the_cpus_runner(changes, captured):
    model = LlamaModel(TinyWeights(), DEVICE, torch.float32)
    on_cpu = LlamaModel(TinyWeights(), torch.device("cpu"), torch.float32)
    config = dataclasses.replace(CONFIG, **changes)
    shared = tuple(range(1, 10))
    requests = [
        Request("0", (*shared, 7), SamplingParams(max_tokens=9, min_tokens=9)),
        Request("1", (*shared, 50, 51), SamplingParams(max_tokens=6)),
        Request("2", (3,), SamplingParams(max_tokens=8, ignore_eos=True)),
        Request("3", (*shared, 9), SamplingParams(max_tokens=7, temperature=0.8, seed=1)),
    ]
    ends = frozenset(range(0, 64, 5))
    want = answers(ModelRunner(on_cpu, config), config, requests, ends)
    assert any(len(own) < request.sampling.max_tokens for own, request in zip(want, requests, strict=True))
    assert answers(device_runner(model, config, captured=captured), config, requests, ends) == want


@needs_triton
@needs_cuda
def test_a_devices_steps_are_timed():
    model = LlamaModel(TinyWeights(), DEVICE, torch.float32)
    runner, seen = device_runner(model, CONFIG), []

    class Watched:
        def execute(self, plan):
            seen.append(runner.execute(plan))
            return seen[-1]

    answers(Watched(), CONFIG, [Request("0", (1, 2, 3), SamplingParams(max_tokens=20))])
    assert all(samples.device_ns for samples in seen)
    assert all(samples.device_gap_ns is not None for samples in seen[1:])


# What goes to the device.


@settings(deadline=None)
@given(st.integers(1, 2000))
def test_every_batch_has_a_bucket_that_is_not_much_larger(most):
    sizes = decode_sizes(most)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == most
    for rows in range(1, most + 1):
        size = next(size for size in sizes if size >= rows)
        assert rows <= size < max(2 * rows, rows + 2)


@settings(deadline=None)
@given(
    slots=st.integers(1, 70),
    budget=st.integers(0, 600),
    block_size=st.sampled_from([1, 4, 16]),
    tile_tokens=st.sampled_from([1, 5, 42, 2**30]),
    data=st.data(),
)
def test_every_step_that_a_configuration_can_meet_has_a_captured_shape(slots, budget, block_size, tile_tokens, data):
    config = EngineConfig(max_num_seqs=slots, max_num_batched_tokens=slots + budget, block_size=block_size)
    shapes = GraphBuckets(config, tile_tokens).shapes()
    assert len(set(shapes)) == len(shapes)
    decodes = data.draw(st.integers(0, slots))
    room = config.max_num_batched_tokens - decodes
    chunks = []
    while decodes + len(chunks) < slots and sum(chunks) < room:
        chunks.append(data.draw(st.integers(1, room - sum(chunks))))
        if data.draw(st.booleans()):
            break
    if not decodes and not chunks:
        return
    tokens, tiles = decodes + sum(chunks), sum(-(-count // tile_tokens) for count in chunks)
    # A chunk may begin within a block and end within one.
    writes = decodes + sum(-(-count // block_size) + 1 for count in chunks)
    own = StepShape(decodes, tokens, tiles, decodes + len(chunks), writes)
    shape = bucket_for(shapes, own)
    assert shape is not None
    assert shape.holds(own)
    assert not chunks or shape.writes >= writes
    assert shape.tokens - decodes <= max(16, 2 * sum(chunks)) + max(8, decodes)


def test_the_header_names_what_is_captured():
    config = EngineConfig(max_num_seqs=20, max_num_batched_tokens=100)
    said = str(GraphBuckets(config, 42))
    assert said == "decode rows 1 2 4 8 16 20; prefill tokens 16 32 64 100 with decode rows 0 8 16 19"


class Recorded:
    """A runner that keeps the plans; its tokens are all 1."""

    def __init__(self):
        self.plans = []

    def execute(self, plan):
        from tracereel.engine.request import Samples

        self.plans.append(plan)
        return Samples([1] * sum(plan.samples))


TABLES = TableShape(slots=3, width=16, spare_block=20)


@pytest.mark.slow
@settings(deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 12)), min_size=1, max_size=8),
    policy=st.sampled_from(["continuous", "static"]),
    spare=st.tuples(*[st.integers(0, 3)] * 5),
    tile_tokens=st.sampled_from([1, 5, 2**30]),
)
def test_replaying_the_inputs_gives_the_tables_and_tokens_of_the_plans(lengths, policy, spare, tile_tokens):
    config = dataclasses.replace(CONFIG, policy=policy)
    recorded = Recorded()
    requests = [Request(str(i), (2,) * a, SamplingParams(max_tokens=b)) for i, (a, b) in enumerate(lengths)]
    answers(recorded, config, requests)
    slots = BlockTables(3)
    device = np.full((4, 16), 20)
    truth: dict[int, list[int]] = {}
    for plan in recorded.plans:
        for admission in plan.admitted:
            truth[admission.request] = []
        for grant in plan.blocks:
            truth[grant.request] += grant.blocks
        writes = table_writes(slots.update(plan), TABLES.width)
        own = shape_of(plan, writes, tile_tokens)
        rows, more = own.decodes + spare[0], own.tokens - own.decodes + spare[1]
        shape = StepShape(rows, rows + more, own.tiles + spare[2], own.samples + spare[3], own.writes + spare[4])
        assert shape.holds(own)
        buffer = np.full(shape.length, -7, dtype=np.int32)
        inputs = fill_inputs(buffer, plan, writes, shape, TABLES, tile_tokens)
        assert -7 not in buffer[: shape.length - 6 * shape.samples], "something was not written"
        assert np.concatenate(inputs).tolist() == buffer.tolist()
        device.reshape(-1)[inputs.table_index] = inputs.table_blocks
        check_tokens(plan, inputs, shape, tile_tokens)
        for request, slot in zip(plan.requests, plan.slots, strict=True):
            assert device[slot, : len(truth[request])].tolist() == truth[request]
        assert (device[3] == 20).all(), "the spare row leads to the pool"


def check_tokens(plan, inputs, shape, tile_tokens):
    """Every token of the plan stands once, all else at the spare slot; tiles cover the chunks and no padding."""
    members = [
        (slot, position + i, token)
        for slot, position, ids in zip(plan.slots, plan.positions, plan.token_ids, strict=True)
        for i, token in enumerate(ids)
    ]
    rows = list(zip(inputs.slots.tolist(), inputs.positions.tolist(), inputs.ids.tolist(), strict=True))
    decodes = plan.phases.count("D")
    chunk_tokens = len(members) - decodes
    end = shape.decodes + chunk_tokens
    assert rows[:decodes] + rows[shape.decodes : end] == members
    assert set(rows[decodes : shape.decodes] + rows[end:]) <= {(TABLES.slots, 0, 0)}
    starts = inputs.tile_starts.tolist()
    assert starts[0] == shape.decodes or not chunk_tokens
    assert starts[-1] == end
    for first, last in pairwise(starts):
        assert 0 <= last - first <= tile_tokens
        assert len(set(inputs.slots[first:last].tolist())) <= 1
    samplers = [slot for slot, wanted in zip(plan.slots, plan.samples, strict=True) if wanted]
    assert inputs.sample_slots.tolist() == samplers + [TABLES.slots] * (shape.samples - len(samplers))
    assert [int(inputs.slots[row]) for row in inputs.sample_rows[: len(samplers)]] == samplers


def test_idle_inputs_change_nothing():
    shape = StepShape(3, 8, 2, 4, 5)
    inputs = idle_inputs(np.empty(shape.length, dtype=np.int32), shape, TABLES)
    assert set(inputs.slots) == set(inputs.sample_slots) == {3}
    assert set(inputs.table_index) == {48}
    assert set(inputs.table_blocks) == {20}
    assert set(inputs.tile_starts) == {3}


@pytest.fixture
def host_work(monkeypatch):
    """What the host does for each step: its uploads and replays, in order."""
    from tracereel.engine.device_runner import DeviceRunner
    from tracereel.engine.step_graphs import StepGraphs

    done: list[str] = []

    def counted(cls, name):
        theirs = getattr(cls, name)
        monkeypatch.setattr(cls, name, lambda *args: [done.append(name), theirs(*args)][1])

    for cls, name in ((StepGraphs, "_upload"), (StepGraphs, "_replay"), (DeviceRunner, "_upload")):
        counted(cls, name)
    counted(DeviceRunner, "launch")
    return done


@pytest.mark.slow
@needs_triton
def test_a_step_costs_the_host_one_upload_and_one_replay_whatever_its_members(host_work):
    model = LlamaModel(TinyWeights(), DEVICE, torch.float32)
    requests = [
        Request("0", (1, 2, 3, 4, 5), SamplingParams(max_tokens=2, ignore_eos=True)),
        Request("1", tuple(range(1, 16)), SamplingParams(max_tokens=2, ignore_eos=True)),
        Request("2", (7,), SamplingParams(max_tokens=3, ignore_eos=True, temperature=0.7, seed=3)),
    ]
    runner = device_runner(model, CONFIG)
    host_work.clear()
    answers(runner, CONFIG, requests)
    launches = host_work.count("launch")
    assert launches >= 4
    assert host_work == ["launch", "_upload", "_replay"] * launches


@pytest.mark.slow
@needs_triton
def test_batch_invariant_tokens_are_the_same_under_every_batch():
    config = dataclasses.replace(CONFIG, batch_invariant=True, max_num_seqs=2, max_num_batched_tokens=4)
    model = LlamaModel(TinyWeights(), DEVICE, torch.float32)
    runner = device_runner(model.batch_invariant(), config)
    requests = [Request(str(i), (i + 1, 9, 5), SamplingParams(max_tokens=2, ignore_eos=True)) for i in range(2)]
    together = answers(runner, config, requests)
    assert together[:1] == answers(runner, config, requests[:1])
    on_cpu = LlamaModel(TinyWeights(), torch.device("cpu"), torch.float32)
    assert together == answers(ModelRunner(on_cpu, config), config, requests)


def test_the_pool_takes_what_the_model_leaves():
    block = 2 * 2 * TINY.layers * TINY.kv_heads * TINY.head_dim * CONFIG.block_size
    room = blocks_that_fit(TINY, CONFIG, torch.bfloat16, free_bytes=2**30, fraction=0.5)
    assert 0.4 * 2**30 < room * block < 0.5 * 2**30
    fewer = blocks_that_fit(
        TINY, dataclasses.replace(CONFIG, max_num_batched_tokens=50_000), torch.bfloat16, free_bytes=2**30, fraction=0.5
    )
    assert fewer < room
    with pytest.raises(DeviceError, match="free"):
        blocks_that_fit(TINY, CONFIG, torch.bfloat16, free_bytes=20_000, fraction=0.5)


# torch's own paged attention: a reading of its documentation stands in for it where there is no GPU.


def documented_varlen_attn(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa, seqused_k, block_table
):
    assert window_size == (-1, 0)
    assert enable_gqa
    assert max_q >= cu_seq_q.diff().max()
    assert max_k >= seqused_k.max()
    assert cu_seq_q.dtype == cu_seq_k.dtype == seqused_k.dtype == block_table.dtype == torch.int32
    outs = []
    for i, (begin, end) in enumerate(pairwise(cu_seq_q.tolist())):
        if begin == end:
            continue
        used, count = int(seqused_k[i]), end - begin
        k, v = (x[block_table[i].long()].flatten(0, 1)[:used].transpose(0, 1).unsqueeze(0) for x in (key, value))
        mask = torch.ones(count, used, dtype=torch.bool, device=query.device).tril(used - count)
        q = query[begin:end].transpose(0, 1).unsqueeze(0)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)
        outs.append(out.squeeze(0).transpose(0, 1))
    return F.pad(torch.cat(outs), (0, 0, 0, 0, 0, len(query) - int(cu_seq_q[-1])))


def make_shape(**changes):
    settings = {
        "layers": 1,
        "heads": 6,
        "kv_heads": 2,
        "head_dim": 16,
        "epsilon": 1e-5,
        "cos": torch.ones(128, 8, device=DEVICE),
        "sin": torch.zeros(128, 8, device=DEVICE),
        "qk_norms": None,
        "dtype": torch.float32,
        "device": DEVICE,
    }
    return DecoderShape(**{**settings, **changes})


@pytest.fixture
def varlen(monkeypatch):
    import torch.nn.attention.varlen as theirs

    parameters = inspect.signature(theirs.varlen_attn).parameters
    if "block_table" not in parameters:
        pytest.skip("this torch's varlen_attn knows no block table")
    assert set(inspect.signature(documented_varlen_attn).parameters) <= set(parameters)
    monkeypatch.setattr(theirs, "varlen_attn", documented_varlen_attn)
    return theirs


@pytest.mark.slow
@needs_triton
def test_torchs_paged_attention_is_given_what_triton_is(varlen):
    from tracereel.engine.attention.triton_paged import TritonAttention

    shape = make_shape()
    generator = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(9, 4, 2, 16, generator=generator).to(DEVICE) for _ in range(2))
    tables = torch.tensor([[1, 2, 3], [8, 7, 6], [4, 5, 0]], dtype=torch.int32, device=DEVICE)
    slots = torch.tensor([1, 0, 2, 2, 2, 2, 2, 0, 0], dtype=torch.int32, device=DEVICE)
    positions = torch.tensor([9, 3, 4, 5, 6, 7, 8, 0, 0], dtype=torch.int32, device=DEVICE)
    # An idle tile and two padding tokens at the end.
    layout = BatchLayout(2, slots, positions, tables, torch.tensor([2, 7, 7], dtype=torch.int32, device=DEVICE))
    q = torch.randn(9, 6, 16, generator=generator).to(DEVICE)
    outs = []
    for attention in (VarlenAttention(shape, 4), TritonAttention(shape)):
        attention.prepare(layout)
        outs.append(attention.attend(q, keys, values)[:7])
    assert torch.allclose(*outs, atol=1e-5)


@pytest.mark.slow
def test_a_paged_attention_that_ignores_its_table_is_not_used(varlen, monkeypatch):
    def ignorant(*args, **kwargs):
        return documented_varlen_attn(*args, **{**kwargs, "block_table": torch.zeros_like(kwargs["block_table"])})

    monkeypatch.setattr(varlen, "varlen_attn", ignorant)
    with pytest.raises(VarlenError, match="other numbers"):
        VarlenAttention(make_shape(), 4)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_where_torchs_paged_attention_cannot_run_its_own_words_say_why():
    with pytest.raises(VarlenError) as refused:
        VarlenAttention(make_shape(), 4)
    assert "\n" not in str(refused.value)


# Faults in one line.


def test_memory_that_does_not_suffice_is_told_with_what_was_wanted():
    message = (
        "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 3.21 GiB"
        " is free. Including non-PyTorch memory, this process has 75.8 GiB memory in use."
    )
    with (
        pytest.raises(DeviceError, match=r"^the device ran out of memory while x \(20.00 GiB more.*3.21 GiB.*lower y$"),
        faults_named("x", "lower y"),
    ):
        raise torch.OutOfMemoryError(message)


def test_a_lost_device_is_told_in_the_drivers_words():
    told = r"^the device failed while x: CUDA error: unspecified launch failure$"
    with pytest.raises(DeviceError, match=told), faults_named("x"):
        raise RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronous")


def test_other_faults_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes"), faults_named("x"):
        raise RuntimeError("shapes do not match")


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (RuntimeError("The NVIDIA driver on your system is too old (found version 11040). Please update it."), "11040"),
        (RuntimeError("Found no NVIDIA driver on your system. Please check that you have one."), "no NVIDIA driver"),
        (AssertionError("Torch not compiled with CUDA enabled"), "not compiled with CUDA"),
        (None, "no CUDA device"),
    ],
)
def test_why_there_is_no_cuda_is_told_in_one_line(monkeypatch, fault, told):
    def init():
        if fault is not None:
            raise fault

    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(DeviceError, match=f"^device: cuda was asked for, but .*{told}.*--device cpu$"):
        require_cuda()
    with pytest.raises(DeviceError):
        choose_device("cuda")


@pytest.mark.parametrize("name", ["meta", "cpu:7", "mps"])
def test_a_device_that_is_not_supported_is_refused(name):
    with pytest.raises(ConfigError, match=f"^device: '{name}' is not supported; supported: cpu, cuda$"):
        choose_device(name)


def test_a_cuda_device_beyond_those_that_are_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1").index == 1
    with pytest.raises(DeviceError, match="cuda:2 was asked for, but torch finds 2 CUDA devices"):
        choose_device("cuda:2")


def test_the_drivers_version_is_what_nvidia_smi_says(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\n[ "$1" = --query-gpu=driver_version,clocks.sm ] && echo "580.1, 1980 MHz"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert accelerator.ask_driver("driver_version", "clocks.sm") == {
        "driver_version": "580.1",
        "clocks.sm": "1980 MHz",
    }
    program.write_text("#!/bin/sh\nexit 9\n")
    assert accelerator.ask_driver("driver_version") == {}
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert accelerator.ask_driver("driver_version") == {}
