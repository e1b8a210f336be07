"""The kernels against the textbook's formulas in fp32, over any shapes; the C ones against having none."""

import dataclasses
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tracereel.engine.attention import BatchLayout, DecoderShape, GatherAttention
from tracereel.engine.layer_ops import make_layer_ops, native_ops
from tracereel.engine.layer_ops.native_ops import NativeLayerOps, NativeOpsError
from tracereel.engine.layer_ops.torch_ops import TorchLayerOps

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
POSITIONS = 128
LARGEST_ERROR = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


def has_compiler():
    try:
        native_ops._load()
    except NativeOpsError:
        return False
    return True


needs_compiler = pytest.mark.skipif(not has_compiler(), reason="there is no C compiler here")


needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


def plain(shape, num_blocks, block_size):
    return with_cache(TorchLayerOps(shape, block_size, GatherAttention(shape, block_size)), num_blocks)


def native(shape, num_blocks, block_size):
    return with_cache(NativeLayerOps(shape, block_size), num_blocks)


def with_cache(layer_ops, num_blocks):
    layer_ops.allocate(num_blocks)
    return layer_ops


def fused(shape, num_blocks, block_size, **attention):
    from tracereel.engine.layer_ops import make_triton_ops

    on_device = {"cos": shape.cos.to(DEVICE), "sin": shape.sin.to(DEVICE), "device": DEVICE}
    if shape.qk_norms is not None:
        on_device["qk_norms"] = tuple((q.to(DEVICE), k.to(DEVICE)) for q, k in shape.qk_norms)
    shape = dataclasses.replace(shape, **on_device)
    ops = make_triton_ops(shape, block_size, ("triton",), **attention)
    return OnDevice(with_cache(ops, num_blocks))


@pytest.fixture(scope="module", autouse=True)
def _right_products(right_products):
    """bf16 products of the interpreter."""


class OnDevice:
    """LayerOps of a device, asked from the host."""

    def __init__(self, kernels):
        self._layer_ops, self.tile_tokens = kernels, kernels.tile_tokens

    def prepare(self, layout):
        there = {name: getattr(layout, name).to(DEVICE) for name in ("slots", "positions", "tables", "tile_starts")}
        self._layer_ops.prepare(dataclasses.replace(layout, **there))

    def last_norm(self, residual, delta, weight, rows):
        return self._layer_ops.last_norm(*(tensor.to(DEVICE) for tensor in (residual, delta, weight, rows))).cpu()

    def add_rms_norm(self, residual, delta, weight):
        there = residual.to(DEVICE)
        out = self._layer_ops.add_rms_norm(there, None if delta is None else delta.to(DEVICE), weight.to(DEVICE))
        residual.copy_(there)
        return out.cpu()

    def attend(self, layer, qkv):
        return self._layer_ops.attend(layer, qkv.to(DEVICE)).cpu()

    def silu_and_mul(self, both):
        return self._layer_ops.silu_and_mul(both.to(DEVICE)).cpu()


KINDS = [
    pytest.param(plain, torch.float32, id="torch fp32"),
    pytest.param(plain, torch.bfloat16, id="torch bf16"),
    pytest.param(native, torch.bfloat16, id="C", marks=needs_compiler),
]
TRITON = [
    pytest.param(fused, torch.float32, id="Triton fp32", marks=needs_triton),
    pytest.param(fused, torch.bfloat16, id="Triton bf16", marks=needs_triton),
]


def make_shape(kv_heads, group, head_dim, dtype, norms=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    frequencies = 100.0 ** (-torch.arange(head_dim // 2) / (head_dim // 2))
    angles = torch.arange(POSITIONS).unsqueeze(1) * frequencies
    weights = tuple(torch.rand(head_dim, generator=generator) + 0.5 for _ in range(2))
    return DecoderShape(
        layers=2,
        heads=kv_heads * group,
        kv_heads=kv_heads,
        head_dim=head_dim,
        epsilon=1e-5,
        cos=angles.cos(),
        sin=angles.sin(),
        qk_norms=((weights[0], weights[1]),) * 2 if norms else None,
        dtype=dtype,
        device=torch.device("cpu"),
    )


def int32(values):
    return torch.from_numpy(np.array(values, dtype=np.int32))


def layout_of(kernels, slots, positions, tables, chunks, idle=0):
    """The layout of a step whose chunks, behind the decoding rows, have so many tokens; and so many idle tiles."""
    decodes = at = len(positions) - sum(chunks)
    tiles = []
    for count in chunks:
        tiles.extend(range(at, at + count, kernels.tile_tokens))
        at += count
    return BatchLayout(decodes, int32(slots), int32(positions), int32(tables), int32([*tiles, *[at] * (idle + 1)]))


@dataclass
class Batch:
    """Sequences of random q, k, v [tokens, ...], those that decode first; a step computes the tail of each."""

    qkv: list[torch.Tensor]
    counts: list[int]
    num_decodes: int
    tables: np.ndarray

    @classmethod
    def random(cls, shape, decodes, chunks, block_size, seed):
        generator = torch.Generator().manual_seed(seed)
        starts = [*decodes, *(start for start, _ in chunks)]
        counts = [1] * len(decodes) + [count for _, count in chunks]
        ends = [start + count for start, count in zip(starts, counts, strict=True)]
        blocks = torch.randperm(sum(-(-end // block_size) for end in ends) + 3, generator=generator).tolist()
        tables = np.zeros((len(ends), -(-max(ends) // block_size)), dtype=np.int64)
        at = 0
        for row, end in enumerate(ends):
            need = -(-end // block_size)
            tables[row, :need] = blocks[at : at + need]
            at += need
        width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
        qkv = [torch.randn(end, width, generator=generator).bfloat16().to(shape.dtype) for end in ends]
        return cls(qkv, counts, len(decodes), tables)

    def step(self, kernels, rows, spans, num_decodes):
        """Run one step over `spans` (start, end) of the sequences `rows`, layer 1."""
        counts = [end - start for start, end in spans]
        positions = [position for start, end in spans for position in range(start, end)]
        slots = [row for row, count in enumerate(counts) for _ in range(count)]
        kernels.prepare(layout_of(kernels, slots, positions, self.tables[rows], counts[num_decodes:]))
        parts = [self.qkv[row][start:end] for row, (start, end) in zip(rows, spans, strict=True)]
        return kernels.attend(1, torch.cat(parts).contiguous()).clone()

    def run(self, kernels):
        """What earlier steps left behind is put there by earlier steps; then the step in question."""
        for row, count in enumerate(self.counts):
            if earlier := len(self.qkv[row]) - count:
                self.step(kernels, [row], [(0, earlier)], 0)
        spans = [(len(qkv) - count, len(qkv)) for qkv, count in zip(self.qkv, self.counts, strict=True)]
        return self.step(kernels, list(range(len(self.counts))), spans, self.num_decodes)


def textbook(shape, qkv):
    """Causal attention of one sequence in fp32, head by head."""
    count, half = len(qkv), shape.head_dim // 2
    parts = qkv.float().view(count, -1, shape.head_dim)
    q, k, v = parts.split([shape.heads, shape.kv_heads, shape.kv_heads], dim=1)
    if shape.qk_norms is not None:
        q, k = (
            F.rms_norm(x, (shape.head_dim,), w, shape.epsilon) for x, w in zip((q, k), shape.qk_norms[1], strict=True)
        )
    cos, sin = shape.cos[:count, None], shape.sin[:count, None]
    q, k = (
        torch.cat([x[..., :half] * cos - x[..., half:] * sin, x[..., half:] * cos + x[..., :half] * sin], -1)
        for x in (q, k)
    )
    hidden = torch.ones(count, count, dtype=torch.bool).triu(1)
    outs = []
    for head in range(shape.heads):
        kv = head // (shape.heads // shape.kv_heads)
        scores = (q[:, head] @ k[:, kv].T / shape.head_dim**0.5).masked_fill(hidden, float("-inf"))
        outs.append(scores.softmax(-1) @ v[:, kv])
    return torch.cat(outs, -1)


BATCHES = {
    "seed": st.integers(0, 10**6),
    "kv_heads": st.integers(1, 3),
    "group": st.sampled_from([1, 2, 3, 7, 16]),
    "head_dim": st.sampled_from([16, 64, 80]),
    "block_size": st.sampled_from([16, 32]),
    "decodes": st.lists(st.integers(0, 70), max_size=4),
    "chunks": st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), max_size=3),
    "norms": st.booleans(),
}


def check_attention(make, dtype, seed, kv_heads, group, head_dim, block_size, decodes, chunks, norms):
    if not decodes and not chunks:
        return
    shape = make_shape(kv_heads, group, head_dim, dtype, norms, seed)
    batch = Batch.random(shape, decodes, chunks, block_size, seed)
    got = batch.run(make(shape, int(batch.tables.max()) + 4, block_size)).float()
    want = torch.cat([textbook(shape, x)[-count:] for x, count in zip(batch.qkv, batch.counts, strict=True)])
    assert (got - want).abs().max() <= LARGEST_ERROR[dtype] * want.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize(("make", "dtype"), KINDS)
@given(**BATCHES)
@settings(max_examples=40, deadline=None)
def test_paged_attention_is_plain_attention(make, dtype, **batch):
    check_attention(make, dtype, **batch)


TRITON_SHAPES = [
    # KV heads, group, head size, block size, norms: all that a kernel is compiled for; only the data vary.
    (1, 1, 16, 4, False),
    (2, 3, 64, 16, False),
    (3, 7, 80, 32, True),
    (1, 16, 64, 16, True),
]
TRITON_STEPS = [([0, 66], []), ([5], [(0, 1), (3, 14)])]


@pytest.mark.long
@pytest.mark.parametrize(("make", "dtype"), TRITON)
@pytest.mark.parametrize("sizes", TRITON_SHAPES, ids=str)
def test_paged_attention_on_a_device_is_plain_attention(make, dtype, sizes):
    kv_heads, group, head_dim, block_size, norms = sizes
    for seed, (decodes, chunks) in enumerate(TRITON_STEPS):
        check_attention(make, dtype, seed, kv_heads, group, head_dim, block_size, decodes, chunks, norms)


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_idle_tiles_and_padding_rows_write_nothing_of_anybodys(dtype):
    shape = make_shape(2, 3, 64, dtype)
    batch = Batch.random(shape, [2, 5], [(3, 6)], 4, 0)
    spare = int(batch.tables.max()) + 3
    bare, padded = fused(shape, spare + 1, 4), fused(shape, spare + 1, 4)
    for kernels in (bare, padded):
        for row, count in enumerate(batch.counts):
            if earlier := len(batch.qkv[row]) - count:
                batch.step(kernels, [row], [(0, earlier)], 0)
    tables = np.vstack([batch.tables, np.full((1, batch.tables.shape[1]), spare)])
    qkv = torch.cat([own[-count:] for own, count in zip(batch.qkv, batch.counts, strict=True)])
    positions = [2, 5, *range(3, 9)]
    bare.prepare(layout_of(bare, [0, 1, *[2] * 6], positions, tables, [6]))
    want = bare.attend(1, qkv)
    # Two padding rows behind the decoding ones, five padding tokens at the end, three idle tiles.
    nothing = torch.full((1, qkv.shape[1]), 9.0, dtype=dtype)
    more = torch.cat([qkv[:2], nothing, nothing, qkv[2:], *[nothing] * 5])
    layout = layout_of(padded, [0, 1, 3, 3, *[2] * 6], [*positions[:2], 0, 0, *positions[2:]], tables, [6], idle=3)
    layout = dataclasses.replace(
        layout,
        slots=torch.cat([layout.slots, int32([3] * 5)]),
        positions=torch.cat([layout.positions, int32([0] * 5)]),
    )
    padded.prepare(layout)
    got = padded.attend(1, more)
    assert torch.equal(torch.cat([got[:2], got[4:10]]), want)
    ours, theirs = (kernels._layer_ops.cache[:, :, :spare] for kernels in (bare, padded))
    assert torch.equal(ours, theirs), "a block of the pool was written to for nothing"


@needs_triton
def test_a_tile_without_tokens_leaves_its_outputs_as_they_are():
    from tracereel.engine.attention.triton_paged import TritonAttention

    attention = TritonAttention(make_shape(1, 2, 16, torch.float32))
    tables = torch.zeros((1, 4), dtype=torch.int32, device=DEVICE)
    ones = torch.ones(3, dtype=torch.int32, device=DEVICE)
    attention.prepare(BatchLayout(0, ones * 0, ones * 0, tables, ones[:3] * 3))
    q = torch.randn(3, 2, 16, device=DEVICE)
    out = torch.full_like(q, 7.0)
    cache = torch.zeros(1, 16, 1, 16, device=DEVICE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty_like", lambda _: out)
        attention.attend(q, cache, cache)
    assert (out == 7.0).all()


@pytest.mark.long
@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_batch_invariant_attention_gives_a_row_the_same_bits_in_any_batch(dtype):
    shape = make_shape(2, 3, 64, dtype)
    batch = Batch.random(shape, [5, 66], [(3, 24)], 16, 0)
    blocks = int(batch.tables.max()) + 4
    together = batch.run(fused(shape, blocks, 16, batch_invariant=True))
    for row in range(2):
        alone = Batch([batch.qkv[row]], [1], 1, batch.tables[[row]])
        assert torch.equal(alone.run(fused(shape, blocks, 16, batch_invariant=True))[0], together[row])
        prefilled = Batch([batch.qkv[row]], [3], 0, batch.tables[[row]])
        assert same(prefilled.run(fused(shape, blocks, 16, batch_invariant=True))[2], together[row])
    in_two = Batch([batch.qkv[2]], [7], 0, batch.tables[[2]])
    assert same(in_two.run(fused(shape, blocks, 16, batch_invariant=True)), together[2 + 17 :])


def same(got, want):
    """The same bits; from the interpreter nearly so, whose products (numpy's) depend on a row's place in its tile."""
    return torch.equal(got, want) if DEVICE.type == "cuda" else torch.allclose(got, want, rtol=1e-2, atol=1e-5)


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_batch_invariant_products_are_the_products_and_the_same_bits_in_any_batch(dtype, bias):
    from tracereel.engine.invariant_linear import InvariantLinear

    generator = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(size, generator=generator).to(dtype) for size in ((80, 96), (70, 96)))
    offsets = torch.randn(80, generator=generator).to(dtype) if bias else None
    linear = InvariantLinear(weight.to(DEVICE), None if offsets is None else offsets.to(DEVICE))
    got = linear(x.to(DEVICE)).cpu()
    want = F.linear(x.float(), weight.float(), None if offsets is None else offsets.float())
    assert (got.float() - want).abs().max() <= LARGEST_ERROR[dtype] * want.abs().max()
    for rows in (1, 5, 64):
        assert torch.equal(linear(x[:rows].to(DEVICE)).cpu(), got[:rows])


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("splits", [2, 8])
def test_a_context_in_parts_is_the_whole(monkeypatch, splits):
    from tracereel.engine.attention import decode

    monkeypatch.setattr(decode, "num_splits", lambda *_: splits)
    check_attention(fused, torch.float32, 5, 2, 3, 16, 16, [1, 100], [], False)


@needs_triton
@given(st.integers(1, 4000), st.integers(1, 200), st.integers(1, 10**6))
def test_contexts_are_cut_where_there_is_too_little_to_do(programs, processors, longest):
    from tracereel.engine.attention.decode import num_splits

    splits = num_splits(programs, processors, longest)
    assert splits in (1, 2, 4, 8, 16, 32)
    assert splits == 1 or programs * splits <= 4 * processors
    assert splits == 1 or longest // splits >= 128


@pytest.mark.slow
@needs_compiler
@given(
    decodes=st.lists(st.integers(0, 100), min_size=1, max_size=5),
    cut=st.integers(1, 60),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_a_row_is_the_same_bits_in_any_batch_and_however_its_prompt_was_cut(decodes, cut, seed):
    shape = make_shape(2, 3, 64, torch.bfloat16)
    batch = Batch.random(shape, decodes, [(0, 61)], 16, seed)
    blocks = int(batch.tables.max()) + 4
    together = batch.run(native(shape, blocks, 16))
    for row in range(len(decodes)):
        alone = Batch([batch.qkv[row]], [1], 1, batch.tables[[row]])
        assert torch.equal(alone.run(native(shape, blocks, 16))[0], together[row])
    in_two = Batch([batch.qkv[-1]], [61 - cut], 0, batch.tables[[-1]])
    assert torch.equal(in_two.run(native(shape, blocks, 16)), together[len(decodes) + cut :])


ROWS = {
    "rows": st.integers(1, 40),
    "width": st.integers(1, 100),
    "scale": st.sampled_from([1e-3, 1.0, 30.0]),
    "delta": st.booleans(),
}


@pytest.mark.parametrize(("make", "dtype"), KINDS)
@given(**ROWS)
@settings(max_examples=40, deadline=None)
def test_norm_and_gate_are_their_formulas(make, dtype, **batch):
    check_norm_and_gate(make, dtype, **batch)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "dtype"), TRITON)
@pytest.mark.parametrize("width", [7, 100])
def test_norm_and_gate_on_a_device_are_their_formulas(make, dtype, width):
    for rows, scale, delta in ((1, 1e-3, False), (3, 1.0, True), (5, 30.0, True)):
        check_norm_and_gate(make, dtype, rows, width, scale, delta)


def check_norm_and_gate(make, dtype, rows, width, scale, delta):
    kernels = make(make_shape(1, 1, 16, dtype), 1, 16)
    kernels.prepare(layout_of(kernels, range(rows), [0] * rows, np.zeros((rows, 1)), []))
    residual, added = torch.randn(rows, width) * scale, (torch.randn(rows, width) * scale).to(dtype)
    weight = torch.rand(width)
    total = residual + added.float() if delta else residual.clone()
    chosen = torch.arange(rows - 1, -1, -1, dtype=torch.int32)
    last = kernels.last_norm(residual, added, weight, chosen).clone()
    got = kernels.add_rms_norm(residual, added if delta else None, weight)
    if delta:
        assert torch.equal(last, got[chosen])
    assert torch.equal(residual, total)
    want = total * torch.rsqrt(total.square().mean(-1, keepdim=True) + 1e-5) * weight
    assert torch.allclose(got.float(), want, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)

    both = (torch.randn(rows, 2 * width) * scale).to(dtype)
    x, up = both.float().chunk(2, -1)
    want = x / (1 + torch.exp(-x)) * up
    assert torch.allclose(
        kernels.silu_and_mul(both).float(), want, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5
    )


def test_without_a_compiler_the_plain_kernels_run(monkeypatch):
    native_ops._load.cache_clear()
    monkeypatch.setenv("CC", "/nowhere/cc")
    try:
        kernels = make_layer_ops(make_shape(1, 1, 16, torch.bfloat16), 16)
    finally:
        native_ops._load.cache_clear()
    assert isinstance(kernels, TorchLayerOps)


def test_what_the_c_code_does_not_compute_is_refused_by_name():
    with pytest.raises(NativeOpsError, match="float32"):
        NativeLayerOps(make_shape(1, 1, 16, torch.float32), 16)
    with pytest.raises(NativeOpsError, match="block_size"):
        NativeLayerOps(make_shape(1, 1, 16, torch.bfloat16), 8)


def test_a_compiler_that_fails_is_named_with_its_first_line(monkeypatch, tmp_path):
    compiler = tmp_path / "cc"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "cpu.c:1: no such luck" >&2\nexit 1\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("TRACEREEL_CACHE", str(tmp_path / "cache"))
    native_ops._load.cache_clear()
    try:
        with pytest.raises(NativeOpsError, match="no such luck"):
            NativeLayerOps(make_shape(1, 1, 16, torch.bfloat16), 16)
    finally:
        native_ops._load.cache_clear()
    assert not list((tmp_path / "cache" / "kernels").iterdir())
