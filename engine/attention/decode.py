"""Attention of decoding rows in Triton, the rotation and the KV write included: one launch a layer.

Few sequences with long contexts would leave most of the device idle: then each context is cut into parts
(flash-decoding), which the same launch puts together.
"""

from typing import NamedTuple

import torch
import triton
from tracereel.engine.attention.base import BatchLayout, DecoderShape
from tracereel.engine.attention.triton_programs import decode_attention

_SMALLEST_DOT = 16
"""The fewest rows of a matrix product on a tensor core."""
_MAX_SPLITS = 32
_PROGRAMS_PER_PROCESSOR = 3
"""With more programs than that a cut gains nothing (benchmarks/results/kernels.md)."""
_SHORTEST_PART = 128
"""Tokens."""


class Cut(NamedTuple):
    """How the work is cut: tokens of context that are loaded at a time; a program's warps; loads in flight."""

    tokens: int
    warps: int
    stages: int


def cut_for(head_dim: int, programs: int, processors: int) -> Cut:
    """The fastest cut where `programs` work on whole contexts (benchmarks/results/kernels.md)."""
    if head_dim <= 64:
        return Cut(128, 4, 2)
    return Cut(128, 8, 2) if programs <= 2 * processors else Cut(64, 2, 3)


def num_splits(programs: int, processors: int, longest: int) -> int:
    """Into how many parts contexts of up to `longest` tokens are cut where `programs` work on whole ones.

    A power of two, so that few kernels are compiled; 1 where whole contexts keep the device busy.
    """
    wanted = min(_PROGRAMS_PER_PROCESSOR * processors // programs, longest // _SHORTEST_PART, _MAX_SPLITS)
    return 1 << max(wanted, 1).bit_length() - 1


class DecodeAttention:
    """The kernel for rows of one token; fp32 and bf16, groups and head sizes of any kind.

    `pdl`: does the device take programmatic dependent launches?
    """

    def __init__(self, shape: DecoderShape, *, pdl: bool):
        self._shape, self._pdl = shape, pdl
        cuda = shape.device.type == "cuda"
        self._processors = torch.cuda.get_device_properties(shape.device).multi_processor_count if cuda else 2
        # Contexts are cut only where fewer programs than this work on whole ones.
        counts = _PROGRAMS_PER_PROCESSOR * self._processors
        self._arrivals = torch.zeros(counts, dtype=torch.int32, device=shape.device)

    def attend(
        self,
        layer: int,
        qkv: torch.Tensor,
        layout: BatchLayout,
        keys: torch.Tensor,
        values: torch.Tensor,
        out: torch.Tensor,
        *,
        beside_chunks: bool = False,
    ) -> None:
        """For the decoding rows, which come first: rotate, store keys and values, and write the attention's output.

        `qkv` is [T, (heads + 2 kv_heads) x d], `out` [T, heads, d]; `keys` and `values` are the layer's cache.
        `beside_chunks`: the launch before this one is the attention of the step's chunks.
        """
        shape, rows = self._shape, layout.num_decodes
        longest = layout.tables.shape[1] * keys.shape[1]
        splits = num_splits(rows * shape.kv_heads, self._processors, longest)
        cut = cut_for(shape.head_dim, rows * shape.kv_heads, self._processors)
        size = (splits * rows * shape.heads, shape.head_dim)
        partial = torch.empty(size, dtype=torch.float32, device=qkv.device) if splits > 1 else out
        partial_log = torch.empty(size[0], dtype=torch.float32, device=qkv.device) if splits > 1 else out
        wide = triton.next_power_of_2(shape.head_dim)
        height = max(_SMALLEST_DOT, triton.next_power_of_2(shape.heads // shape.kv_heads))
        norms = shape.qk_norms[layer] if shape.qk_norms is not None else (shape.cos, shape.cos)
        decode_attention[(rows, shape.kv_heads, splits)](
            qkv,
            keys,
            values,
            out,
            partial,
            partial_log,
            self._arrivals,
            shape.cos,
            shape.sin,
            *norms,
            layout.slots,
            layout.positions,
            layout.tables,
            layout.tables.shape[1],
            rows,
            shape.head_dim**-0.5,
            shape.epsilon,
            HEADS=shape.heads,
            KV_HEADS=shape.kv_heads,
            HEAD_DIM=shape.head_dim,
            BLOCK_SIZE=keys.shape[1],
            HAS_NORM=shape.qk_norms is not None,
            SPLITS=splits,
            PRECISION="ieee" if shape.dtype == torch.float32 else "tf32",
            PDL=self._pdl,
            WAIT_LAST=beside_chunks,
            BLOCK_M=height,
            BLOCK_N=cut.tokens,
            BLOCK_D=wide,
            num_warps=cut.warps,
            num_stages=cut.stages,
            launch_pdl=self._pdl,
        )
