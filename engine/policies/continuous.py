"""Continuous batching: a free slot is retaken at the next step, and everybody advances in every step.

Iteration-level scheduling: Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models",
OSDI 2022.
"""

from collections.abc import Sequence as Many
from typing import ClassVar

from tracereel.engine.policies.base import Batch
from tracereel.engine.request import Sequence


class Continuous:
    """Admit whenever there is room; advance all."""

    name: ClassVar[str] = "continuous"
    pads: ClassVar[bool] = False

    def admits(self, batch: Batch) -> bool:
        """Always."""
        return True

    def advances(self, batch: Batch) -> Many[Sequence]:
        """All of them."""
        return batch.running
