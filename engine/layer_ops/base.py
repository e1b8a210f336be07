"""The contract of a decoder's layer operations: norm, rotary embedding, paged attention, activation.

An implementation owns the KV cache of all layers, in a layout of its own. It knows nothing of requests and schedules.
"""

from typing import NamedTuple, Protocol

import torch
from tracereel.engine.attention.base import BatchLayout
from tracereel.engine.linear import PlainLinear


class Normed(NamedTuple):
    """An RMSNorm of a residual r [T, hidden] without its scale, which the product that follows applies.

    `scaled` [T, hidden] is r times the norm's weight, `squares` fp32 [parts, T] adds up to each row's sum of squares.
    """

    scaled: torch.Tensor
    squares: torch.Tensor


class Products(Protocol):
    """Matrix products with the operations around them in one launch each; the residual is fp32 [T, hidden]."""

    def embed(self, embedding: torch.Tensor, ids: torch.Tensor, norm: torch.Tensor) -> tuple[torch.Tensor, Normed]:
        """The residual that tokens `ids` [T] begin with, and its RMSNorm times `norm` [hidden]."""

    def linear(self, normed: Normed, linear: PlainLinear, out: torch.Tensor | None = None) -> torch.Tensor:
        """The normed residual through `linear`: [T, out], in `out` if given."""

    def gated(self, normed: Normed, linear: PlainLinear) -> torch.Tensor:
        """silu(first half) x second half of what `linear` gives: [T, out / 2]."""

    def add(self, x: torch.Tensor, linear: PlainLinear, residual: torch.Tensor, norm: torch.Tensor) -> Normed:
        """Add `linear`'s product of x [T, in] to the residual in place; returns its RMSNorm times `norm`."""


class LayerOps(Protocol):
    """Computes all of a layer except its matrix products. Tensors have the model's dtype unless said otherwise."""

    captures: bool
    """May a CUDA graph capture a step, whatever its members?"""

    @property
    def name(self) -> str:
        """Its name in the trace; known before there is a cache."""

    @property
    def tile_tokens(self) -> int:
        """The most tokens of a tile of `BatchLayout`."""

    def allocate(self, num_blocks: int) -> None:
        """Make the KV cache, before the first step."""

    def prepare(self, layout: BatchLayout) -> None:
        """Prepare one step: what all layers share is computed once, here."""

    def products(self, rows: int, hidden: int) -> Products | None:
        """Products to be used for so many rows of a model of that width; None where the model's own are faster."""

    def add_rms_norm(self, residual: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor) -> torch.Tensor:
        """Add `delta` [T, hidden] to the fp32 `residual` [T, hidden] in place; return its RMSNorm times `weight`."""

    def last_norm(
        self, residual: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        """RMSNorm of `residual` + `delta`, of these rows alone [len(rows), hidden]; nothing is changed."""

    def attend(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        """Rotate, store keys and values, attend over all earlier tokens: softmax(q kᵀ / √d) v.

        `qkv` is [T, (heads + 2 kv_heads) x head_dim]; returns [T, heads x head_dim].
        """

    def silu_and_mul(self, both: torch.Tensor) -> torch.Tensor:
        """silu(both[:, :n]) x both[:, n:] for `both` [T, 2n]."""
