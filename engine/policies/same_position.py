"""Same-position batching: slots are refilled at once, but a step decodes only sequences at the same position.

An engine does this where its attention takes one length for the whole batch: sequences of unequal length cannot share
a step, so the groups take turns. The group served longest ago is next, so that every sequence advances.
"""

from collections.abc import Sequence as Many
from typing import ClassVar

from tracereel.engine.policies.base import Batch, Policy
from tracereel.engine.request import Sequence


class SamePosition(Policy):
    """Admit whenever there is room; advance those that prefill and one group that decodes."""

    name: ClassVar[str] = "same-position"

    def advances(self, batch: Batch) -> Many[Sequence]:
        """Those that prefill, and the decoding sequences at the position of the one that has waited longest."""
        decoding = [sequence for sequence in batch.running if not sequence.prefills]
        if not decoding:
            return batch.running
        position = min(decoding, key=lambda sequence: (sequence.last_step, sequence.rank)).num_computed_tokens
        return [sequence for sequence in batch.running if sequence.prefills or sequence.num_computed_tokens == position]
