"""The contract of an attention backend: it owns the KV cache of all layers and computes attention for mixed batches."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """Where the tokens of a step are and what they may see.

    The T tokens of a step lie one after the other: first `num_decodes` sequences with one token each, then the chunks
    of the sequences that prefill. `starts` and `counts` say for each sequence the position of its first token and how
    many there are; `tables` its KV blocks, one row each, padded with any valid block. `slot_mapping` [T] is the place
    in the cache of each token: block x block_tokens + offset.
    """

    num_decodes: int
    starts: list[int]
    counts: list[int]
    tables: torch.Tensor
    slot_mapping: torch.Tensor


class Attention(Protocol):
    """Computes softmax(q kᵀ / √d) v over all earlier tokens of each sequence, from a paged cache."""

    name: ClassVar[str]

    def prepare(self, layout: BatchLayout) -> None:
        """Get ready for one step: what all layers share is computed once, here."""

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Store k and v [T, kv_heads, d] in the cache of the layer; return the outputs [T, heads, d] for q."""
