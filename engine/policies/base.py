"""The contract of a policy: who may enter the batch, and who advances in a step. Everything else is the scheduler's."""

from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import ClassVar

from tracereel.engine.config import EngineConfig
from tracereel.engine.request import Sequence


@dataclass(frozen=True, slots=True)
class Batch:
    """What a policy may look at, as it is before a step. Sequences stand in their order: by priority, then by age."""

    config: EngineConfig
    running: Many[Sequence]
    """The sequences that hold a slot."""
    waiting: Many[Sequence]
    just_admitted: bool
    """Did the step before this one admit somebody?"""
    opened_ns: int
    """When the first of those that run was admitted into an empty batch."""
    now_ns: int
    """Engine time. There is no other clock: the same times give the same steps."""


class Policy:
    """One way to batch; holds no state, so that a step depends only on the batch. Says the simplest thing by itself."""

    name: ClassVar[str]
    pads: ClassVar[bool] = False
    """Does the batch keep the width it was closed with, rows of finished members computed for nothing?"""
    chunks: ClassVar[bool] = True
    """May a prompt be computed in several steps where the token budget is smaller than it?"""

    def admits(self, batch: Batch) -> int:
        """How many of those that wait may take free slots in this step: all."""
        return len(batch.waiting)

    def advances(self, batch: Batch) -> Many[Sequence]:
        """Which of the running sequences are computed in this step, in their order: all."""
        return batch.running

    def opens_ns(self, batch: Batch) -> int:
        """The engine time from which an empty batch admits those that wait: at once."""
        return batch.now_ns
