"""Dynamic batching: static batches that wait only for a time to be full.

A batch is closed when as many wait as there are slots, or when one of them has waited for `max_wait_ms`; a
later request waits for the next batch. Inference servers do this for models that run a
batch whole, such as Triton's dynamic batcher with its `max_queue_delay_microseconds`.
"""

from itertools import takewhile
from typing import ClassVar

from tracereel.engine.policies.base import Batch
from tracereel.engine.policies.static import Static


class Dynamic(Static):
    """Admit into an empty batch once it is full or has waited long enough; then as static does."""

    name: ClassVar[str] = "dynamic"

    def admits(self, batch: Batch) -> int:
        """All when the batch opens; while it is being filled, the requests that were waiting when it opened."""
        if not batch.running:
            return len(batch.waiting) if batch.now_ns >= self.opens_ns(batch) else 0
        if not self.fills(batch):
            return 0
        return sum(1 for _ in takewhile(lambda sequence: sequence.arrival_ns <= batch.opened_ns, batch.waiting))

    def opens_ns(self, batch: Batch) -> int:
        """At once where enough wait; else when the oldest of them has waited for `max_wait_ms`."""
        if len(batch.waiting) >= batch.config.max_num_seqs:
            return batch.now_ns
        oldest_ns = min(sequence.arrival_ns for sequence in batch.waiting)
        return oldest_ns + batch.config.max_wait_ms * 1_000_000
