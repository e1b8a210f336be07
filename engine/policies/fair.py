"""Fair by tokens served: the client that was served least is next, however many requests each sends.

The virtual token counter of Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024. Each client has a
counter of the tokens it was served, an output token weighing twice a prompt token. A free slot goes to the waiting
client with the lowest counter. A client that comes back after having had nothing in the queue starts no lower than the
lowest of those that wait, so that idle time is not saved up. Requests without a client are one client together.
"""

from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence as Many
from typing import ClassVar

from tracereel.engine.policies.base import Batch, Policy
from tracereel.engine.request import Sequence

PROMPT_WEIGHT = 1
OUTPUT_WEIGHT = 2
"""What a token adds to its client's counter; the paper's weights."""

Client = str | None


class Fair(Policy):
    """Admit from the least served client of the most urgent priority; advance all; the most served client gives way."""

    name: ClassVar[str] = "fair"
    counts_service: ClassVar[bool] = True

    def __init__(self) -> None:
        self._served: Counter[Client] = Counter()
        """The virtual token counters."""
        self._last: Client = None
        """The client whose request was admitted last."""

    def arrived(self, sequence: Sequence, waiting: Many[Sequence]) -> None:
        """Lift the counter of a client that had nothing in the queue to the lowest of those that wait."""
        client = sequence.request.client
        others = {other.request.client for other in waiting}
        if client not in others:
            floor = min((self._served[other] for other in others), default=self._served[self._last])
            self._served[client] = max(self._served[client], floor)

    def queue_order(self, batch: Batch) -> Iterator[Sequence]:
        """Asked for one at a time: an admission raises its client's counter before the next is chosen."""
        waiting = list(batch.waiting)
        while waiting:
            chosen = min(waiting, key=self._order)
            yield chosen
            waiting.remove(chosen)

    def admitted(self, sequence: Sequence) -> None:
        """Charge the prompt, once: a preempted request is not charged again."""
        self._last = sequence.request.client
        if sequence.last_step < 0:
            self._served[self._last] += PROMPT_WEIGHT * len(sequence.request.prompt_ids)

    def served(self, sequence: Sequence) -> None:
        """Charge an output token."""
        self._served[sequence.request.client] += OUTPUT_WEIGHT

    def gives_way(self, running: Many[Sequence]) -> Sequence:
        """The last one in the order of the queue."""
        return max(running, key=self._order)

    def _order(self, sequence: Sequence) -> tuple[int, int, int]:
        return sequence.request.priority, self._served[sequence.request.client], sequence.number
