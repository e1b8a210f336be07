"""Layer operations: norm, rotary embedding, attention, activation. The contract is `base`'s."""

import logging
from importlib.util import find_spec

import torch
from tracereel.engine.attention import Attention, DecoderShape, GatherAttention
from tracereel.engine.layer_ops.base import LayerOps
from tracereel.engine.layer_ops.native_ops import NativeLayerOps, NativeOpsError
from tracereel.engine.layer_ops.torch_ops import TorchLayerOps

__all__ = ["ATTENTIONS", "LayerOps", "make_layer_ops", "make_triton_ops"]

ATTENTIONS = ("varlen", "triton")
"""Paged attention on CUDA devices, the preferred one first: a library's where one fits."""

_log = logging.getLogger(__name__)


def make_layer_ops(shape: DecoderShape, block_size: int, *, batch_invariant: bool = False) -> LayerOps:
    """The fastest operations that are available here for this model; they have no KV cache yet (`allocate`)."""
    if shape.device.type == "cuda":
        if find_spec("triton") is not None:
            return make_triton_ops(shape, block_size, batch_invariant=batch_invariant)
        _log.info("the Triton operations are not used: triton is not installed")
    try:
        return NativeLayerOps(shape, block_size)
    except NativeOpsError as error:
        _log.info("the C operations are not used: %s", error)
    return TorchLayerOps(shape, block_size, GatherAttention(shape, block_size))


def make_triton_ops(
    shape: DecoderShape, block_size: int, attentions: tuple[str, ...] = ATTENTIONS, *, batch_invariant: bool = False
) -> LayerOps:
    """The operations in Triton around the first of `attentions` that is available. Raises VarlenError."""
    from tracereel.engine.attention.decode import DecodeAttention
    from tracereel.engine.attention.triton_paged import TritonAttention
    from tracereel.engine.layer_ops.fused_products import FusedProducts
    from tracereel.engine.layer_ops.triton_ops import TritonLayerOps

    pdl = _has_pdl(shape.device)
    if batch_invariant:
        attention: Attention = TritonAttention(shape, pdl=pdl, batch_invariant=True)
        return TritonLayerOps(shape, block_size, attention, pdl=pdl)
    attention = _paged_attention(shape, block_size, attentions, pdl)
    decode = DecodeAttention(shape, pdl=pdl) if isinstance(attention, TritonAttention) else None
    return TritonLayerOps(shape, block_size, attention, decode, FusedProducts(shape.epsilon, pdl=pdl), pdl=pdl)


def _has_pdl(device: torch.device) -> bool:
    """Does the device take programmatic dependent launches (compute capability 9.0 and above)?"""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def _paged_attention(shape: DecoderShape, block_size: int, attentions: tuple[str, ...], pdl: bool) -> Attention:
    from tracereel.engine.attention.triton_paged import TritonAttention
    from tracereel.engine.attention.varlen import VarlenAttention, VarlenError

    if attentions[0] == "varlen":
        try:
            return VarlenAttention(shape, block_size)
        except VarlenError as error:
            if len(attentions) == 1:
                raise
            _log.info("torch's paged attention is not used: %s", error)
    return TritonAttention(shape, pdl=pdl)
