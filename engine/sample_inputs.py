"""How a step's tokens are drawn, as numbers that travel to the device with the step's other inputs. No torch.

The random number of a draw depends on its request's seed and on how many tokens the request has: the host knows both
before it knows the tokens, so that a step that draws can be launched before the step ahead of it is done.
"""

import struct
from collections.abc import Sequence as Many

import numpy as np
import numpy.typing as npt
from tracereel.engine.request import SampleSpec

SAMPLE_FIELDS = ("temperature", "top_k", "top_p", "min_p", "random_low", "random_high")
"""The rows of a step's sampling array: floats by their bits, the random number as a 64-bit fraction in two halves."""


def random_bits(key: tuple[int, int], index: int) -> int:
    """53 random bits that depend on the key and the index and on nothing else.

    From the counter-based generator Philox (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011).
    """
    words = np.random.Philox(key=np.array(key, dtype=np.uint64), counter=[index, 0, 0, 0]).random_raw(1)
    return int(words[0] >> np.uint64(11))


def random_number(key: tuple[int, int], index: int) -> float:
    """`random_bits` as a number in [0, 1)."""
    return random_bits(key, index) / 2**53


def fill_sample_fields(fields: npt.NDArray[np.int32], specs: Many[SampleSpec | None]) -> None:
    """Write the specs into the columns of `fields` [fields, samples]; greedy ones and padding are zeros."""
    fields[:] = 0
    for column, spec in enumerate(specs):
        if spec is not None and spec.params.temperature:
            params = spec.params
            low, high = _halves(random_bits(spec.key, spec.index))
            fields[:, column] = (
                _bits(params.temperature),
                min(params.top_k, 2**31 - 1),
                _bits(params.top_p),
                _bits(params.min_p),
                low,
                high,
            )


def _bits(value: float) -> int:
    """The bits of an fp32 number as an int32."""
    return int(np.float32(value).view(np.int32))


def _halves(bits: int) -> tuple[int, int]:
    low, high = struct.unpack("<ii", struct.pack("<q", bits))
    return low, high
