"""What lies between the matrix products: the contract in `base`, one implementation a file beside it."""

import logging
from importlib.util import find_spec

from tracereel.engine.attention import DecoderShape, GatherAttention, PagedAttention
from tracereel.engine.kernels.base import DeviceKernels, Kernels
from tracereel.engine.kernels.native import NativeKernels, NativeKernelsError
from tracereel.engine.kernels.plain import TorchKernels

__all__ = ["ATTENTIONS", "DeviceKernels", "Kernels", "make_device_kernels", "make_kernels"]

ATTENTIONS = ("varlen", "triton")
"""Paged attention on CUDA devices, the one that is preferred first: a library's where one fits."""

_log = logging.getLogger(__name__)


def make_kernels(shape: DecoderShape, num_blocks: int, block_size: int) -> Kernels:
    """The quickest kernels that can be had here for this model, with room for `num_blocks` KV blocks."""
    try:
        return NativeKernels(shape, num_blocks, block_size)
    except NativeKernelsError as error:
        _log.info("the C kernels are not used: %s", error)
    return TorchKernels(shape, GatherAttention(shape, num_blocks, block_size))


def make_device_kernels(
    shape: DecoderShape, num_blocks: int, block_size: int, attentions: tuple[str, ...] = ATTENTIONS
) -> DeviceKernels | None:
    """The kernels for a CUDA device, around the first of `attentions` that can be had; None without Triton."""
    if find_spec("triton") is None:
        _log.info("the Triton kernels are not used: triton is not installed")
        return None
    from tracereel.engine.kernels.fused import TritonKernels

    return TritonKernels(shape, num_blocks, block_size, _paged_attention(shape, block_size, attentions))


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
