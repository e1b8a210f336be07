"""Paged attention by torch itself: `varlen_attn` with a block table (torch 2.12 and newer, where its kernels can).

Which block sizes it takes depends on the FlashAttention that torch was built with or was set to use, so a small
call tries it before it is chosen.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from tracereel.engine.attention.base import WHOLE_CHUNKS, BatchLayout, DecoderShape


class VarlenError(Exception):
    """torch's own paged attention is not available here; the message says why, in one line."""


class VarlenAttention:
    """torch's kernel. Raises VarlenError where it does not take this shape with blocks of that size."""

    name: ClassVar[str] = "torch varlen_attn with a block table"
    captures: ClassVar[bool] = True

    def __init__(self, shape: DecoderShape, block_size: int):
        try:
            from torch.nn.attention.varlen import varlen_attn
        except ImportError:
            raise VarlenError(f"torch {torch.__version__} has no varlen_attn") from None
        self._attend, self._shape = varlen_attn, shape
        try:
            right = self._is_right(block_size)
        except Exception as error:  # whatever reason a kernel has to refuse a shape
            raise VarlenError((str(error).strip() or type(error).__name__).splitlines()[0]) from None
        if not right:
            raise VarlenError(f"torch {torch.__version__}'s varlen_attn gives other numbers through a block table")

    @property
    def tile_tokens(self) -> int:
        """Chunks are taken as they are."""
        return WHOLE_CHUNKS

    def _is_right(self, block_size: int) -> bool:
        """Compute one row over two blocks, in the wrong order, and the same without a table."""
        shape, device = self._shape, self._shape.device
        generator = torch.Generator(device).manual_seed(0)
        size = (3, block_size, shape.kv_heads, shape.head_dim)
        keys, values = (torch.randn(size, dtype=shape.dtype, device=device, generator=generator) for _ in range(2))
        q = torch.randn((1, shape.heads, shape.head_dim), dtype=shape.dtype, device=device, generator=generator)
        slots = torch.zeros(1, dtype=torch.int32, device=device)
        tables = torch.tensor([[2, 0]], dtype=torch.int32, device=device)
        self.prepare(BatchLayout(1, slots, slots + block_size, tables, slots[:1] + 1))
        got = self.attend(q, keys, values)
        k, v = (torch.cat([x[2], x[0, :1]]).transpose(0, 1).unsqueeze(0) for x in (keys, values))
        want = F.scaled_dot_product_attention(q.unsqueeze(2), k, v, enable_gqa=True).view_as(q)
        return bool((got - want).abs().max() <= 2e-2 * want.abs().max())

    def prepare(self, layout: BatchLayout) -> None:
        """Gather each sequence's table; see the contract."""
        self._parts: list[tuple[slice, torch.Tensor, torch.Tensor, torch.Tensor, int]] = []
        device, decodes = self._shape.device, layout.num_decodes
        if decodes:
            starts = torch.arange(decodes + 1, dtype=torch.int32, device=device)
            tables = layout.tables.index_select(0, layout.slots[:decodes])
            self._parts.append((slice(0, decodes), starts, layout.positions[:decodes] + 1, tables, 1))
        if len(layout.tile_starts) > 1:
            tokens = len(layout.slots)
            first, end = layout.tile_starts[:-1], layout.tile_starts[1:]
            # An idle tile has neither queries nor a context; its place is still within the step.
            tables = layout.tables.index_select(0, layout.slots[first.clamp(max=tokens - 1)])
            contexts = torch.where(end > first, layout.positions[(end - 1).clamp(min=0)] + 1, 0)
            self._parts.append(
                (slice(decodes, tokens), layout.tile_starts - decodes, contexts, tables, tokens - decodes)
            )

    def attend(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Attend; see the contract."""
        out = torch.empty_like(q)
        for tokens, starts, ends, tables, longest in self._parts:
            # Causal from the end: the last query sees all of the context. The kernel asks for the
            # contexts' starts too, though tables and lengths say the same.
            contexts = F.pad(ends.cumsum(0, dtype=torch.int32), (1, 0))
            rows = self._attend(
                q[tokens],
                keys,
                values,
                starts,
                contexts,
                longest,
                tables.shape[1] * keys.shape[1],
                scale=self._shape.head_dim**-0.5,
                window_size=(-1, 0),
                enable_gqa=True,
                seqused_k=ends,
                block_table=tables,
            )
            assert isinstance(rows, torch.Tensor)
            out[tokens] = rows
        return out
