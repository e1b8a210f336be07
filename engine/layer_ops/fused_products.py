"""Products of small batches with the operations around them, one launch each, for CUDA devices.

A decode step of a small model is bound by how many launches there are, and one of a large model at a small batch by the
bytes of its weights: norm, gate and addition are computed where the product already has their operands. Knows launches;
which batches are small enough is measured (`benchmarks/gpu_stages/products.py`).
"""

from typing import NamedTuple

import torch
import triton
from tracereel.engine.layer_ops import fused_programs as programs
from tracereel.engine.linear import PlainLinear


class Tiles(NamedTuple):
    """How one product is cut: rows, columns and depth of a program's tile; its warps; loads in flight.

    `prefetch`: are a program's weights brought into the L2 cache while the kernel in front ends?
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    prefetch: bool


def tiles_for(rows: int, width: int, depth: int) -> Tiles:
    """The tiles of a product [rows, depth] x [depth, width]."""
    height = min(max(16, triton.next_power_of_2(rows)), 64)
    if height == 64:
        return Tiles(height, 32, 64, 4, 4, prefetch=False)
    return Tiles(height, 16, 128, 4, 4, prefetch=width * depth < 2**23)


class FusedProducts:
    """Products whose x or y is the fp32 residual stream [rows, hidden], or that end in a gate.

    `pdl`: does the device take programmatic dependent launches?
    """

    def __init__(self, epsilon: float, *, pdl: bool):
        self._epsilon, self._pdl = epsilon, pdl

    def norm_linear(
        self,
        residual: torch.Tensor,
        norm: torch.Tensor,
        linear: PlainLinear,
        rows: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """RMSNorm(residual) times `norm` [hidden] through `linear`: [rows, out]; of these rows alone if given."""
        count = len(residual) if rows is None else len(rows)
        if out is None:
            out = torch.empty((count, len(linear.weight)), dtype=linear.weight.dtype, device=residual.device)
        self._launch(residual, linear, out, norm=norm, chosen=rows)
        return out

    def norm_gate(self, residual: torch.Tensor, norm: torch.Tensor, linear: PlainLinear) -> torch.Tensor:
        """silu(first half) x second half of what `norm_linear` gives: [rows, out / 2]."""
        size = (len(residual), len(linear.weight) // 2)
        out = torch.empty(size, dtype=linear.weight.dtype, device=residual.device)
        self._launch(residual, linear, out, norm=norm, gate=True)
        return out

    def add_linear(self, x: torch.Tensor, linear: PlainLinear, residual: torch.Tensor) -> None:
        """Add `linear`'s product of x [rows, in] to the residual [rows, out], in place."""
        self._launch(x, linear, residual, add=True)

    def _launch(
        self,
        x: torch.Tensor,
        linear: PlainLinear,
        out: torch.Tensor,
        *,
        norm: torch.Tensor | None = None,
        chosen: torch.Tensor | None = None,
        gate: bool = False,
        add: bool = False,
    ) -> None:
        rows, width = out.shape
        depth = x.shape[1]
        tiles = tiles_for(rows, width, depth)
        programs.product[(triton.cdiv(width, tiles.columns), triton.cdiv(rows, tiles.rows))](
            x,
            x if norm is None else norm,
            x if chosen is None else chosen,
            linear.weight,
            linear.weight if linear.bias is None else linear.bias,
            out,
            rows,
            width,
            depth,
            self._epsilon,
            NORM=norm is not None,
            GATHER=chosen is not None,
            GATE=gate,
            ADD=add,
            HAS_BIAS=linear.bias is not None,
            PRECISION="ieee" if linear.weight.dtype == torch.float32 else "tf32",
            PDL=self._pdl,
            PREFETCH=tiles.prefetch,
            BLOCK_M=tiles.rows,
            BLOCK_N=tiles.columns,
            BLOCK_K=tiles.depth,
            num_warps=tiles.warps,
            num_stages=tiles.stages,
            launch_pdl=self._pdl,
        )
