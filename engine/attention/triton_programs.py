"""Attention over a paged KV cache as Triton programs; the launching is `triton_paged`'s.

Scores and sums are fp32. Sizes that are not a power of two are padded and masked. The cache of a layer lies as
[blocks x block tokens, KV heads, head size], contiguous.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["tokens"])
def paged_attention(
    q,
    keys,
    values,
    out,
    partial,
    partial_log,
    tile_starts,
    slots,
    positions,
    tables,
    table_width,
    tokens,
    scale,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    ONE_TOKEN: tl.constexpr,
    SPLITS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One tile of queries, one KV head, one part of the context: softmax(q kT / sqrt(d)) v through the block table.

    A tile is some tokens of one sequence that follow each other (with ONE_TOKEN tile i is token i), with all query
    heads that share the KV head folded into its rows; a tile without tokens writes nothing. With SPLITS > 1 the context
    is cut into as many parts, whose results `merge` puts together (flash-decoding: Dao et al., 2023).
    """
    GROUP: tl.constexpr = HEADS // KV_HEADS
    tile = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    first, count = _tile(tile_starts, tile, ONE_TOKEN)
    if count == 0:
        return
    start = tl.load(positions + first)
    table = tables + tl.load(slots + first).to(tl.int64) * table_width
    end = start + count

    row = tl.arange(0, BLOCK_M)
    token = row // GROUP
    head = kv_head * GROUP + row % GROUP
    dim = tl.arange(0, BLOCK_D)
    in_tile = token < count
    q_at = ((first + token).to(tl.int64) * HEADS + head)[:, None] * HEAD_DIM + dim[None, :]
    q_mask = in_tile[:, None] & (dim < HEAD_DIM)[None, :]
    x = tl.load(q + q_at, mask=q_mask, other=0.0)
    part = tl.cdiv(tl.cdiv(end, SPLITS), BLOCK_N) * BLOCK_N
    y, log = _softmax_v(
        x, keys, values, table, split * part, tl.minimum(split * part + part, end), start + token, kv_head, scale,
        KV_HEADS, HEAD_DIM, BLOCK_SIZE, PRECISION, BLOCK_M, BLOCK_N, BLOCK_D,
    )  # fmt: skip
    if SPLITS == 1:
        tl.store(out + q_at, y.to(out.dtype.element_ty), mask=q_mask)
    else:
        tl.store(partial + split.to(tl.int64) * tokens * HEADS * HEAD_DIM + q_at, y, mask=q_mask)
        tl.store(partial_log + split * tokens * HEADS + (first + token) * HEADS + head, log, mask=in_tile)


@triton.jit
def _tile(tile_starts, tile, ONE_TOKEN: tl.constexpr):
    """The first token of a tile, and how many it has."""
    if ONE_TOKEN:
        first = tile
        count = tile * 0 + 1
    else:
        first = tl.load(tile_starts + tile)
        count = tl.load(tile_starts + tile + 1) - first
    return first, count


@triton.jit
def _softmax_v(
    x,
    keys,
    values,
    table,
    low,
    high,
    limits,
    kv_head,
    scale,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Attention of rows `x` over positions `low` to `high`, each row up to its limit; and log2 of the sum's weight.

    The online softmax of FlashAttention (Dao et al., 2022).
    """
    dim = tl.arange(0, BLOCK_D)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for begin in range(low, high, BLOCK_N):
        at = begin + tl.arange(0, BLOCK_N)
        seen = at < high
        block = tl.load(table + at // BLOCK_SIZE, mask=seen, other=0)
        place = (block.to(tl.int64) * BLOCK_SIZE + at % BLOCK_SIZE) * KV_HEADS + kv_head
        k = tl.load(
            keys + place[None, :] * HEAD_DIM + dim[:, None], mask=seen[None, :] & (dim < HEAD_DIM)[:, None], other=0.0
        )
        scores = tl.dot(x, k, input_precision=PRECISION) * (scale * 1.4426950408889634)
        scores = tl.where(seen[None, :] & (at[None, :] <= limits[:, None]), scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, axis=1))
        # A row that has seen nothing yet keeps -inf as its maximum, and -inf - -inf is not a number.
        base = tl.where(new_top == float("-inf"), 0.0, new_top)
        p = tl.exp2(scores - base[:, None])
        shrink = tl.exp2(top - base)
        v = tl.load(
            values + place[:, None] * HEAD_DIM + dim[None, :], mask=seen[:, None] & (dim < HEAD_DIM)[None, :], other=0.0
        )
        acc = acc * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision=PRECISION)
        total = total * shrink + tl.sum(p, axis=1)
        top = new_top
    y = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    return y, top + tl.log2(total)


@triton.jit
def merge(
    partial,
    partial_log,
    out,
    rows,
    HEAD_DIM: tl.constexpr,
    SPLITS: tl.constexpr,
    SPLITS_BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One head of one token: the parts of its context put together, each by its share of the softmax's sum."""
    row = tl.program_id(0)
    split = tl.arange(0, SPLITS_BLOCK)
    dim = tl.arange(0, BLOCK_D)
    logs = tl.load(partial_log + split * rows + row, mask=split < SPLITS, other=float("-inf"))
    weight = tl.exp2(logs - tl.max(logs, axis=0))
    at = (split.to(tl.int64) * rows + row)[:, None] * HEAD_DIM + dim[None, :]
    parts = tl.load(partial + at, mask=(split < SPLITS)[:, None] & (dim < HEAD_DIM)[None, :], other=0.0)
    y = tl.sum(parts * weight[:, None], axis=0) / tl.sum(weight, axis=0)
    tl.store(out + row.to(tl.int64) * HEAD_DIM + dim, y.to(out.dtype.element_ty), mask=dim < HEAD_DIM)
