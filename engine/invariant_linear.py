"""A matrix product in Triton whose rows are the same bits in a batch of any size, for CUDA devices.

A library chooses its kernel, and with it the order of sums, by the number of rows. This one always takes the same tiles
(He et al., "Defeating Nondeterminism in LLM Inference", 2025), and pays for it: it is no match for a library's kernels.
"""

import torch
import triton
from tracereel.engine.layer_ops import triton_programs as programs

_ROWS, _COLUMNS, _DEPTH = 64, 64, 64


class InvariantLinear:
    """y = x Wᵀ + b for weight [out, in]."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None):
        self._weight, self._bias = weight, bias
        self._precision = "ieee" if weight.dtype == torch.float32 else "tf32"

    def __call__(self, x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """The product for T rows."""
        rows, depth = x.shape
        width = len(self._weight)
        if out is None:
            out = torch.empty((rows, width), dtype=x.dtype, device=x.device)
        programs.linear[(triton.cdiv(rows, _ROWS), triton.cdiv(width, _COLUMNS))](
            x,
            self._weight,
            self._weight if self._bias is None else self._bias,
            out,
            rows,
            width,
            depth,
            HAS_BIAS=self._bias is not None,
            PRECISION=self._precision,
            BLOCK_M=_ROWS,
            BLOCK_N=_COLUMNS,
            BLOCK_K=_DEPTH,
            num_warps=4,
            num_stages=3,
        )
        return out
