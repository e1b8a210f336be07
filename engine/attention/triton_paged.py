"""Paged attention in Triton: for torch without one of its own, and for blocks of any size."""

from typing import ClassVar

import torch
import triton
from tracereel.engine.attention.base import BatchLayout, DecoderShape
from tracereel.engine.attention.triton_programs import paged_attention

_SMALLEST_DOT = 16
"""The fewest rows of a matrix product on a tensor core."""
_CHUNK_ROWS = 128
"""Query rows of a prefill tile."""
_INVARIANT_ROWS = 64
"""Query rows of every tile where results must not depend on the batch."""
_CONTEXT_TOKENS = 64
"""Tokens of context that are loaded at a time."""


class TritonAttention:
    """The Triton kernel; fp32 and bf16, groups and head sizes of any kind.

    `batch_invariant`: a row's result is the same bits whatever the batch around it, and whether it was prefilled or
    decoded: all tiles have the same height (He et al., "Defeating Nondeterminism in LLM Inference", 2025). `pdl`: does
    the device take programmatic dependent launches?
    """

    name: ClassVar[str] = "paged attention in Triton"
    captures: ClassVar[bool] = True

    def __init__(self, shape: DecoderShape, *, pdl: bool = False, batch_invariant: bool = False):
        self._shape, self._pdl = shape, pdl
        self._group = shape.heads // shape.kv_heads
        self.batch_invariant = batch_invariant
        self._precision = "ieee" if shape.dtype == torch.float32 else "tf32"

    @property
    def tile_tokens(self) -> int:
        """The most tokens of a tile: its query rows are those of all heads that share a KV head."""
        return max(1, (_INVARIANT_ROWS if self.batch_invariant else _CHUNK_ROWS) // self._group)

    def prepare(self, layout: BatchLayout) -> None:
        """Prepare one step; see the contract."""
        self._layout = layout

    def attend(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Attend; see the contract."""
        layout, out = self._layout, torch.empty_like(q)
        if decodes := layout.num_decodes:
            self._run(q, keys, values, out, decodes, one_token=True)
        if tiles := len(layout.tile_starts) - 1:
            self._run(q, keys, values, out, tiles, one_token=False)
        return out

    def _run(
        self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, out: torch.Tensor, tiles: int, *,
        one_token: bool,
    ) -> None:  # fmt: skip
        """One launch over the decoding rows, or over the tiles of the chunks."""
        shape, layout = self._shape, self._layout
        tokens = 1 if one_token and not self.batch_invariant else self.tile_tokens
        height = max(_SMALLEST_DOT, triton.next_power_of_2(tokens * self._group))
        wide = triton.next_power_of_2(shape.head_dim)
        paged_attention[(tiles, shape.kv_heads)](
            q,
            keys,
            values,
            out,
            layout.tile_starts,
            layout.slots,
            layout.positions,
            layout.tables,
            layout.tables.shape[1],
            shape.head_dim**-0.5,
            HEADS=shape.heads,
            KV_HEADS=shape.kv_heads,
            HEAD_DIM=shape.head_dim,
            BLOCK_SIZE=keys.shape[1],
            ONE_TOKEN=one_token,
            PRECISION=self._precision,
            PDL=self._pdl,
            BLOCK_M=height,
            BLOCK_N=_CONTEXT_TOKENS,
            BLOCK_D=wide,
            num_warps=8 if height >= 64 and wide >= 128 else 4,
            num_stages=2,
            launch_pdl=self._pdl,
        )
