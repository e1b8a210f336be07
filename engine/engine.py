"""The engine's step loop: schedule, run, update, record. One thread's; `online` makes it safe for many.

Knows scheduler, runner, clock and recorder. Does not know which model runs, nor when requests come.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import compress
from typing import Protocol

import msgspec
from tracereel.engine.config import EngineConfig
from tracereel.engine.request import Request
from tracereel.engine.runner import Runner
from tracereel.engine.scheduler import Scheduler
from tracereel.trace.events import Arrival, Finish, Step
from tracereel.trace.recorder import Recorder


class TextStream(Protocol):
    """Turns one request's token ids into text, one at a time."""

    def text(self, token_id: int, last: bool = False) -> str:
        """The text that this token completes."""


class Output(msgspec.Struct, frozen=True, gc=False):
    """One new token of a request; `finish_reason` is set on the last one. `time_ns` is when its id was on the host."""

    request: int
    token_id: int
    text: str
    time_ns: int
    finish_reason: str | None


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """Where the engine stands: requests waiting, running, finished, cancelled; tokens out; KV blocks; steps made."""

    waiting: int
    running: int
    finished: int
    cancelled: int
    output_tokens: int
    kv_used: int
    kv_blocks: int
    steps: int
    uptime_s: float


class Engine:
    """A continuous-batching engine, one `step()` at a time.

    `runner` executes the plans, `new_stream` makes the text decoder of a request, `end_ids` are the tokens that end
    one. With a recorder every arrival, step and cancellation is recorded on its clock.
    """

    def __init__(
        self,
        runner: Runner,
        config: EngineConfig,
        *,
        new_stream: Callable[[], TextStream],
        end_ids: frozenset[int] = frozenset(),
        recorder: Recorder | None = None,
    ):
        self.config = config
        self.scheduler = Scheduler(config, end_ids)
        self._runner = runner
        self._new_stream = new_stream
        self._recorder = recorder
        self._zero_ns = recorder.header.clock.monotonic_ns if recorder else time.monotonic_ns()
        self._streams: dict[int, TextStream] = {}
        self._requests = self._steps = self._finished = self._cancelled = self._output_tokens = 0

    def now_ns(self) -> int:
        """Engine time: nanoseconds since the zero of the recording, or since the engine was made."""
        return time.monotonic_ns() - self._zero_ns

    def add(self, request: Request, arrival_ns: int | None = None) -> int:
        """Put a request in the queue; returns its number.

        `arrival_ns` is the engine time at which it was due, now where that is not given. Raises NeverFitsError.
        """
        number = self._requests
        now = self.now_ns()
        due = now if arrival_ns is None else arrival_ns
        self.scheduler.add(number, request, due)
        self._requests += 1
        if self._recorder:
            self._recorder.record(
                Arrival(
                    request=number,
                    id=request.id,
                    arrival_ns=due,
                    submitted_ns=now,
                    prompt_tokens=len(request.prompt_ids),
                    prompt=request.prompt,
                    max_tokens=request.sampling.max_tokens,
                    priority=request.priority,
                )
            )
        self._streams[number] = self._new_stream()
        return number

    def cancel(self, number: int) -> bool:
        """End a request now, wherever it is; False where it has ended already."""
        if not self.scheduler.cancel(number):
            return False
        del self._streams[number]
        self._cancelled += 1
        if self._recorder:
            self._recorder.record(Finish(request=number, at_ns=self.now_ns(), reason="abort"))
        return True

    @property
    def has_work(self) -> bool:
        """Is anybody waiting or running?"""
        return self.scheduler.has_work

    def ready_in_ns(self) -> int | None:
        """How long until `step` has something to do if nobody comes or goes: 0 but under a policy that waits for a
        batch to fill; None where there is no work."""
        now = self.now_ns()
        ready = self.scheduler.ready_ns(now)
        return None if ready is None else max(0, ready - now)

    def step(self) -> list[Output]:
        """Make one step; returns the new tokens, none where there is nothing to do now (see `ready_in_ns`)."""
        start_ns = self.now_ns()
        plan = self.scheduler.schedule(start_ns)
        if plan is None:
            return []
        scheduled_ns = self.now_ns()
        tokens = self._runner.execute(plan)
        end_ns = self.now_ns()
        outcome = self.scheduler.update(plan, tokens)
        reasons = {ending.request: ending.reason for ending in outcome.finished}
        producers = list(compress(plan.requests, plan.samples))
        streams = self._streams
        texts = [
            streams[request].text(token, request in reasons) for request, token in zip(producers, tokens, strict=True)
        ]
        for request in reasons:
            del self._streams[request]
        self._finished += len(reasons)
        self._output_tokens += len(tokens)
        if self._recorder:
            self._recorder.record(
                Step(
                    index=self._steps,
                    start_ns=start_ns,
                    scheduled_ns=scheduled_ns,
                    end_ns=end_ns,
                    requests=plan.requests,
                    slots=plan.slots,
                    phases=plan.phases,
                    positions=plan.positions,
                    computed=list(map(len, plan.token_ids)),
                    sampled=outcome.sampled,
                    tokens=outcome.tokens,
                    texts=texts,
                    padding=plan.padding,
                    admitted=plan.admitted,
                    preempted=plan.preempted,
                    finished=outcome.finished,
                    blocks=plan.blocks,
                    waiting=plan.waiting,
                    running=plan.running,
                    kv_used=plan.kv_used,
                )
            )
        self._steps += 1
        return [
            Output(request, token, text, end_ns, reasons.get(request))
            for request, token, text in zip(producers, tokens, texts, strict=True)
        ]

    def metrics(self) -> EngineMetrics:
        """Where the engine stands between steps."""
        scheduler = self.scheduler
        return EngineMetrics(
            waiting=len(scheduler.waiting),
            running=len(scheduler.running),
            finished=self._finished,
            cancelled=self._cancelled,
            output_tokens=self._output_tokens,
            kv_used=scheduler.pool.num_used,
            kv_blocks=scheduler.pool.num_blocks,
            steps=self._steps,
            uptime_s=self.now_ns() / 1e9,
        )
