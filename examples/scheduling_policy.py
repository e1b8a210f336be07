"""A scheduling policy: the request that came last gets the next free slot.

    python examples/scheduling_policy.py        # shows in which order eight requests get two slots

A policy decides what the scheduler asks it for, and inherits the rest from `Policy`. Inside the package it is a file of
engine/policies/ and a line in `POLICIES`; here the same line registers it from outside.
"""

from collections.abc import Iterable
from collections.abc import Sequence as Many
from typing import ClassVar

from tracereel.engine.config import EngineConfig
from tracereel.engine.policies import POLICIES
from tracereel.engine.policies.base import Batch, Policy
from tracereel.engine.request import Request, SamplingParams, Sequence
from tracereel.engine.scheduler import Scheduler


class LastComeFirstServed(Policy):
    """Continuous batching in which the newest waiting request is admitted first, and the oldest running gives way."""

    name: ClassVar[str] = "last-come-first-served"

    def queue_order(self, batch: Batch) -> Iterable[Sequence]:
        """By priority, then the newest first."""
        return sorted(batch.waiting, key=_order)

    def gives_way(self, running: Many[Sequence]) -> Sequence:
        """The last one in the order of the queue, when blocks run out."""
        return max(running, key=_order)


def _order(sequence: Sequence) -> tuple[int, int]:
    return sequence.request.priority, -sequence.number


POLICIES[LastComeFirstServed.name] = LastComeFirstServed


def admission_order(policy: str) -> list[str]:
    """The ids of eight requests in the order in which a policy gives them two slots; no model is needed."""
    scheduler = Scheduler(EngineConfig(policy=policy, max_num_seqs=2, num_blocks=32, max_model_len=64))
    for number in range(8):
        request = Request(f"request-{number}", (1, 2, 3), SamplingParams(max_tokens=2, ignore_eos=True))
        scheduler.add(number, request, arrival_ns=number)
    order: list[str] = []
    while scheduler.has_work and (plan := scheduler.schedule(now_ns=100)):
        order += [f"request-{admission.request}" for admission in plan.admitted]
        scheduler.update(plan, [1] * sum(plan.samples))
    return order


if __name__ == "__main__":
    for name in ("continuous", LastComeFirstServed.name):
        print(f"{name}: {', '.join(admission_order(name))}")
