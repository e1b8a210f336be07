"""Attention over a paged KV cache: the contracts in `base`, one implementation a file beside it."""

from tracereel.engine.attention.base import Attention, BatchLayout, DecoderShape, DeviceLayout, PagedAttention
from tracereel.engine.attention.gather import GatherAttention

__all__ = ["Attention", "BatchLayout", "DecoderShape", "DeviceLayout", "GatherAttention", "PagedAttention"]
