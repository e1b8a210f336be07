"""The block tables of sequences: how many blocks they need, which of their tokens are there already, what they hold.

Knows sequences and the block pool. Does not know the KV itself, which is the attention backend's, nor when a sequence
gets blocks, which is the scheduler's.
"""

from dataclasses import dataclass

from tracereel.engine.block_pool import START, BlockPool
from tracereel.engine.config import EngineConfig
from tracereel.engine.request import Sequence


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of a sequence's tokens as the cache holds it: the blocks, their content's number, the tokens."""

    blocks: list[int]
    number: int
    tokens: int


class KVCacheManager:
    """Block tables over one pool; with `enable_prefix_caching` full blocks are found again by what they hold.

    A block is offered to others once the step that computed its last token is done, and only whole blocks are shared,
    to which nothing is written any more.
    """

    def __init__(self, config: EngineConfig):
        self.pool = BlockPool(config.num_blocks)
        self._block_size = config.block_size
        self._caches = config.enable_prefix_caching

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-tokens // self._block_size)

    def find_prefix(self, sequence: Sequence) -> Prefix:
        """What the cache holds of the beginning of the sequence's tokens.

        Its last token is never part of it: that has to be computed to know what follows.
        """
        blocks: list[int] = []
        number = START
        if self._caches:
            size, token_ids = self._block_size, sequence.token_ids
            for end in range(size, len(token_ids), size):
                hit = self.pool.find((number, tuple(token_ids[end - size : end])))
                if hit is None:
                    break
                block, number = hit
                blocks.append(block)
        return Prefix(blocks, number, len(blocks) * self._block_size)

    def fits(self, sequence: Sequence, prefix: Prefix) -> bool:
        """Are there blocks for all tokens the sequence has? With fewer it would be preempted before it gave one."""
        new = self.blocks_for(len(sequence.token_ids)) - len(prefix.blocks)
        return new + sum(map(self.pool.is_free, prefix.blocks)) <= self.pool.num_free

    def enter(self, sequence: Sequence, prefix: Prefix) -> None:
        """Begin the sequence's block table with what the cache holds of it."""
        self.pool.share(prefix.blocks)
        sequence.block_table = list(prefix.blocks)
        sequence.prefix, sequence.num_full_blocks = prefix.number, len(prefix.blocks)
        sequence.num_computed_tokens = prefix.tokens

    def grow(self, sequence: Sequence, tokens: int) -> list[int] | None:
        """Let the block table hold `tokens` tokens; returns the new blocks, None where too few are free."""
        need = self.blocks_for(tokens) - len(sequence.block_table)
        if need > self.pool.num_free:
            return None
        if need <= 0:
            return []
        blocks = self.pool.take(need)
        sequence.block_table.extend(blocks)
        return blocks

    def remember(self, sequence: Sequence) -> None:
        """Offer the blocks that the sequence's computed tokens have filled."""
        size = self._block_size
        full = sequence.num_computed_tokens // size
        if self._caches:
            for i in range(sequence.num_full_blocks, full):
                content = (sequence.prefix, tuple(sequence.token_ids[i * size : (i + 1) * size]))
                sequence.prefix = self.pool.remember(sequence.block_table[i], content)
        sequence.num_full_blocks = full

    def leave(self, sequence: Sequence) -> None:
        """Take the sequence's blocks back."""
        self.pool.give_back(sequence.block_table)
        sequence.block_table = []
