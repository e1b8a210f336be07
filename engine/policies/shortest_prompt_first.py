"""Shortest prompt first: continuous batching whose queue is ordered by the length of the prompts.

Short requests do not wait behind long ones, which lowers the mean time to the first token (shortest job first). A long
prompt waits for as long as shorter ones keep coming: nothing here prevents its starvation.
"""

import heapq
from collections.abc import Iterator
from collections.abc import Sequence as Many
from typing import ClassVar

from tracereel.engine.policies.base import Batch, Policy
from tracereel.engine.request import Sequence


class ShortestPromptFirst(Policy):
    """Admit the shortest prompt of the most urgent priority first; advance all; the longest prompt gives way."""

    name: ClassVar[str] = "shortest-prompt-first"

    def queue_order(self, batch: Batch) -> Iterator[Sequence]:
        """By priority, then by the prompt's length, then by age."""
        heap = [(*_order(sequence), sequence) for sequence in batch.waiting]
        heapq.heapify(heap)
        while heap:
            yield heapq.heappop(heap)[-1]

    def gives_way(self, running: Many[Sequence]) -> Sequence:
        """The last one in the order of the queue."""
        return max(running, key=_order)


def _order(sequence: Sequence) -> tuple[int, int, int]:
    return sequence.request.priority, len(sequence.request.prompt_ids), sequence.number
