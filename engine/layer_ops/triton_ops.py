"""Layer operations in Triton, for CUDA devices: each operation between two matrix products is one launch.

A decode step of a small model is bound by the number of kernels, one of a large model by the bytes that they move: both
are faster with few. Attention is any `Attention`, that of decoding rows the `DecodeAttention` where there is one. Knows
launches and the layout of the KV cache.
"""

from dataclasses import replace

import torch
import triton
from tracereel.engine.attention import Attention, BatchLayout, DecoderShape
from tracereel.engine.attention.decode import DecodeAttention
from tracereel.engine.layer_ops import triton_programs as programs
from tracereel.engine.layer_ops.fused_products import FusedProducts, most_rows

_GATE_ELEMENTS = 1024
_HEADS = 8
"""Heads of a token that one program rotates and stores."""


class TritonLayerOps:
    """The Triton kernels around an attention. The cache is [layers, 2, blocks, block size, KV heads, head size]."""

    def __init__(
        self,
        shape: DecoderShape,
        block_size: int,
        attention: Attention,
        decode: DecodeAttention | None = None,
        products: FusedProducts | None = None,
        *,
        pdl: bool = False,
    ):
        self._shape, self._attention, self._block_size = shape, attention, block_size
        self._decode, self._products, self._pdl = decode, products, pdl
        self.captures = attention.captures
        self.cache = torch.empty(0)

    @property
    def name(self) -> str:
        """Its name in the trace."""
        return f"fused Triton kernels, {self._attention.name}"

    @property
    def tile_tokens(self) -> int:
        """The attention's."""
        return self._attention.tile_tokens

    def allocate(self, num_blocks: int) -> None:
        """Make the KV cache; see the contract."""
        shape = self._shape
        size = (shape.layers, 2, num_blocks, self._block_size, shape.kv_heads, shape.head_dim)
        self.cache = torch.zeros(size, dtype=shape.dtype, device=shape.device)

    def prepare(self, layout: BatchLayout) -> None:
        """Prepare one step; see the contract."""
        self._layout = layout
        self._attention.prepare(replace(layout, num_decodes=0) if self._decode else layout)

    def products(self, rows: int, hidden: int) -> FusedProducts | None:
        """Products with the operations around them; see the contract."""
        return self._products if rows <= most_rows(hidden) else None

    def add_rms_norm(self, residual: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor) -> torch.Tensor:
        """Add, then RMSNorm; see the contract."""
        return self._norm(residual, delta, weight, None)

    def last_norm(
        self, residual: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        """RMSNorm of some rows; see the contract."""
        return self._norm(residual, delta, weight, rows)

    def _norm(
        self, residual: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, rows: torch.Tensor | None
    ) -> torch.Tensor:
        width = residual.shape[1]
        count = len(residual) if rows is None else len(rows)
        out = torch.empty((count, width), dtype=self._shape.dtype, device=residual.device)
        block = triton.next_power_of_2(width)
        programs.add_norm[(count,)](
            residual,
            residual if delta is None else delta,
            weight,
            residual if rows is None else rows,
            out,
            width,
            self._shape.epsilon,
            HAS_DELTA=delta is not None,
            GATHER=rows is not None,
            PDL=self._pdl,
            BLOCK=block,
            num_warps=_warps(block),
            launch_pdl=self._pdl,
        )
        return out

    def attend(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        """Rotate, store, attend; see the contract."""
        shape, layout = self._shape, self._layout
        tokens, heads = len(qkv), shape.heads
        keys, values = self.cache[layer, 0], self.cache[layer, 1]
        decodes = layout.num_decodes if self._decode else 0
        q = torch.empty((tokens, heads, shape.head_dim), dtype=shape.dtype, device=qkv.device)
        out = q
        if tokens > decodes:
            self._rotate_store(layer, qkv, q, decodes)
            out = self._attention.attend(q, keys, values)
        if self._decode and decodes:
            self._decode.attend(layer, qkv, layout, keys, values, out, beside_chunks=tokens > decodes)
        return out.view(tokens, heads * shape.head_dim)

    def _rotate_store(self, layer: int, qkv: torch.Tensor, q: torch.Tensor, first: int) -> None:
        """Rotate queries into `q`, store keys and values, of the tokens from `first` on."""
        shape, layout = self._shape, self._layout
        norms = shape.qk_norms[layer] if shape.qk_norms is not None else (shape.cos, shape.cos)
        programs.rotate_store[(len(qkv) - first, triton.cdiv(shape.heads + 2 * shape.kv_heads, _HEADS))](
            qkv,
            q,
            self.cache[layer, 0],
            self.cache[layer, 1],
            shape.cos,
            shape.sin,
            *norms,
            layout.slots,
            layout.positions,
            layout.tables,
            layout.tables.shape[1],
            first,
            shape.epsilon,
            HEADS=shape.heads,
            KV_HEADS=shape.kv_heads,
            HEAD_DIM=shape.head_dim,
            BLOCK_SIZE=self._block_size,
            HAS_NORM=shape.qk_norms is not None,
            PDL=self._pdl,
            HEADS_BLOCK=_HEADS,
            HALF_BLOCK=triton.next_power_of_2(shape.head_dim // 2),
            num_warps=4,
            launch_pdl=self._pdl,
        )

    def silu_and_mul(self, both: torch.Tensor) -> torch.Tensor:
        """SwiGLU; see the contract."""
        rows, width = both.shape[0], both.shape[1] // 2
        out = torch.empty((rows, width), dtype=both.dtype, device=both.device)
        programs.gate[(rows, triton.cdiv(width, _GATE_ELEMENTS))](
            both, out, width, PDL=self._pdl, BLOCK=_GATE_ELEMENTS, num_warps=4, launch_pdl=self._pdl
        )
        return out


def _warps(block: int) -> int:
    return min(max(block // 256, 1), 16)
