"""The contract of attention over a paged KV cache, for mixed batches on every device."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

WHOLE_CHUNKS = 2**30
"""`tile_tokens` of an attention that takes the chunks as they are."""


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """Where the tokens of a step are and what they attend to; int32 tensors on the model's device.

    The T tokens of a step follow one another: first `num_decodes` rows with one token each, then the chunks of the
    sequences that prefill, then padding. Of each token `slots` [T] is the row of `tables` [slots, width] that holds its
    sequence's KV blocks, `positions` [T] its position. The chunks are cut into tiles: `tile_starts` [N + 1] says at
    which token each tile begins and where the last one ends. A tile belongs to one sequence; one without tokens is
    idle. The outputs for padding after the last tile are not used.
    """

    num_decodes: int
    slots: torch.Tensor
    positions: torch.Tensor
    tables: torch.Tensor
    tile_starts: torch.Tensor


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """What all layers of a model share. `cos` and `sin` are fp32 [positions, rotated dimensions / 2].

    `qk_norms` holds each layer's RMSNorm weights of queries and keys, fp32 [head_dim], where the model has them.
    """

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    epsilon: float
    cos: torch.Tensor
    sin: torch.Tensor
    qk_norms: tuple[tuple[torch.Tensor, torch.Tensor], ...] | None
    dtype: torch.dtype
    device: torch.device


class Attention(Protocol):
    """Computes softmax(q kᵀ / √d) v over all earlier tokens of each sequence, from a paged cache.

    A layer's `keys` and `values` are [blocks, block size, kv_heads, d].
    """

    name: ClassVar[str]
    captures: ClassVar[bool]
    """May a CUDA graph capture it? Then all its work is on the device, in shapes that only the step's shape decides."""

    @property
    def tile_tokens(self) -> int:
        """The most tokens of a tile."""

    def prepare(self, layout: BatchLayout) -> None:
        """Prepare one step: what all layers share is computed once, here."""

    def attend(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """The outputs [T, heads, d] for q [T, heads, d]; keys and values of these tokens are in the cache already."""
