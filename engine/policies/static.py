"""Static batching: a batch is filled, closed, and decoded until its longest member ends.

The rows of members that ended earlier stay in the batch and are computed for nothing, as in `generate` on a padded
batch. Prompts are not padded: unequal ones are prefilled as they are, which favours this baseline.
"""

from collections.abc import Sequence as Many
from typing import ClassVar

from tracereel.engine.policies.base import Batch
from tracereel.engine.request import Sequence


class Static:
    """Admit only into an empty batch; prefill all of it, then decode all of it."""

    name: ClassVar[str] = "static"
    pads: ClassVar[bool] = True

    def admits(self, batch: Batch) -> bool:
        """While the batch is empty or still being filled: one too large for a step's token budget takes several."""
        filling = batch.just_admitted and any(not sequence.decodes for sequence in batch.running)
        return filling or not batch.running

    def advances(self, batch: Batch) -> Many[Sequence]:
        """Those that prefill while there are any, then all."""
        prefilling = [sequence for sequence in batch.running if not sequence.decodes]
        return prefilling or batch.running
