"""The pool of KV blocks: counts the holders of each block, and keeps the content of free blocks until they are needed.

Knows block numbers and, by key, the content of each block. Does not know sequences, nor which of them hold a block.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable

Content = tuple[int, tuple[int, ...]]
"""What a full block holds: which content precedes it, by its number (`START` where none), and its token ids."""

START = 0
"""The number of the empty content, before a sequence's first block."""


class BlockPool:
    """`num_blocks` blocks; free + used is always that number.

    A block may have several holders and is used while it has one. A free block whose content is known can be found by
    it and held again; it is given out for something else only where no other is free, the least recently used first.

    After the block pool of vLLM (Kwon et al., "Efficient Memory Management for Large Language Model Serving with
    PagedAttention", SOSP 2023). There a block's key is a hash of its tokens and of its predecessor's key. Here the
    predecessor is in the key as a number that no other content ever has, and a dict compares what it finds by
    value: contents with the same hash stay distinct.
    """

    def __init__(self, num_blocks: int):
        self.num_blocks = num_blocks
        self._blank = deque(range(num_blocks))
        self._kept: OrderedDict[int, None] = OrderedDict()
        """The free blocks whose content is known, the least recently used first."""
        self._holders = [0] * num_blocks
        self._found: dict[Content, tuple[int, int]] = {}
        """Content -> (block, the content's number)."""
        self._content: dict[int, Content] = {}
        self._numbers = START

    @property
    def num_free(self) -> int:
        """Blocks without a holder."""
        return len(self._blank) + len(self._kept)

    @property
    def num_used(self) -> int:
        """Blocks with a holder; one with several counts once."""
        return self.num_blocks - self.num_free

    def is_free(self, block: int) -> bool:
        """Has this block no holder?"""
        return not self._holders[block]

    def take(self, count: int) -> list[int]:
        """Take `count` free blocks. Raises IndexError where there are fewer: ask `num_free` first."""
        if count > self.num_free:
            raise IndexError(f"{count} blocks asked for, {self.num_free} free")
        blocks = []
        for _ in range(count):
            if self._blank:
                block = self._blank.popleft()
            else:
                block, _ = self._kept.popitem(last=False)
                del self._found[self._content.pop(block)]
            self._holders[block] = 1
            blocks.append(block)
        return blocks

    def share(self, blocks: Iterable[int]) -> None:
        """Add a holder to blocks that were found by their content, free or held."""
        for block in blocks:
            if not self._holders[block]:
                del self._kept[block]
            self._holders[block] += 1

    def give_back(self, blocks: list[int]) -> None:
        """Take a holder from each block. Raises KeyError where one is not in use.

        The last ones are the first to be forgotten: the later blocks of a sequence are of no use without the earlier.
        """
        for block in reversed(blocks):
            holders = self._holders[block] - 1
            if holders < 0:
                raise KeyError(block)
            self._holders[block] = holders
            if not holders:
                if block in self._content:
                    self._kept[block] = None
                else:
                    self._blank.append(block)

    def find(self, content: Content) -> tuple[int, int] | None:
        """The block that holds this content, and the content's number; None where no block is known to."""
        return self._found.get(content)

    def remember(self, block: int, content: Content) -> int:
        """Let a block in use be found by its content; returns the content's number.

        Where another block holds the same, that one stays the one to be found.
        """
        known = self._found.get(content)
        if known is not None:
            return known[1]
        self._numbers += 1
        self._found[content] = (block, self._numbers)
        self._content[block] = content
        return self._numbers
