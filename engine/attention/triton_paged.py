"""Paged attention in Triton: for torch without one of its own, and for blocks of any size.

Decoding rows and tiles of chunks are one kernel with tiles of different heights. Few sequences with long contexts would
leave most of the device idle: then each context is cut into parts (flash-decoding).
"""

from typing import ClassVar

import torch
import triton
from tracereel.engine.attention.base import BatchLayout, DecoderShape
from tracereel.engine.attention.triton_programs import merge, paged_attention

_SMALLEST_DOT = 16
"""Rows that a matrix product has at least on a tensor core."""
_CHUNK_ROWS = 128
"""Query rows of a prefill tile."""
_INVARIANT_ROWS = 64
"""Query rows of every tile where results must not depend on the batch."""
_CONTEXT_TOKENS = 64
"""Tokens of context that are loaded at a time."""
_MAX_SPLITS = 32
_PROGRAMS_PER_PROCESSOR = 4
"""Programs that a multiprocessor runs at the same time, or nearly: fewer of them leave memory bandwidth unused."""


def num_splits(programs: int, processors: int, longest: int) -> int:
    """Into how many parts contexts of up to `longest` tokens are cut where `programs` work on whole ones.

    A power of two, so that few kernels are compiled; 1 where there is enough to do.
    """
    wanted = min(_PROGRAMS_PER_PROCESSOR * processors // programs, longest // (2 * _CONTEXT_TOKENS), _MAX_SPLITS)
    return 1 << max(wanted, 1).bit_length() - 1


class TritonAttention:
    """The Triton kernels; fp32 and bf16, groups and head sizes of any kind.

    `batch_invariant`: a row's result is the same bits whatever the batch around it, and whether it was prefilled or
    decoded: contexts are never cut, and all tiles have the same height (He et al., "Defeating Nondeterminism in LLM
    Inference", 2025).
    """

    name: ClassVar[str] = "paged attention in Triton"
    captures: ClassVar[bool] = True

    def __init__(self, shape: DecoderShape, *, batch_invariant: bool = False):
        self._shape = shape
        self._group = shape.heads // shape.kv_heads
        self._invariant = batch_invariant
        self._precision = "ieee" if shape.dtype == torch.float32 else "tf32"
        self._processors = (
            torch.cuda.get_device_properties(shape.device).multi_processor_count if shape.device.type == "cuda" else 2
        )

    @property
    def tile_tokens(self) -> int:
        """The most tokens of a tile: its query rows are those of all heads that share a KV head."""
        return max(1, (_INVARIANT_ROWS if self._invariant else _CHUNK_ROWS) // self._group)

    def prepare(self, layout: BatchLayout) -> None:
        """Get ready for one step; see the contract."""
        self._layout = layout

    def attend(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Attend; see the contract."""
        layout, out = self._layout, torch.empty_like(q)
        if decodes := layout.num_decodes:
            longest = layout.tables.shape[1] * keys.shape[1]
            splits = num_splits(decodes * self._shape.kv_heads, self._processors, longest)
            self._run(q, keys, values, out, decodes, 1 if self._invariant else splits, one_token=True)
        if tiles := len(layout.tile_starts) - 1:
            self._run(q, keys, values, out, tiles, 1, one_token=False)
        return out

    def _run(
        self,
        q: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        out: torch.Tensor,
        tiles: int,
        splits: int,
        *,
        one_token: bool,
    ) -> None:
        """One launch over the decoding rows, or over the tiles of the chunks."""
        shape, layout = self._shape, self._layout
        # Only decoding rows, which stand first, are split; without splits nothing is written there.
        rows = tiles * shape.heads if splits > 1 else 0
        partial = torch.empty((splits * rows, shape.head_dim), dtype=torch.float32, device=q.device) if rows else out
        partial_log = torch.empty(splits * rows, dtype=torch.float32, device=q.device) if rows else out
        tokens = 1 if one_token and not self._invariant else self.tile_tokens
        height = max(_SMALLEST_DOT, triton.next_power_of_2(tokens * self._group))
        wide = triton.next_power_of_2(shape.head_dim)
        paged_attention[(tiles, shape.kv_heads, splits)](
            q,
            keys,
            values,
            out,
            partial,
            partial_log,
            layout.tile_starts,
            layout.slots,
            layout.positions,
            layout.tables,
            layout.tables.shape[1],
            tiles,
            shape.head_dim**-0.5,
            HEADS=shape.heads,
            KV_HEADS=shape.kv_heads,
            HEAD_DIM=shape.head_dim,
            BLOCK_SIZE=keys.shape[1],
            ONE_TOKEN=one_token,
            SPLITS=splits,
            PRECISION=self._precision,
            BLOCK_M=height,
            BLOCK_N=_CONTEXT_TOKENS,
            BLOCK_D=wide,
            num_warps=8 if height >= 64 and wide >= 128 else 4,
            num_stages=2,
        )
        if rows:
            merge[(rows,)](
                partial,
                partial_log,
                out,
                rows,
                HEAD_DIM=shape.head_dim,
                SPLITS=splits,
                SPLITS_BLOCK=splits,
                BLOCK_D=wide,
                num_warps=2,
            )
