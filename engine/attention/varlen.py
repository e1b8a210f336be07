"""Paged attention by torch itself: `varlen_attn` with a block table (torch 2.12 and newer, where its kernels can).

Which block sizes it takes depends on the FlashAttention that torch was built with or was told to use, so that it is
asked by a small call before it is chosen.
"""

from typing import ClassVar

import numpy as np
import torch
from tracereel.engine.attention.base import DecoderShape, DeviceLayout


class VarlenError(Exception):
    """torch's own paged attention cannot be had here; the message says why, in one line."""


class VarlenAttention:
    """torch's kernel. Raises VarlenError where it does not take this shape with blocks of that size."""

    name: ClassVar[str] = "torch varlen_attn with a block table"

    def __init__(self, shape: DecoderShape, block_tokens: int):
        try:
            from torch.nn.attention.varlen import varlen_attn
        except ImportError:
            raise VarlenError(f"torch {torch.__version__} has no varlen_attn") from None
        self._attend, self._shape = varlen_attn, shape
        try:
            self._try(block_tokens)
        except Exception as error:  # whatever a kernel has against a shape
            raise VarlenError((str(error).strip() or type(error).__name__).splitlines()[0]) from None

    def _try(self, block_tokens: int) -> None:
        shape = self._shape
        one = torch.zeros(1, dtype=torch.int32, device=shape.device)
        cache = torch.zeros(
            (2, block_tokens, shape.kv_heads, shape.head_dim), dtype=shape.dtype, device=shape.device
        )
        self.prepare(DeviceLayout(1, one, one, torch.zeros((2, 2), dtype=torch.int32, device=shape.device), np.zeros(1)))
        q = torch.zeros((1, shape.heads, shape.head_dim), dtype=shape.dtype, device=shape.device)
        self.attend(q, cache, cache)
        if shape.device.type == "cuda":
            torch.cuda.synchronize(shape.device)

    def prepare(self, layout: DeviceLayout) -> None:
        """Gather each sequence's table; see the contract."""
        self._parts: list[tuple[slice, torch.Tensor, torch.Tensor, torch.Tensor, int]] = []
        device, decodes = self._shape.device, layout.num_decodes
        if decodes:
            starts = torch.arange(decodes + 1, dtype=torch.int32, device=device)
            tables = layout.tables.index_select(0, layout.slots[:decodes])
            self._parts.append((slice(0, decodes), starts, layout.positions[:decodes] + 1, tables, 1))
        if len(layout.chunks) > 1:
            first = int(layout.chunks[0])
            starts = torch.from_numpy((layout.chunks - first).astype(np.int32)).to(device)
            last = torch.from_numpy(layout.chunks[1:] - 1).to(device)
            tables = layout.tables.index_select(0, layout.slots[last])
            longest = int(np.diff(layout.chunks).max())
            tokens = slice(first, int(layout.chunks[-1]))
            self._parts.append((tokens, starts, layout.positions[last] + 1, tables, longest))

    def attend(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Attend; see the contract."""
        out = torch.empty_like(q)
        for tokens, starts, ends, tables, longest in self._parts:
            # Causal from the end: the last query sees all of the context. What the contexts' own starts would say is
            # in the tables and the lengths; they are asked for all the same.
            contexts = torch.nn.functional.pad(ends.cumsum(0, dtype=torch.int32), (1, 0))
            out[tokens] = self._attend(
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
        return out
