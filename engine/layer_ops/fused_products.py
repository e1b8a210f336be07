"""Products of small batches with the operations around them, one launch each, for CUDA devices.

A decode step of a small model is bound by how many launches there are, and one of a large model at a small batch by the
bytes of its weights: norm, gate and addition are computed where the product already has their operands. Knows launches;
the size up to which this is faster than a library's product was measured (`benchmarks/tune_kernels.py`).
"""

from typing import NamedTuple

import torch
import triton
from tracereel.engine.layer_ops import fused_programs as programs
from tracereel.engine.layer_ops.base import Normed
from tracereel.engine.linear import PlainLinear


class Tiles(NamedTuple):
    """How one product is cut: rows, columns and depth of a program's tile; its warps; loads in flight."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


# What follows was chosen from what tune_kernels.py measured on an NVIDIA H100 80GB (benchmarks/results/kernels.md).

_PROCESSORS = 132
_DEEP = 1024
"""A product that sums up more than this is faster with longer tiles."""


def most_rows(hidden: int) -> int:
    """Up to how many rows a model of this width gains from these products; beyond, a library's are faster."""
    if hidden < 1024:
        return 256
    return 16 if hidden <= 2048 else 1


def tiles_for(rows: int, width: int, depth: int) -> Tiles:
    """The tiles of a product [rows, depth] x [depth, width]; a tile of one row does not use the matrix units."""
    deep = depth > _DEEP
    if rows == 1:
        return Tiles(1, 4, 2048, 4, 1) if deep else Tiles(1, 4, 1024, 2, 1)
    if rows <= 32:
        return Tiles(16, 16, 256, 4, 3) if deep else Tiles(16, 16, 64, 2, 6)
    if triton.cdiv(rows, 64) * triton.cdiv(width, 16) <= _PROCESSORS:
        return Tiles(64, 16, 256, 4, 3) if deep else Tiles(64, 16, 64, 4, 5)
    return Tiles(64, 32, 128, 4, 3) if deep else Tiles(64, 32, 64, 4, 4)


class FusedProducts:
    """Products whose x is a normed residual stream, or whose y is added to one, fp32 [rows, hidden].

    `pdl`: does the device take programmatic dependent launches?
    """

    def __init__(self, epsilon: float, *, pdl: bool):
        self._epsilon, self._pdl = epsilon, pdl

    def embed(self, embedding: torch.Tensor, ids: torch.Tensor, norm: torch.Tensor) -> tuple[torch.Tensor, Normed]:
        """The residual of tokens `ids` [rows], and its norm; see the contract."""
        rows, width = len(ids), embedding.shape[1]
        residual = torch.empty((rows, width), dtype=torch.float32, device=embedding.device)
        normed = _normed(residual, 1, embedding.dtype)
        block = triton.next_power_of_2(width)
        programs.embed[(rows,)](
            ids,
            embedding,
            norm,
            residual,
            *normed,
            width,
            PDL=self._pdl,
            BLOCK=block,
            num_warps=min(max(block // 256, 1), 16),
            launch_pdl=self._pdl,
        )
        return residual, normed

    def linear(self, normed: Normed, linear: PlainLinear, out: torch.Tensor | None = None) -> torch.Tensor:
        """The product of a normed residual; see the contract."""
        if out is None:
            size = (len(normed.scaled), len(linear.weight))
            out = torch.empty(size, dtype=linear.weight.dtype, device=linear.weight.device)
        self._launch(normed.scaled, linear, out, squares=normed.squares)
        return out

    def gated(self, normed: Normed, linear: PlainLinear) -> torch.Tensor:
        """The gated product of a normed residual; see the contract."""
        size = (len(normed.scaled), len(linear.weight) // 2)
        out = torch.empty(size, dtype=linear.weight.dtype, device=linear.weight.device)
        self._launch(normed.scaled, linear, out, squares=normed.squares, gate=True)
        return out

    def add(self, x: torch.Tensor, linear: PlainLinear, residual: torch.Tensor, norm: torch.Tensor) -> Normed:
        """Add a product to the residual; see the contract."""
        tiles = tiles_for(len(x), len(linear.weight), x.shape[1])
        normed = _normed(residual, triton.cdiv(len(linear.weight), tiles.columns), x.dtype)
        self._launch(x, linear, residual, norm=norm, normed=normed)
        return normed

    def _launch(
        self,
        x: torch.Tensor,
        linear: PlainLinear,
        out: torch.Tensor,
        *,
        squares: torch.Tensor | None = None,
        gate: bool = False,
        norm: torch.Tensor | None = None,
        normed: Normed | None = None,
    ) -> None:
        (rows, width), depth = out.shape, x.shape[1]
        tiles = tiles_for(rows, width, depth)
        parts = 0 if squares is None else len(squares)
        tensors = {
            "x": x,
            "squares": x if squares is None else squares,
            "weight": linear.weight,
            "bias": linear.weight if linear.bias is None else linear.bias,
            "out": out,
            "norm": x if norm is None else norm,
            "scaled": x if normed is None else normed.scaled,
            "out_squares": x if normed is None else normed.squares,
        }
        sizes = {"parts": parts, "width": width, "depth": depth, "epsilon": self._epsilon}
        options = {
            "SCALE": squares is not None,
            "GATE": gate,
            "ADD": normed is not None,
            "HAS_BIAS": linear.bias is not None,
            "PDL": self._pdl,
            "BLOCK_N": tiles.columns,
            "BLOCK_K": tiles.depth,
            "BLOCK_PARTS": triton.next_power_of_2(max(parts, 1)),
            "num_warps": tiles.warps,
            "launch_pdl": self._pdl,
        }
        columns = triton.cdiv(width, tiles.columns)
        if tiles.rows == 1:
            programs.row_product[(columns,)](**tensors, **sizes, STAGES=tiles.stages, **options)
            return
        programs.product[(columns, triton.cdiv(rows, tiles.rows))](
            **tensors,
            rows=rows,
            **sizes,
            PRECISION="ieee" if linear.weight.dtype == torch.float32 else "tf32",
            BLOCK_M=tiles.rows,
            num_stages=tiles.stages,
            **options,
        )


def _normed(residual: torch.Tensor, parts: int, dtype: torch.dtype) -> Normed:
    squares = torch.empty((parts, len(residual)), dtype=torch.float32, device=residual.device)
    return Normed(torch.empty(residual.shape, dtype=dtype, device=residual.device), squares)
