"""Layer operations as Triton programs; `triton_ops` launches them.

Everything is computed in fp32 and rounded once where it is stored. Sizes that are not a power of two are padded and
masked. Knows pointers and strides; the cache's layout is [blocks x block tokens, KV heads, head size], contiguous.

With PDL (programmatic dependent launch) a kernel is launched while the one before it ends, and waits for what that one
writes: a launch costs less.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def add_norm(
    residual,
    delta,
    weight,
    rows,
    out,
    width,
    epsilon,
    HAS_DELTA: tl.constexpr,
    GATHER: tl.constexpr,
    PDL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One row: residual += delta, out = RMSNorm(residual) x weight (Zhang and Sennrich, 2019).

    With GATHER row i of `out` is computed from row rows[i] of the others, which are not changed.
    """
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    scales = tl.load(weight + at, mask=inside, other=0.0)
    if PDL:
        gdc_wait()
        gdc_launch_dependents()
    source = row * width
    if GATHER:
        source = tl.load(rows + row).to(tl.int64) * width
    x = tl.load(residual + source + at, mask=inside, other=0.0)
    if HAS_DELTA:
        x += tl.load(delta + source + at, mask=inside, other=0.0).to(tl.float32)
        if not GATHER:
            tl.store(residual + source + at, x, mask=inside)
    scale = tl.rsqrt(tl.sum(x * x, axis=0) / width + epsilon)
    y = x * scale * scales
    tl.store(out + row * width + at, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def gate(both, out, width, PDL: tl.constexpr, BLOCK: tl.constexpr):
    """A piece of a row: out = silu(first half) x second half (SwiGLU, Shazeer, 2020)."""
    if PDL:
        gdc_wait()
        gdc_launch_dependents()
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    x = tl.load(both + row * 2 * width + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(both + row * 2 * width + width + at, mask=inside, other=0.0).to(tl.float32)
    y = x / (1.0 + tl.exp(-x)) * up
    tl.store(out + row * width + at, y.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["first"])
def rotate_store(
    qkv,
    q_out,
    keys,
    values,
    cos,
    sin,
    q_norm,
    k_norm,
    slots,
    positions,
    tables,
    table_width,
    first,
    epsilon,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    HAS_NORM: tl.constexpr,
    PDL: tl.constexpr,
    HEADS_BLOCK: tl.constexpr,
    HALF_BLOCK: tl.constexpr,
):
    """Some heads of one token from token `first` on: norm and rotate queries and keys, store keys and values.

    Rotary positions after Su et al., "RoFormer" (2021), pairs being (i, i + d/2).
    """
    HALF: tl.constexpr = HEAD_DIM // 2
    if PDL:
        gdc_wait()
        gdc_launch_dependents()
    token = tl.program_id(0).to(tl.int64) + first
    position = tl.load(positions + token)
    block = tl.load(tables + tl.load(slots + token).to(tl.int64) * table_width + position // BLOCK_SIZE)
    place = block.to(tl.int64) * BLOCK_SIZE + position % BLOCK_SIZE

    head = (tl.program_id(1) * HEADS_BLOCK + tl.arange(0, HEADS_BLOCK))[:, None]
    pair = tl.arange(0, HALF_BLOCK)[None, :]
    inside = (head < HEADS + 2 * KV_HEADS) & (pair < HALF)
    source = qkv + token * (HEADS + 2 * KV_HEADS) * HEAD_DIM + head * HEAD_DIM + pair
    low = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(source + HALF, mask=inside, other=0.0).to(tl.float32)
    is_q = head < HEADS
    is_v = head >= HEADS + KV_HEADS
    turned_low, turned_high = low, high
    if HAS_NORM:
        turned_low, turned_high = _head_norm(low, high, is_q, pair, q_norm, k_norm, epsilon, HEAD_DIM)
    angle = position.to(tl.int64) * HALF + pair
    c = tl.load(cos + angle, mask=pair < HALF, other=0.0)
    s = tl.load(sin + angle, mask=pair < HALF, other=0.0)
    rotated_low = turned_low * c - turned_high * s
    rotated_high = turned_high * c + turned_low * s

    kind = q_out.dtype.element_ty
    to_q = q_out + token * HEADS * HEAD_DIM + head * HEAD_DIM + pair
    tl.store(to_q, rotated_low.to(kind), mask=inside & is_q)
    tl.store(to_q + HALF, rotated_high.to(kind), mask=inside & is_q)
    to_k = keys + place * KV_HEADS * HEAD_DIM + (head - HEADS) * HEAD_DIM + pair
    is_k = inside & (head >= HEADS) & (head < HEADS + KV_HEADS)
    tl.store(to_k, rotated_low.to(kind), mask=is_k)
    tl.store(to_k + HALF, rotated_high.to(kind), mask=is_k)
    to_v = values + place * KV_HEADS * HEAD_DIM + (head - HEADS - KV_HEADS) * HEAD_DIM + pair
    tl.store(to_v, low.to(kind), mask=inside & is_v)
    tl.store(to_v + HALF, high.to(kind), mask=inside & is_v)


@triton.jit
def _head_norm(low, high, is_q, pair, q_norm, k_norm, epsilon, HEAD_DIM: tl.constexpr):
    """RMSNorm of each head, given by its two halves; queries and keys have weights of their own."""
    HALF: tl.constexpr = HEAD_DIM // 2
    scale = tl.rsqrt(tl.sum(low * low + high * high, axis=1) / HEAD_DIM + epsilon)[:, None]
    in_pair = pair < HALF
    weight_low = tl.where(
        is_q, tl.load(q_norm + pair, mask=in_pair, other=0.0), tl.load(k_norm + pair, mask=in_pair, other=0.0)
    )
    weight_high = tl.where(
        is_q,
        tl.load(q_norm + HALF + pair, mask=in_pair, other=0.0),
        tl.load(k_norm + HALF + pair, mask=in_pair, other=0.0),
    )
    return low * scale * weight_low, high * scale * weight_high


@triton.jit(do_not_specialize=["rows"])
def linear(
    x, weight, bias, out, rows, width, depth, HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One tile of out [rows, width] = x [rows, depth] weight[width, depth]T + bias.

    Each row is added up in the same order and by the same instructions, whatever the number of rows.
    """
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for begin in range(0, depth, BLOCK_K):
        at = begin + tl.arange(0, BLOCK_K)
        inside = at < depth
        a_at = row.to(tl.int64)[:, None] * depth + at[None, :]
        b_at = column.to(tl.int64)[None, :] * depth + at[:, None]
        a = tl.load(x + a_at, mask=(row < rows)[:, None] & inside[None, :], other=0.0)
        b = tl.load(weight + b_at, mask=(column < width)[None, :] & inside[:, None], other=0.0)
        total += tl.dot(a, b, input_precision=PRECISION)
    if HAS_BIAS:
        total += tl.load(bias + column, mask=column < width, other=0.0).to(tl.float32)[None, :]
    out_at = row.to(tl.int64)[:, None] * width + column[None, :]
    tl.store(out + out_at, total.to(out.dtype.element_ty), mask=(row < rows)[:, None] & (column < width)[None, :])
