"""Static batching: a batch is filled, closed, and decoded until its longest member ends.

The rows of members that ended earlier stay in the batch and are computed for nothing, as in `generate` on a padded
batch. Prompts are not padded: unequal ones are prefilled as they are, which favours this baseline.
"""

from collections.abc import Sequence as Many
from typing import ClassVar

from tracereel.engine.policies.base import Batch, Policy
from tracereel.engine.request import Sequence


class Static(Policy):
    """Admit only into an empty batch; prefill all of it, then decode all of it."""

    name: ClassVar[str] = "static"
    pads: ClassVar[bool] = True

    def admits(self, batch: Batch) -> int:
        """All while the batch is empty or being filled: one too large for a step's token budget takes several."""
        return len(batch.waiting) if not batch.running or self.fills(batch) else 0

    @staticmethod
    def fills(batch: Batch) -> bool:
        """Is the batch not yet closed?"""
        return batch.just_admitted and any(sequence.prefills for sequence in batch.running)

    def advances(self, batch: Batch) -> Many[Sequence]:
        """Those that prefill while there are any, then all."""
        prefilling = [sequence for sequence in batch.running if sequence.prefills]
        return prefilling or batch.running
