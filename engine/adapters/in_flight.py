"""Steps on their way: between a step's schedule and its tokens other steps may be scheduled, and requests come and go.

Puts them one after the other. A step begins when its schedule is made, or, where an earlier one was still in flight,
when that one ends; the queues' lengths are those of that instant; what happens during a step is reported after it.
Takes time that does not grow with the batch, so that it may run on the engine's thread. Knows no engine.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from tracereel.engine.adapters.journal import Moment
from tracereel.trace.format.events import Arrival, Finish

Beside = Callable[[], Iterable[Arrival | Finish]]


class Counts(NamedTuple):
    """Requests that hold a slot, requests that wait, KV blocks held (None where that is not known)."""

    running: int
    waiting: int
    kv_used: int | None


@dataclass(slots=True)
class InFlightStep:
    """A step between its schedule and its tokens; times are monotonic nanoseconds.

    `plan` is the engine's own account of it, `before` and `made` are the counts around its schedule (`before` is needed
    only where a third step may be in flight), `counts` are those of the instant at which it begins, `after` makes the
    records of what happened during it.
    """

    plan: Any
    start_ns: int
    scheduled_ns: int
    before: Counts | None
    made: Counts
    counts: Counts
    begin_ns: int
    ahead: bool
    after: list[Beside] = field(default_factory=list)

    def moment(self, end_ns: int, zero_ns: int) -> Moment:
        """When it was, in a trace whose times count from `zero_ns`."""
        return Moment(
            start_ns=self.begin_ns - zero_ns,
            scheduled_ns=None if self.ahead else self.scheduled_ns - zero_ns,
            end_ns=end_ns - zero_ns,
            latency_ns=end_ns - self.start_ns if self.ahead else None,
            running=self.counts.running,
            waiting=self.counts.waiting,
            kv_used=self.counts.kv_used,
        )


class InFlightSteps:
    """The steps in flight, oldest first. `ahead` says whether the engine schedules ahead at all."""

    def __init__(self, ahead: bool):
        self.ahead = ahead
        self._in_flight: deque[InFlightStep] = deque()

    def __len__(self) -> int:
        return len(self._in_flight)

    def scheduled(self, plan: Any, start_ns: int, scheduled_ns: int, before: Counts | None, after: Counts) -> None:
        """A schedule was made; `before` and `after` are the counts around it.

        `before` may be None where no more than two steps are ever in flight.
        """
        begin_ns = scheduled_ns if self.ahead else start_ns
        self._in_flight.append(InFlightStep(plan, start_ns, scheduled_ns, before, after, after, begin_ns, self.ahead))

    def completed(self, end_ns: int, now: Counts | None) -> InFlightStep:
        """The tokens of the oldest step are there; `now` are the counts after that. The next step begins.

        `now` may be None where the engine never schedules ahead. Raises ValueError where counts are needed that were
        not given.
        """
        step = self._in_flight.popleft()
        if self._in_flight:
            if now is None:
                raise ValueError("a step was scheduled ahead by an engine that does not schedule ahead")
            # What schedules after the next one's have changed already is not yet so when it begins.
            for later in islice(self._in_flight, 1, None):
                if later.before is None:
                    raise ValueError("more steps are in flight than the engine says")
                now = _without(now, later.before, later.made)
            following = self._in_flight[0]
            following.counts, following.begin_ns = now, max(following.scheduled_ns, end_ns)
        return step

    @property
    def oldest(self) -> InFlightStep | None:
        """The step that runs."""
        return self._in_flight[0] if self._in_flight else None


def _without(now: Counts, before: Counts, made: Counts) -> Counts:
    """The counts `now` less what a schedule changed, which found `before` and left `made`."""
    kv_used = None
    if now.kv_used is not None and made.kv_used is not None and before.kv_used is not None:
        kv_used = now.kv_used - (made.kv_used - before.kv_used)
    running = now.running - (made.running - before.running)
    return Counts(running, now.waiting - (made.waiting - before.waiting), kv_used)
