"""What lies between the matrix products: the contract in `base`, one implementation a file beside it."""

import logging

from tracereel.engine.attention import DecoderShape, GatherAttention
from tracereel.engine.kernels.base import Kernels
from tracereel.engine.kernels.native import NativeKernels, NativeKernelsError
from tracereel.engine.kernels.plain import TorchKernels

__all__ = ["Kernels", "make_kernels"]

_log = logging.getLogger(__name__)


def make_kernels(shape: DecoderShape, num_blocks: int, block_tokens: int) -> Kernels:
    """The quickest kernels that can be had here for this model, with room for `num_blocks` KV blocks."""
    try:
        return NativeKernels(shape, num_blocks, block_tokens)
    except NativeKernelsError as error:
        _log.info("the C kernels are not used: %s", error)
    return TorchKernels(shape, GatherAttention(shape, num_blocks, block_tokens))
