"""Attention over a paged KV cache as Triton programs; the launching is `triton_paged`'s.

Scores and sums are fp32. Sizes that are not a power of two are padded and masked. The cache of a layer is
[blocks x block tokens, KV heads, head size], contiguous.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def paged_attention(
    q,
    keys,
    values,
    out,
    tile_starts,
    slots,
    positions,
    tables,
    table_width,
    scale,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    ONE_TOKEN: tl.constexpr,
    PRECISION: tl.constexpr,
    PDL: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One tile of queries, one KV head: softmax(q kT / sqrt(d)) v through the block table.

    A tile is some tokens of one sequence that follow each other (with ONE_TOKEN tile i is token i), with all query
    heads that share the KV head folded into its rows; a tile without tokens writes nothing. PDL as in `fused_programs`.
    """
    GROUP: tl.constexpr = HEADS // KV_HEADS
    tile = tl.program_id(0)
    kv_head = tl.program_id(1)
    if PDL:
        gdc_wait()
        gdc_launch_dependents()
    first, count = _tile(tile_starts, tile, ONE_TOKEN)
    if count == 0:
        return
    start = tl.load(positions + first)
    table = tables + tl.load(slots + first).to(tl.int64) * table_width

    row = tl.arange(0, BLOCK_M)
    token = row // GROUP
    head = kv_head * GROUP + row % GROUP
    dim = tl.arange(0, BLOCK_D)
    q_at = ((first + token).to(tl.int64) * HEADS + head)[:, None] * HEAD_DIM + dim[None, :]
    q_mask = (token < count)[:, None] & (dim < HEAD_DIM)[None, :]
    x = tl.load(q + q_at, mask=q_mask, other=0.0)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    top, total, acc = _softmax_v(
        x, keys, values, table, 0, start + count, start + token, kv_head, scale, top, total, acc,
        KV_HEADS, HEAD_DIM, BLOCK_SIZE, PRECISION, BLOCK_N, BLOCK_D,
    )  # fmt: skip
    y = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    tl.store(out + q_at, y.to(out.dtype.element_ty), mask=q_mask)


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
    x, keys, values, table, low, high, limits, kv_head, scale, top, total, acc, KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, PRECISION: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Attention of rows `x` over positions `low` to `high`, each row up to its limit, added to their earlier sums."""
    for begin in range(low, high, BLOCK_N):
        k, v = _keys_values(keys, values, table, begin, high, kv_head, KV_HEADS, HEAD_DIM, BLOCK_SIZE, BLOCK_N, BLOCK_D)
        top, total, acc = _absorb(x, k, v, begin, high, limits, scale, top, total, acc, PRECISION, BLOCK_N)
    return top, total, acc


@triton.jit
def _keys_values(
    keys, values, table, begin, high, kv_head, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Keys [BLOCK_D, BLOCK_N] and values [BLOCK_N, BLOCK_D] of the positions from `begin` on, zeros from `high` on."""
    dim = tl.arange(0, BLOCK_D)
    at = begin + tl.arange(0, BLOCK_N)
    seen = at < high
    block = tl.load(table + at // BLOCK_SIZE, mask=seen, other=0)
    place = (block.to(tl.int64) * BLOCK_SIZE + at % BLOCK_SIZE) * KV_HEADS + kv_head
    in_head = dim < HEAD_DIM
    k = tl.load(keys + place[None, :] * HEAD_DIM + dim[:, None], mask=seen[None, :] & in_head[:, None], other=0.0)
    v = tl.load(values + place[:, None] * HEAD_DIM + dim[None, :], mask=seen[:, None] & in_head[None, :], other=0.0)
    return k, v


@triton.jit
def _absorb(
    x, k, v, begin, high, limits, scale, top, total, acc, PRECISION: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    """Add some keys and values to the sums of rows `x`.

    Of each row: the greatest score so far (in powers of two), the sum of the weights, and that of the weighted values.
    The online softmax of FlashAttention (Dao et al., 2022).
    """
    at = begin + tl.arange(0, BLOCK_N)
    scores = tl.dot(x, k, input_precision=PRECISION) * (scale * 1.4426950408889634)
    scores = tl.where((at < high)[None, :] & (at[None, :] <= limits[:, None]), scores, float("-inf"))
    new_top = tl.maximum(top, tl.max(scores, axis=1))
    # A row without keys yet keeps -inf as its maximum, and -inf - -inf is not a number.
    base = tl.where(new_top == float("-inf"), 0.0, new_top)
    p = tl.exp2(scores - base[:, None])
    shrink = tl.exp2(top - base)
    acc = acc * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision=PRECISION)
    return new_top, total * shrink + tl.sum(p, axis=1), acc


@triton.jit(do_not_specialize=["rows"])
def decode_attention(
    qkv,
    keys,
    values,
    out,
    partial,
    partial_log,
    arrivals,
    cos,
    sin,
    q_norm,
    k_norm,
    slots,
    positions,
    tables,
    table_width,
    rows,
    scale,
    epsilon,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    HAS_NORM: tl.constexpr,
    SPLITS: tl.constexpr,
    PRECISION: tl.constexpr,
    PDL: tl.constexpr,
    WAIT_LAST: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One decoding row, one KV head, one part of its context: norm and rotate, store key and value, attend.

    The context is cut into up to SPLITS parts (flash-decoding: Dao et al., 2023). The last part has the row's own token
    too, whose key and value it stores; no program reads them from the cache in this launch. The last program to be done
    with its part, by the count in `arrivals`, puts the parts together and leaves the count at 0.

    With PDL a part's first keys and values are loaded before the wait: they are of earlier steps. With WAIT_LAST the
    kernel in front is attention of the step's chunks, of which nothing is needed here, and which has itself waited for
    what is: the wait is at the end, for the kernel behind, and both work side by side.
    """
    GROUP: tl.constexpr = HEADS // KV_HEADS
    row = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    position = tl.load(positions + row)
    table = tables + tl.load(slots + row).to(tl.int64) * table_width
    part = tl.maximum(tl.cdiv(tl.cdiv(position, SPLITS), BLOCK_N), 1) * BLOCK_N
    parts = tl.maximum(tl.cdiv(position, part), 1)
    if split >= parts:
        return
    low, high = split * part, tl.minimum(split * part + part, position)
    k, v = _keys_values(keys, values, table, low, high, kv_head, KV_HEADS, HEAD_DIM, BLOCK_SIZE, BLOCK_N, BLOCK_D)
    if PDL:
        if not WAIT_LAST:
            gdc_wait()
        gdc_launch_dependents()

    member = tl.arange(0, BLOCK_M)
    in_group = member < GROUP
    head = kv_head * GROUP + member
    dim = tl.arange(0, BLOCK_D)
    kind = keys.dtype.element_ty
    own = qkv + row.to(tl.int64) * (HEADS + 2 * KV_HEADS) * HEAD_DIM
    angle = position.to(tl.int64) * (HEAD_DIM // 2)
    x = _rotated(
        own + head[:, None] * HEAD_DIM, in_group[:, None], dim[None, :], q_norm, cos + angle, sin + angle, epsilon,
        HEAD_DIM, HAS_NORM,
    ).to(kind)  # fmt: skip
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    if split == parts - 1:
        one = tl.arange(0, 1)[:, None]
        key = _rotated(
            own + (HEADS + kv_head) * HEAD_DIM + one, one < 1, dim[None, :], k_norm, cos + angle, sin + angle, epsilon,
            HEAD_DIM, HAS_NORM,
        ).to(kind)  # fmt: skip
        in_head = (dim < HEAD_DIM)[None, :]
        value = tl.load(own + (HEADS + KV_HEADS + kv_head) * HEAD_DIM + dim[None, :], mask=in_head, other=0.0)
        block = tl.load(table + position // BLOCK_SIZE)
        place = ((block.to(tl.int64) * BLOCK_SIZE + position % BLOCK_SIZE) * KV_HEADS + kv_head) * HEAD_DIM
        tl.store(keys + place + dim[None, :], key, mask=in_head)
        tl.store(values + place + dim[None, :], value, mask=in_head)
        top = tl.sum(x.to(tl.float32) * key.to(tl.float32), axis=1) * (scale * 1.4426950408889634)
        total = tl.full([BLOCK_M], 1.0, tl.float32)
        acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32) + value.to(tl.float32)
    limits = member * 0 + position
    top, total, acc = _absorb(x, k, v, low, high, limits, scale, top, total, acc, PRECISION, BLOCK_N)
    top, total, acc = _softmax_v(
        x, keys, values, table, low + BLOCK_N, high, limits, kv_head, scale, top, total, acc, KV_HEADS, HEAD_DIM,
        BLOCK_SIZE, PRECISION, BLOCK_N, BLOCK_D,
    )  # fmt: skip
    y = acc / total[:, None]
    at = (row.to(tl.int64) * HEADS + head)[:, None] * HEAD_DIM + dim[None, :]
    mask = in_group[:, None] & (dim < HEAD_DIM)[None, :]
    if SPLITS == 1:
        tl.store(out + at, y.to(out.dtype.element_ty), mask=mask)
    else:
        size = rows.to(tl.int64) * HEADS
        log_at = row.to(tl.int64) * HEADS + head
        tl.store(partial + split * size * HEAD_DIM + at, y, mask=mask)
        tl.store(partial_log + split * size + log_at, top + tl.log2(total), mask=in_group)
        # All threads' stores come before the count; its release makes them visible to the program that combines parts.
        tl.debug_barrier()
        count = arrivals + row * KV_HEADS + kv_head
        if tl.atomic_add(count, 1, sem="acq_rel") == parts - 1:
            top = tl.full([BLOCK_M], float("-inf"), tl.float32)
            total = tl.zeros([BLOCK_M], tl.float32)
            acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
            for i in range(parts):
                # From L2: this processor's own cache may hold what was there before.
                log = tl.load(partial_log + i * size + log_at, mask=in_group, other=0.0, cache_modifier=".cg")
                some = tl.load(partial + i * size * HEAD_DIM + at, mask=mask, other=0.0, cache_modifier=".cg")
                new_top = tl.maximum(top, log)
                shrink, weight = tl.exp2(top - new_top), tl.exp2(log - new_top)
                acc = acc * shrink[:, None] + some * weight[:, None]
                total = total * shrink + weight
                top = new_top
            tl.store(out + at, (acc / total[:, None]).to(out.dtype.element_ty), mask=mask)
            tl.store(count, 0)
    if PDL and WAIT_LAST:
        gdc_wait()


@triton.jit
def _rotated(
    at, mask, dim, weight, cos, sin, epsilon, HEAD_DIM: tl.constexpr, HAS_NORM: tl.constexpr
):  # fmt: skip
    """Heads [n, head size], normed where the model does, and rotated: of each dimension itself and its partner.

    Rotary positions after Su et al., "RoFormer" (2021), pairs being (i, i + d/2).
    """
    HALF: tl.constexpr = HEAD_DIM // 2
    partner = (dim + HALF) % HEAD_DIM
    inside = mask & (dim < HEAD_DIM)
    x = tl.load(at + dim, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(at + partner, mask=inside, other=0.0).to(tl.float32)
    if HAS_NORM:
        scale = tl.rsqrt(tl.sum(x * x, axis=1) / HEAD_DIM + epsilon)[:, None]
        x = x * scale * tl.load(weight + dim, mask=dim < HEAD_DIM, other=0.0)
        y = y * scale * tl.load(weight + partner, mask=dim < HEAD_DIM, other=0.0)
    c = tl.load(cos + dim % HALF, mask=dim < HEAD_DIM, other=0.0)
    s = tl.load(sin + dim % HALF, mask=dim < HEAD_DIM, other=0.0)
    return x * c + tl.where(dim < HALF, -y, y) * s
