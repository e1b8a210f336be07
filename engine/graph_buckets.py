"""The shapes of steps for which CUDA graphs are captured: known from the configuration alone. No torch.

A step is padded to the smallest captured shape that holds it. The sizes of steps in which all decode are close to each
other, because a row costs much in a small batch. Steps with prefills are captured by (decode rows, prefill tokens),
both in powers of two, as vLLM (FULL_AND_PIECEWISE) and SGLang do.
"""

from dataclasses import dataclass
from itertools import pairwise

from tracereel.engine.config import EngineConfig
from tracereel.engine.model_inputs import StepShape

FEWEST_PREFILL_TOKENS = 16
FEWEST_MIXED_ROWS = 8


def decode_sizes(most: int) -> list[int]:
    """The numbers of rows, up to `most`, for which a step is captured in which all decode."""
    sizes = [1, 2, 4, 8, *range(16, 128, 16), *range(128, 256, 32), *range(256, most, 64)]
    return [size for size in sizes if size < most] + [most]


def _powers(first: int, most: int) -> list[int]:
    sizes = []
    while first < most:
        sizes.append(first)
        first *= 2
    return [*sizes, most]


@dataclass(frozen=True)
class GraphBuckets:
    """The captured shapes under a configuration, attention's tiles being of `tile_tokens` tokens."""

    config: EngineConfig
    tile_tokens: int

    @property
    def decode_rows(self) -> list[int]:
        """Rows of the steps in which all decode."""
        return decode_sizes(self.config.max_num_seqs)

    @property
    def mixed_rows(self) -> list[int]:
        """Decoding rows of the steps in which some prefill."""
        most = self.config.max_num_seqs - 1
        return [0, *_powers(FEWEST_MIXED_ROWS, most)] if most else [0]

    @property
    def prefill_tokens(self) -> list[int]:
        """Prefill tokens of the steps in which some prefill."""
        return _powers(FEWEST_PREFILL_TOKENS, self.config.max_num_batched_tokens)

    def shapes(self) -> list[StepShape]:
        """All shapes that a step of this configuration can be padded to, the smallest first."""
        decodes = [StepShape(rows, rows, 0, rows, rows) for rows in self.decode_rows]
        mixed = []
        for fewest_rows, rows in _ranges([-1, *self.mixed_rows]):
            for fewest_tokens, tokens in _ranges([0, *self.prefill_tokens]):
                if fewest_rows + fewest_tokens <= self.config.max_num_batched_tokens:
                    mixed.append(self._mixed(rows, tokens))
        return sorted(decodes + mixed, key=lambda shape: (shape.tokens, shape.decodes, shape.tiles))

    def _mixed(self, rows: int, tokens: int) -> StepShape:
        config = self.config
        chunks = min(tokens, config.max_num_seqs)
        return StepShape(
            decodes=rows,
            tokens=rows + tokens,
            tiles=min(tokens, -(-tokens // self.tile_tokens) + chunks),
            samples=min(config.max_num_seqs, rows + chunks),
            writes=rows + tokens // config.block_size + 2 * chunks,
        )

    def __str__(self) -> str:
        """What a header says was captured."""
        rows, mixed, tokens = (
            " ".join(map(str, sizes)) for sizes in (self.decode_rows, self.mixed_rows, self.prefill_tokens)
        )
        return f"decode rows {rows}; prefill tokens {tokens} with decode rows {mixed}"


def bucket_for(shapes: list[StepShape], own: StepShape) -> StepShape | None:
    """The first of `shapes`, the smallest first, that holds a step of this shape; None where none does."""
    decodes_alone = own.tokens == own.decodes
    for shape in shapes:
        if (shape.tokens == shape.decodes) == decodes_alone and shape.holds(own):
            return shape
    return None


def _ranges(sizes: list[int]) -> list[tuple[int, int]]:
    """(the fewest that need this size, the size) of each size but the first."""
    return [(before + 1, size) for before, size in pairwise(sizes)]
