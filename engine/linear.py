"""Matrix products y = x Wᵀ + b with the weights laid out once, for the device and dtype they will run on."""

from typing import Protocol

import torch
import torch.nn.functional as F


class Linear(Protocol):
    """Maps [T, in] to [T, out]."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The product for T rows."""


class PlainLinear:
    """torch's own product."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None):
        self._weight, self._bias = weight, bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The product for T rows."""
        return F.linear(x, self._weight, self._bias)


class PackedLinear:
    """oneDNN's product with the weights packed once: about half the time at small batches (bf16, CPU).

    Packed for one row: measured as quick as any other packing from 1 to 512 rows, and each row's result is then the
    same bits whatever the number of rows.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None):
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, 1)
        self._bias = bias
        self._product = torch.ops.mkldnn._linear_pointwise.default

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The product for T rows."""
        out: torch.Tensor = self._product(x, self._weight, self._bias, "none", [], "")
        return out


def make_linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
    """The quickest product for this weight [out, in]; the weight itself need not be kept."""
    if weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and _can_pack():
        return PackedLinear(weight, bias)
    return PlainLinear(weight, bias)


def _can_pack() -> bool:
    # Private operators, the ones that torch's own compiler emits; without them the plain product does.
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
