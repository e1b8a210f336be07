"""A matrix product and the operations around it as one Triton program; the launching is `fused_products`'s.

Between two products of a small batch there is little to compute, and a launch each for norm, gate and addition takes
longer than the work. An RMSNorm is computed in two halves: what adds to the residual r also writes r x the norm's
weight, and the sum of squares of its columns of r; the product that follows scales its sums by the root mean
square. Sums are fp32.

With PDL (programmatic dependent launch) a program begins while the kernel before it ends: it loads its first weights,
and then waits for what that kernel writes.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def embed(
    ids, embedding, norm, residual, scaled, squares, width, PDL: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """One token: its embedding as the fp32 residual, that times `norm`, and its sum of squares."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    scale = tl.load(norm + at, mask=inside, other=0.0)
    if PDL:
        gdc_wait()
        gdc_launch_dependents()
    x = tl.load(embedding + tl.load(ids + row).to(tl.int64) * width + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(residual + row * width + at, x, mask=inside)
    tl.store(scaled + row * width + at, (x * scale).to(scaled.dtype.element_ty), mask=inside)
    tl.store(squares + row, tl.sum(x * x, axis=0))


@triton.jit(do_not_specialize=["rows", "parts"])
def product(
    x, squares, weight, bias, out, norm, scaled, out_squares, rows, parts, width, depth, epsilon, SCALE: tl.constexpr,
    GATE: tl.constexpr, ADD: tl.constexpr, HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr, PDL: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_PARTS: tl.constexpr,
):  # fmt: skip
    """One tile of y = x weightᵀ + bias for x [rows, depth], weight [width, depth]; out [rows, width].

    SCALE: y is scaled by the root mean square of each row, whose `parts` sums of squares are in `squares` [parts,
    rows]. GATE: weight is [2 width, depth], and out = silu(first half) x second half. ADD: y is added to the fp32
    `out`, and `scaled` and `out_squares` are written for the norm that follows.
    """
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    at = tl.arange(0, BLOCK_K)
    in_rows, in_width = row < rows, column < width
    w_at = weight + column.to(tl.int64)[None, :] * depth + at[:, None]
    up_at = w_at + width.to(tl.int64) * depth
    w_mask = (at < depth)[:, None] & in_width[None, :]
    w = tl.load(w_at, mask=w_mask, other=0.0)
    up = w
    if GATE:
        up = tl.load(up_at, mask=w_mask, other=0.0)
    if PDL:
        gdc_wait()
        gdc_launch_dependents()
    x_at = x + row.to(tl.int64)[:, None] * depth + at[None, :]
    a = tl.load(x_at, mask=in_rows[:, None] & (at < depth)[None, :], other=0.0)
    total = tl.dot(a, w, input_precision=PRECISION)
    up_total = total
    if GATE:
        up_total = tl.dot(a, up, input_precision=PRECISION)
    for begin in range(BLOCK_K, depth, BLOCK_K):
        inside = begin + at < depth
        a = tl.load(x_at + begin, mask=in_rows[:, None] & inside[None, :], other=0.0)
        w_mask = inside[:, None] & in_width[None, :]
        total += tl.dot(a, tl.load(w_at + begin, mask=w_mask, other=0.0), input_precision=PRECISION)
        if GATE:
            up_total += tl.dot(a, tl.load(up_at + begin, mask=w_mask, other=0.0), input_precision=PRECISION)
    if SCALE:
        part = tl.arange(0, BLOCK_PARTS)
        own = tl.load(
            squares + part[None, :] * rows + row[:, None],
            mask=(part < parts)[None, :] & in_rows[:, None],
            other=0.0,
        )
        scale = tl.rsqrt(tl.sum(own, axis=1) / depth + epsilon)[:, None]
        total *= scale
        up_total *= scale
    if HAS_BIAS:
        total += tl.load(bias + column, mask=in_width, other=0.0).to(tl.float32)[None, :]
    if GATE:
        total = total / (1.0 + tl.exp(-total)) * up_total
    out_at = row.to(tl.int64)[:, None] * width + column[None, :]
    out_mask = in_rows[:, None] & in_width[None, :]
    if ADD:
        total = tl.where(out_mask, total + tl.load(out + out_at, mask=out_mask, other=0.0), 0.0)
        own = total * tl.load(norm + column, mask=in_width, other=0.0)[None, :]
        tl.store(scaled + out_at, own.to(scaled.dtype.element_ty), mask=out_mask)
        tl.store(out_squares + tl.program_id(0) * rows + row, tl.sum(total * total, axis=1), mask=in_rows)
    tl.store(out + out_at, total.to(out.dtype.element_ty), mask=out_mask)


@triton.jit(do_not_specialize=["parts"])
def row_product(
    x, squares, weight, bias, out, norm, scaled, out_squares, parts, width, depth, epsilon,
    SCALE: tl.constexpr, GATE: tl.constexpr, ADD: tl.constexpr, HAS_BIAS: tl.constexpr, PDL: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr, BLOCK_PARTS: tl.constexpr,
):  # fmt: skip
    """`product` for x of one row: some columns of y, summed up without the matrix units."""
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    at = tl.arange(0, BLOCK_K)
    in_width = column < width
    w_at = weight + column.to(tl.int64)[:, None] * depth + at[None, :]
    up_at = w_at + width.to(tl.int64) * depth
    w_mask = in_width[:, None] & (at < depth)[None, :]
    w = tl.load(w_at, mask=w_mask, other=0.0)
    up = w
    if GATE:
        up = tl.load(up_at, mask=w_mask, other=0.0)
    if PDL:
        gdc_wait()
        gdc_launch_dependents()
    a = tl.load(x + at, mask=at < depth, other=0.0).to(tl.float32)[None, :]
    total = tl.sum(w.to(tl.float32) * a, axis=1)
    up_total = total
    if GATE:
        up_total = tl.sum(up.to(tl.float32) * a, axis=1)
    for begin in tl.range(BLOCK_K, depth, BLOCK_K, num_stages=STAGES):
        inside = begin + at < depth
        a = tl.load(x + begin + at, mask=inside, other=0.0).to(tl.float32)[None, :]
        w_mask = in_width[:, None] & inside[None, :]
        total += tl.sum(tl.load(w_at + begin, mask=w_mask, other=0.0).to(tl.float32) * a, axis=1)
        if GATE:
            up_total += tl.sum(tl.load(up_at + begin, mask=w_mask, other=0.0).to(tl.float32) * a, axis=1)
    if SCALE:
        part = tl.arange(0, BLOCK_PARTS)
        own = tl.load(squares + part, mask=part < parts, other=0.0)
        scale = tl.rsqrt(tl.sum(own, axis=0) / depth + epsilon)
        total *= scale
        up_total *= scale
    if HAS_BIAS:
        total += tl.load(bias + column, mask=in_width, other=0.0).to(tl.float32)
    if GATE:
        total = total / (1.0 + tl.exp(-total)) * up_total
    if ADD:
        total = tl.where(in_width, total + tl.load(out + column, mask=in_width, other=0.0), 0.0)
        own = total * tl.load(norm + column, mask=in_width, other=0.0)
        tl.store(scaled + column, own.to(scaled.dtype.element_ty), mask=in_width)
        tl.store(out_squares + tl.program_id(0), tl.sum(total * total, axis=0))
    tl.store(out + column, total.to(out.dtype.element_ty), mask=in_width)
