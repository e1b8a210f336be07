"""Layer operations: norm, rotary embedding, attention, activation. The contract is `base`'s."""

import logging
from importlib.util import find_spec

from tracereel.engine.attention import DecoderShape, GatherAttention, PagedAttention
from tracereel.engine.layer_ops.base import DeviceLayerOps, LayerOps
from tracereel.engine.layer_ops.native_ops import NativeLayerOps, NativeOpsError
from tracereel.engine.layer_ops.torch_ops import TorchLayerOps

__all__ = ["ATTENTIONS", "DeviceLayerOps", "LayerOps", "make_device_layer_ops", "make_layer_ops"]

ATTENTIONS = ("varlen", "triton")
"""Paged attention on CUDA devices, the one that is preferred first: a library's where one fits."""

_log = logging.getLogger(__name__)


def make_layer_ops(shape: DecoderShape, num_blocks: int, block_size: int) -> LayerOps:
    """The quickest kernels that can be had here for this model, with room for `num_blocks` KV blocks."""
    try:
        return NativeLayerOps(shape, num_blocks, block_size)
    except NativeOpsError as error:
        _log.info("the C kernels are not used: %s", error)
    return TorchLayerOps(shape, GatherAttention(shape, num_blocks, block_size))


def make_device_layer_ops(
    shape: DecoderShape, num_blocks: int, block_size: int, attentions: tuple[str, ...] = ATTENTIONS
) -> DeviceLayerOps | None:
    """The kernels for a CUDA device, around the first of `attentions` that can be had; None without Triton."""
    if find_spec("triton") is None:
        _log.info("the Triton kernels are not used: triton is not installed")
        return None
    from tracereel.engine.layer_ops.triton_ops import TritonLayerOps

    return TritonLayerOps(shape, num_blocks, block_size, _paged_attention(shape, block_size, attentions))


def _paged_attention(shape: DecoderShape, block_size: int, attentions: tuple[str, ...]) -> PagedAttention:
    from tracereel.engine.attention.triton_paged import TritonAttention
    from tracereel.engine.attention.varlen import VarlenAttention, VarlenError

    if attentions[0] == "varlen":
        try:
            return VarlenAttention(shape, block_size)
        except VarlenError as error:
            if len(attentions) == 1:
                raise
            _log.info("torch's paged attention is not used: %s", error)
    return TritonAttention(shape)
