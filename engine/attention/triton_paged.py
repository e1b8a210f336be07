"""Paged attention in Triton: for torch without one of its own, and for blocks of any size.

Decoding sequences and chunks of prompts are one kernel with tiles of different heights. Few sequences with long
contexts would leave most of the device idle: then each context is cut into parts (flash-decoding).
"""

from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
import triton
from tracereel.engine.attention.base import DecoderShape, DeviceLayout, Ints
from tracereel.engine.attention.triton_programs import merge, paged_attention

_SMALLEST_DOT = 16
"""Rows that a matrix product has at least on a tensor core."""
_CHUNK_ROWS = 128
"""Query rows of a prefill tile."""
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


def tile_starts(chunks: Ints, tokens: int) -> Ints:
    """Cut chunks, given by where each begins and the last one ends, into tiles of `tokens`; in the same form."""
    starts = [np.arange(begin, end, tokens) for begin, end in pairwise(chunks)]
    return np.concatenate([*starts, chunks[-1:]])


class TritonAttention:
    """The Triton kernels; fp32 and bf16, groups and head sizes of any kind."""

    name: ClassVar[str] = "paged attention in Triton"

    def __init__(self, shape: DecoderShape):
        self._shape = shape
        self._group = shape.heads // shape.kv_heads
        self._precision = "ieee" if shape.dtype == torch.float32 else "tf32"
        self._processors = (
            torch.cuda.get_device_properties(shape.device).multi_processor_count if shape.device.type == "cuda" else 2
        )
        self._counting = torch.arange(1, dtype=torch.int32, device=shape.device)

    def reserve(self, tokens: int) -> None:
        """Make room for steps of that many decoding sequences, before any graph is captured."""
        if len(self._counting) <= tokens:
            self._counting = torch.arange(tokens + 1, dtype=torch.int32, device=self._shape.device)

    def prepare(self, layout: DeviceLayout) -> None:
        """Cut the step into tiles; see the contract."""
        self._layout = layout
        self.reserve(layout.num_decodes)
        if len(layout.chunks) > 1:
            starts = tile_starts(layout.chunks, max(1, _CHUNK_ROWS // self._group))
            host = torch.from_numpy(starts.astype(np.int32))
            self._chunk_tiles = host.to(self._shape.device, non_blocking=True)

    def attend(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Attend; see the contract."""
        layout, out = self._layout, torch.empty_like(q)
        if decodes := layout.num_decodes:
            longest = layout.tables.shape[1] * keys.shape[1]
            splits = num_splits(decodes * self._shape.kv_heads, self._processors, longest)
            self._run(q, keys, values, out, self._counting[: decodes + 1], 1, splits)
        if len(layout.chunks) > 1:
            self._run(q, keys, values, out, self._chunk_tiles, max(1, _CHUNK_ROWS // self._group), 1)
        return out

    def _run(
        self,
        q: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        out: torch.Tensor,
        starts: torch.Tensor,
        tokens: int,
        splits: int,
    ) -> None:
        """One launch over the tiles that begin at `starts`, of up to `tokens` tokens each."""
        shape, layout = self._shape, self._layout
        tiles = len(starts) - 1
        # Only decoding rows, which stand first, are split; without splits nothing is written there.
        rows = tiles * shape.heads if splits > 1 else 0
        partial = torch.empty((splits * rows, shape.head_dim), dtype=torch.float32, device=q.device)
        partial_log = torch.empty(splits * rows, dtype=torch.float32, device=q.device)
        height = max(_SMALLEST_DOT, triton.next_power_of_2(tokens * self._group))
        wide = triton.next_power_of_2(shape.head_dim)
        paged_attention[(tiles, shape.kv_heads, splits)](
            q,
            keys,
            values,
            out,
            partial,
            partial_log,
            starts,
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
            SPLITS=splits,
            PRECISION=self._precision,
            BLOCK_M=height,
            BLOCK_N=_CONTEXT_TOKENS,
            BLOCK_D=wide,
            num_warps=8 if height >= 64 and wide >= 128 else 4,
            num_stages=2,
        )
        if splits > 1:
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
