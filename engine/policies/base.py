"""The contract of a policy: which requests enter the batch, which advance in a step, and which give way.

Everything else is the scheduler's.
"""

from collections.abc import Iterable
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import ClassVar

from tracereel.engine.config import EngineConfig
from tracereel.engine.request import Sequence


@dataclass(frozen=True, slots=True)
class Batch:
    """What a policy may look at, as it is before a step. Sequences are ordered by priority, then by age."""

    config: EngineConfig
    running: Many[Sequence]
    """The sequences that hold a slot."""
    waiting: Many[Sequence]
    just_admitted: bool
    """Did the step before this one admit a request?"""
    opened_ns: int
    """When the first running sequence was admitted into an empty batch."""
    now_ns: int
    """Engine time. There is no other clock: the same times give the same steps."""


class Policy:
    """One way to batch. By default it holds no state and takes the simplest choice.

    A policy that counts the tokens it has served keeps its state through `arrived`, `admitted` and `served`, so that
    the same calls give the same steps.
    """

    name: ClassVar[str]
    pads: ClassVar[bool] = False
    """Does the batch keep the width that it was closed with, and compute the rows of finished members for nothing?"""
    chunks: ClassVar[bool] = True
    """May a prompt be computed in several steps where the token budget is smaller than it?"""
    counts_service: ClassVar[bool] = False
    """Is `served` to be called for every output token?"""

    def admits(self, batch: Batch) -> int:
        """How many waiting requests may take free slots in this step: all."""
        return len(batch.waiting)

    def queue_order(self, batch: Batch) -> Iterable[Sequence]:
        """The waiting requests in the order in which they get free slots: by priority, then by age.

        The scheduler asks for the next one only once the one before is admitted, and no more than there are slots.
        """
        return batch.waiting[: batch.config.max_num_seqs]

    def gives_way(self, running: Many[Sequence]) -> Sequence:
        """The running request that is preempted when blocks run out: the last one by priority, then by age.

        Between two output tokens the choice must follow one fixed order, or two requests could preempt each other
        without end.
        """
        return running[-1]

    def advances(self, batch: Batch) -> Many[Sequence]:
        """Which of the running sequences are computed in this step, in their order: all."""
        return batch.running

    def opens_ns(self, batch: Batch) -> int:
        """The engine time from which an empty batch admits waiting requests: at once."""
        return batch.now_ns

    def arrived(self, sequence: Sequence, waiting: Many[Sequence]) -> None:
        """A request is about to enter the queue."""

    def admitted(self, sequence: Sequence) -> None:
        """A request takes a slot, for the first time or after a preemption."""

    def served(self, sequence: Sequence) -> None:
        """A request gets an output token."""
