"""The contract of a policy: who may enter the batch, and who advances in a step. Everything else is the scheduler's."""

from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import ClassVar, Protocol

from tracereel.engine.request import Sequence


@dataclass(frozen=True, slots=True)
class Batch:
    """What a policy may look at: the sequences that hold a slot, oldest first, and whether the batch just grew."""

    running: Many[Sequence]
    just_admitted: bool
    """Did the step before this one admit somebody?"""


class Policy(Protocol):
    """One way to batch; holds no state, so that a step depends only on the batch."""

    name: ClassVar[str]
    pads: ClassVar[bool]
    """Does the batch keep the width it was closed with, rows of finished members computed for nothing?"""

    def admits(self, batch: Batch) -> bool:
        """May waiting requests take free slots in this step?"""

    def advances(self, batch: Batch) -> Many[Sequence]:
        """Which of the running sequences are computed in this step, oldest first."""
