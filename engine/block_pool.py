"""The pool of KV blocks. Knows block numbers, not what is in them and not whose they are."""

from collections import deque


class BlockPool:
    """`num_blocks` blocks; free + used is always that number.

    After the block manager of vLLM (Kwon et al., "Efficient Memory Management for Large Language Model Serving with
    PagedAttention", SOSP 2023).
    """

    def __init__(self, num_blocks: int):
        self.num_blocks = num_blocks
        self._free = deque(range(num_blocks))
        self._used: set[int] = set()

    @property
    def num_free(self) -> int:
        """Blocks that nobody holds."""
        return len(self._free)

    @property
    def num_used(self) -> int:
        """Blocks that somebody holds."""
        return len(self._used)

    def take(self, count: int) -> list[int]:
        """Take `count` free blocks. Raises IndexError where there are fewer: ask `num_free` first."""
        if count > len(self._free):
            raise IndexError(f"{count} blocks asked for, {len(self._free)} free")
        blocks = [self._free.popleft() for _ in range(count)]
        self._used.update(blocks)
        return blocks

    def give_back(self, blocks: list[int]) -> None:
        """Return blocks. Raises KeyError where one is not in use."""
        for block in blocks:
            self._used.remove(block)
        self._free.extend(blocks)
