"""Attention over a paged KV cache: the contract in `base`, one implementation in each other file."""

from tracereel.engine.attention.base import WHOLE_CHUNKS, Attention, BatchLayout, DecoderShape
from tracereel.engine.attention.gather import GatherAttention

__all__ = ["WHOLE_CHUNKS", "Attention", "BatchLayout", "DecoderShape", "GatherAttention"]
