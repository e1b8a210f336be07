"""A matrix product and the operations around it as one Triton program; the launching is `fused_products`'s.

Between two products of a small batch there is little to compute, and a launch each for norm, gate and addition would
take longer than the work. Sums are fp32. Knows pointers and strides.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit(do_not_specialize=["rows"])
def product(
    x, norm, chosen, weight, bias, out, rows, width, depth, epsilon, NORM: tl.constexpr, GATHER: tl.constexpr,
    GATE: tl.constexpr, ADD: tl.constexpr, HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr, PDL: tl.constexpr,
    PREFETCH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One tile of y = x weightᵀ + bias for x [rows, depth], weight [width, depth]; out [rows, width].

    NORM: x is the fp32 residual, of which the RMSNorm times `norm` is meant: the products of x times `norm` are scaled
    by each row's root mean square once they are summed. GATHER: row i of the product is made of row chosen[i] of x.
    GATE: weight is [2 width, depth], and out = silu(first half) x second half. ADD: y is added to the fp32 `out`.

    With PDL (programmatic dependent launch) the kernel begins while the one before it ends: its first weights are
    loaded, with PREFETCH the others are brought into the L2 cache, and then it waits for what that one writes.
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
        if PREFETCH:
            _prefetch(weight, column, width, depth, GATE, BLOCK_K)
        gdc_wait()
        gdc_launch_dependents()
    source = row
    if GATHER:
        source = tl.load(chosen + row, mask=in_rows, other=0)
    x_at = x + source.to(tl.int64)[:, None] * depth + at[None, :]
    a, squares = _operand(x_at, norm + at, in_rows, at < depth, NORM, weight.dtype.element_ty)
    total = tl.dot(a, w, input_precision=PRECISION)
    up_total = total
    if GATE:
        up_total = tl.dot(a, up, input_precision=PRECISION)
    for begin in range(BLOCK_K, depth, BLOCK_K):
        inside = begin + at < depth
        a, more = _operand(x_at + begin, norm + begin + at, in_rows, inside, NORM, weight.dtype.element_ty)
        squares += more
        w_mask = inside[:, None] & in_width[None, :]
        total += tl.dot(a, tl.load(w_at + begin, mask=w_mask, other=0.0), input_precision=PRECISION)
        if GATE:
            up_total += tl.dot(a, tl.load(up_at + begin, mask=w_mask, other=0.0), input_precision=PRECISION)
    if NORM:
        scale = tl.rsqrt(squares / depth + epsilon)[:, None]
        total *= scale
        up_total *= scale
    if HAS_BIAS:
        total += tl.load(bias + column, mask=in_width, other=0.0).to(tl.float32)[None, :]
    if GATE:
        total = total / (1.0 + tl.exp(-total)) * up_total
    out_at = out + row.to(tl.int64)[:, None] * width + column[None, :]
    out_mask = in_rows[:, None] & in_width[None, :]
    if ADD:
        total += tl.load(out_at, mask=out_mask, other=0.0)
    tl.store(out_at, total.to(out.dtype.element_ty), mask=out_mask)


@triton.jit
def _prefetch(weight, column, width, depth, GATE: tl.constexpr, BLOCK_K: tl.constexpr):
    """Bring a tile's weights behind the first BLOCK_K of each column into the L2 cache, line by line."""
    LINE: tl.constexpr = 128 // (weight.dtype.element_ty.primitive_bitwidth // 8)
    line = tl.arange(0, BLOCK_K // LINE) * LINE
    for begin in range(BLOCK_K, depth, BLOCK_K):
        at = weight + column.to(tl.int64)[:, None] * depth + (begin + line)[None, :]
        inside = (column < width)[:, None] & (begin + line < depth)[None, :]
        at = tl.where(inside, at, weight)
        _touch(at)
        if GATE:
            _touch(tl.where(inside, at + width.to(tl.int64) * depth, weight))


@triton.jit
def _touch(at):
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [at], dtype=tl.int32, is_pure=False, pack=1
    )


@triton.jit
def _operand(x_at, norm_at, in_rows, inside, NORM: tl.constexpr, KIND: tl.constexpr):
    """A tile of x as the product takes it, and the sum of its squares where a norm needs it."""
    x = tl.load(x_at, mask=in_rows[:, None] & inside[None, :], other=0.0)
    squares = tl.sum(tl.zeros_like(x).to(tl.float32), axis=1)
    if NORM:
        squares = tl.sum(x * x, axis=1)
        x = x * tl.load(norm_at, mask=inside, other=0.0)[None, :]
    return x.to(KIND), squares
