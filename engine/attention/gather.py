"""Attention with plain torch operations: blocks are gathered through the block tables, then torch's own kernel runs.

Works on every device torch has. Decoding sequences share one call, padded to the longest; the query heads of a KV group
are folded into query rows, so that each KV head is read once. A prefilling sequence has a call of its own.
"""

from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from tracereel.engine.attention.base import WHOLE_CHUNKS, BatchLayout, DecoderShape

_PAD_TOKENS = 32
"""Contexts are padded to a multiple of this, masked. The kernel sums in pieces of this size: a sequence's result is the
same bits whatever its neighbours' lengths and however its prompt was cut into chunks (bf16 on a CPU)."""


class GatherAttention:
    """The reference."""

    name: ClassVar[str] = "gather + scaled_dot_product_attention"
    captures: ClassVar[bool] = False  # its shapes depend on the contexts' lengths

    def __init__(self, shape: DecoderShape, block_size: int):
        self._shape, self._block_size = shape, block_size
        self._scale = shape.head_dim**-0.5

    @property
    def tile_tokens(self) -> int:
        """Chunks are taken as they are."""
        return WHOLE_CHUNKS

    def prepare(self, layout: BatchLayout) -> None:
        """Build the gather indices and masks: one for the decoding rows together, one for each chunk."""
        device, size = self._shape.device, self._block_size
        self._decodes = decodes = layout.num_decodes
        chunks = [(first, end) for first, end in pairwise(layout.tile_starts.tolist()) if first < end]
        firsts = [*range(decodes), *(first for first, _ in chunks)]
        counts = [1] * decodes + [end - first for first, end in chunks]
        starts = layout.positions[firsts].tolist()
        ends = [start + count for start, count in zip(starts, counts, strict=True)]
        padded = [-(-end // _PAD_TOKENS) * _PAD_TOKENS for end in ends]
        longest = max(padded)
        tables = layout.tables[layout.slots[firsts], : -(-longest // size)].long()
        mapping = (tables.unsqueeze(-1) * size + torch.arange(size, device=device)).flatten(1)  # [sequences, tokens]
        mapping = F.pad(mapping, (0, max(0, longest - mapping.shape[1])))
        if decodes:
            longest = max(padded[:decodes])
            contexts = torch.tensor(ends[:decodes], device=device).view(decodes, 1, 1, 1)
            self._decode_mapping = mapping[:decodes, :longest].reshape(-1)
            self._decode_mask = self._mask(torch.arange(longest, device=device) < contexts)
            self._decode_shape = (decodes, longest, self._shape.kv_heads, self._shape.head_dim)
        self._chunks: list[tuple[slice, torch.Tensor, torch.Tensor]] = []
        for row, (first, end) in enumerate(chunks, decodes):
            queries = torch.arange(starts[row], ends[row], device=device).unsqueeze(1)
            mask = self._mask(torch.arange(padded[row], device=device) <= queries)
            self._chunks.append((slice(first, end), mapping[row, : padded[row]], mask))

    def _mask(self, visible: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(visible.shape, dtype=self._shape.dtype, device=self._shape.device)
        return mask.masked_fill_(~visible, float("-inf"))

    def attend(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Attend; see the contract."""
        keys, values = keys.flatten(0, 1), values.flatten(0, 1)
        decodes, shape = self._decodes, self._shape
        parts = []
        if decodes:
            group = shape.heads // shape.kv_heads
            out = F.scaled_dot_product_attention(
                q[:decodes].view(decodes, shape.kv_heads, group, shape.head_dim),
                keys.index_select(0, self._decode_mapping).view(self._decode_shape).transpose(1, 2),
                values.index_select(0, self._decode_mapping).view(self._decode_shape).transpose(1, 2),
                attn_mask=self._decode_mask,
                scale=self._scale,
            )
            parts.append(out.reshape(decodes, shape.heads, shape.head_dim))
        for tokens, mapping, mask in self._chunks:
            out = F.scaled_dot_product_attention(
                q[tokens].transpose(0, 1).unsqueeze(0),
                keys.index_select(0, mapping).transpose(0, 1).unsqueeze(0),
                values.index_select(0, mapping).transpose(0, 1).unsqueeze(0),
                attn_mask=mask,
                scale=self._scale,
                enable_gqa=True,
            )
            parts.append(out.squeeze(0).transpose(0, 1))
        return parts[0] if len(parts) == 1 else torch.cat(parts)
