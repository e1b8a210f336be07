"""Matrix products y = x Wᵀ + b with the weights laid out once, for the device and dtype they will run on."""

from functools import cache
from importlib.util import find_spec
from typing import Protocol

import torch
import torch.nn.functional as F


class LinearError(Exception):
    """A product is not available here; the message says why, in one line."""


class Linear(Protocol):
    """Maps [T, in] to [T, out]."""

    def __call__(self, x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """The product for T rows, in `out` [T, out] if given."""


class PlainLinear:
    """torch's own product."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None):
        self.weight, self.bias = weight, bias

    def __call__(self, x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """The product for T rows."""
        if out is None:
            return F.linear(x, self.weight, self.bias)
        if self.bias is None:
            return torch.mm(x, self.weight.t(), out=out)
        return torch.addmm(self.bias, x, self.weight.t(), out=out)


class PackedLinear:
    """oneDNN's product with the weights packed once: about half the time at small batches (bf16, CPU).

    Packed for one row: measured as fast as any other packing from 1 to 512 rows, and each row's result is then the
    same bits whatever the number of rows.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None):
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, 1)
        self._bias = bias
        self._product = torch.ops.mkldnn._linear_pointwise.default

    def __call__(self, x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """The product for T rows."""
        product: torch.Tensor = self._product(x, self._weight, self._bias, "none", [], "")
        return product if out is None else out.copy_(product)


def make_linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
    """The fastest product for this weight [out, in]; the weight itself need not be kept."""
    if weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and _can_pack():
        return PackedLinear(weight, bias)
    return PlainLinear(weight, bias)


def make_batch_invariant(linear: Linear) -> Linear:
    """The same product with rows that are the same bits in a batch of any size.

    On a CPU a packed product is that already. Raises LinearError where it is not available: Triton is missing.
    """
    if not isinstance(linear, PlainLinear):
        return linear
    if find_spec("triton") is None:
        raise LinearError("batch_invariant: the products need Triton, which is not installed here")
    from tracereel.engine.invariant_linear import InvariantLinear

    return InvariantLinear(linear.weight, linear.bias)


@cache
def _can_pack() -> bool:
    """Does oneDNN pack bf16 weights on this processor? Asked by packing a small one: it refuses some processors."""
    # Private operators, the ones that torch's own compiler emits; without them the plain product does.
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not available or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    try:
        PackedLinear(torch.zeros(16, 16, dtype=torch.bfloat16), None)(torch.zeros(1, 16, dtype=torch.bfloat16))
    except RuntimeError:
        return False
    return True
