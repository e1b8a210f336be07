"""Attention with plain torch operations: blocks are gathered through the block tables, then torch's own kernel runs.

Works on every device torch has. Decoding sequences share one call, padded to the longest; the query heads of a KV group
are folded into query rows, so that each KV head is read once. A prefilling sequence has a call of its own.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from tracereel.engine.attention.base import BatchLayout, DecoderShape

_PAD_TOKENS = 32
"""Contexts are padded to a multiple of this, masked. The kernel sums in pieces of this size: a sequence's result is the
same bits whatever its neighbours' lengths and however its prompt was cut into chunks (bf16 on a CPU)."""


class GatherAttention:
    """The reference backend."""

    name: ClassVar[str] = "gather + scaled_dot_product_attention"

    def __init__(self, shape: DecoderShape, num_blocks: int, block_size: int):
        self.heads, self.kv_heads, self.head_dim = shape.heads, shape.kv_heads, shape.head_dim
        self.block_size = block_size
        size = (shape.layers, 2, num_blocks * block_size, shape.kv_heads, shape.head_dim)
        self.cache = torch.zeros(size, dtype=shape.dtype, device=shape.device)
        self._scale = shape.head_dim**-0.5

    def prepare(self, layout: BatchLayout) -> None:
        """Build the gather indices and masks: one for the decoding rows together, one for each chunk."""
        device, size = self.cache.device, self.block_size
        self._decodes = decodes = layout.num_decodes
        blocks = layout.tables[layout.rows, layout.positions // size]
        self._new_places = torch.from_numpy(blocks * size + layout.positions % size).to(device)
        starts, counts = layout.starts.tolist(), layout.counts.tolist()
        ends = [start + count for start, count in zip(starts, counts, strict=True)]
        padded = [-(-end // _PAD_TOKENS) * _PAD_TOKENS for end in ends]
        offsets = torch.arange(size, device=device)
        tables = torch.from_numpy(layout.tables).to(device)
        places = (tables.unsqueeze(-1) * size + offsets).flatten(1)  # [sequences, tokens]
        places = F.pad(places, (0, max(0, max(padded) - places.shape[1])))
        if decodes:
            longest = max(padded[:decodes])
            contexts = torch.tensor(ends[:decodes], device=device).view(decodes, 1, 1, 1)
            self._decode_places = places[:decodes, :longest].reshape(-1)
            self._decode_mask = self._mask(torch.arange(longest, device=device) < contexts)
            self._decode_shape = (decodes, longest, self.kv_heads, self.head_dim)
        self._chunks: list[tuple[slice, torch.Tensor, torch.Tensor]] = []
        at = decodes
        for row in range(decodes, len(ends)):
            queries = torch.arange(starts[row], ends[row], device=device).unsqueeze(1)
            mask = self._mask(torch.arange(padded[row], device=device) <= queries)
            self._chunks.append((slice(at, at + counts[row]), places[row, : padded[row]], mask))
            at += counts[row]

    def _mask(self, visible: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(visible.shape, dtype=self.cache.dtype, device=self.cache.device)
        return mask.masked_fill_(~visible, float("-inf"))

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Store k and v, return the outputs for q; see the contract."""
        keys, values = self.cache[layer, 0], self.cache[layer, 1]
        keys.index_copy_(0, self._new_places, k)
        values.index_copy_(0, self._new_places, v)
        decodes = self._decodes
        parts = []
        if decodes:
            group = self.heads // self.kv_heads
            out = F.scaled_dot_product_attention(
                q[:decodes].view(decodes, self.kv_heads, group, self.head_dim),
                keys.index_select(0, self._decode_places).view(self._decode_shape).transpose(1, 2),
                values.index_select(0, self._decode_places).view(self._decode_shape).transpose(1, 2),
                attn_mask=self._decode_mask,
                scale=self._scale,
            )
            parts.append(out.reshape(decodes, self.heads, self.head_dim))
        for tokens, places, mask in self._chunks:
            out = F.scaled_dot_product_attention(
                q[tokens].transpose(0, 1).unsqueeze(0),
                keys.index_select(0, places).transpose(0, 1).unsqueeze(0),
                values.index_select(0, places).transpose(0, 1).unsqueeze(0),
                attn_mask=mask,
                scale=self._scale,
                enable_gqa=True,
            )
            parts.append(out.squeeze(0).transpose(0, 1))
        return parts[0] if len(parts) == 1 else torch.cat(parts)
