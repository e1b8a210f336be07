"""The contract of an attention backend: it owns the KV cache of all layers and computes attention for mixed batches."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """Where the tokens of a step are and what they may see; arrays on the host.

    The T tokens of a step lie one after the other: first `num_decodes` sequences with one token each, then the chunks
    of the sequences that prefill. Of each of the S sequences `starts` [S] is the position of its first token, `counts`
    [S] how many there are, `tables` [S, width] its KV blocks, padded with any valid block. Of each token `rows` [T] is
    its sequence, `positions` [T] its position.
    """

    num_decodes: int
    starts: Ints
    counts: Ints
    tables: Ints
    rows: Ints
    positions: Ints


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


@dataclass(frozen=True, slots=True)
class DeviceLayout:
    """A `BatchLayout` whose arrays are on the device, where block tables stay from step to step; all int32.

    The T tokens lie as in a BatchLayout: `num_decodes` of one each, then chunks; `chunks` [C + 1], on the host, says at
    which token each begins, and where the last one ends. Of each token `slots` [T] is the row of `tables` [rows, width]
    that holds its sequence's blocks, `positions` [T] its position.
    """

    num_decodes: int
    slots: torch.Tensor
    positions: torch.Tensor
    tables: torch.Tensor
    chunks: Ints


class Attention(Protocol):
    """Computes softmax(q kᵀ / √d) v over all earlier tokens of each sequence, from a paged cache."""

    name: ClassVar[str]

    def prepare(self, layout: BatchLayout) -> None:
        """Get ready for one step: what all layers share is computed once, here."""

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Store k and v [T, kv_heads, d] in the cache of the layer; return the outputs [T, heads, d] for q."""


class PagedAttention(Protocol):
    """Attention that reads keys and values where they lie in a paged cache, through block tables on the device.

    A layer's `keys` and `values` are [blocks, block tokens, kv_heads, d]. Where a step has no chunks, what `prepare`
    and `attend` do is work on the device alone, with shapes that depend on nothing but `num_decodes`: a CUDA graph of
    it stays right.
    """

    name: ClassVar[str]

    def prepare(self, layout: DeviceLayout) -> None:
        """Get ready for one step: what all layers share is computed once, here."""

    def attend(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """The outputs [T, heads, d] for q [T, heads, d]; keys and values of these tokens are in the cache already."""
