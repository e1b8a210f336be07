"""The engine's step loop: schedule, run, update, record. For one thread; `online` makes it safe for many.

Knows scheduler, runner, clock and recorder. Does not know which model runs, nor when requests come.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import compress
from typing import Protocol

import msgspec
from tracereel.engine.config import EngineConfig
from tracereel.engine.request import Request, RequestError, Samples, TokenLogprobs, require_due
from tracereel.engine.runner import AsyncRunner, Runner
from tracereel.engine.scheduler import Scheduler, StepOutcome, StepPlan
from tracereel.engine.stop_strings import StopStrings
from tracereel.trace.format.bounds import shown
from tracereel.trace.format.events import Arrival, Finish, Step
from tracereel.trace.format.recorder import Recorder


class TextStream(Protocol):
    """Turns one request's token ids into text, one at a time."""

    def text(self, token_id: int, last: bool = False) -> str:
        """The text that this token completes."""


class Output(msgspec.Struct, frozen=True, gc=False):
    """One new token of a request; `finish_reason` is set on the last one. `time_ns` is when its id was on the host.

    `text` is what may be shown now: what the token completes, less what may yet become a stop string; what was held
    back comes with a later token. `logprobs` are there where the request asked for them.
    """

    request: int
    token_id: int
    text: str
    time_ns: int
    finish_reason: str | None
    logprobs: TokenLogprobs | None = None


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """The state of the engine: requests waiting, running, finished, cancelled; tokens out; KV blocks; steps made."""

    waiting: int
    running: int
    finished: int
    cancelled: int
    output_tokens: int
    kv_used: int
    kv_blocks: int
    steps: int
    uptime_s: float


@dataclass(frozen=True, slots=True)
class InFlightStep:
    """A step between its schedule and its tokens; `ahead`: scheduled before the step before it had ended."""

    plan: StepPlan
    wait: Callable[[], Samples]
    start_ns: int
    scheduled_ns: int
    ahead: bool


class Engine:
    """A continuous-batching engine, one `step()` at a time.

    `runner` executes the plans, `new_stream` makes the text decoder of a request, `end_ids` are the tokens that end
    one, `vocabulary` the number of tokens where that is known. With a recorder every arrival, step and cancellation
    is recorded on its clock.
    """

    def __init__(
        self,
        runner: Runner,
        config: EngineConfig,
        *,
        new_stream: Callable[[], TextStream],
        end_ids: frozenset[int] = frozenset(),
        vocabulary: int | None = None,
        recorder: Recorder | None = None,
    ):
        self.config = config
        self.scheduler = Scheduler(config, end_ids)
        self._runner = runner
        self._vocabulary = vocabulary
        self._new_stream = new_stream
        self._recorder = recorder
        self._zero_ns = recorder.header.clock.monotonic_ns if recorder else time.monotonic_ns()
        self._launches = runner if isinstance(runner, AsyncRunner) else None
        self._in_flight: InFlightStep | None = None
        """A step that was launched before the one before it had ended."""
        self._arrivals: list[Arrival] = []
        """Requests that came while that step was in flight: they are recorded after it."""
        self._early: list[Output] = []
        """Tokens that `step` has not yet given: a cancellation had to wait for their step."""
        self._end_ns = 0
        self._streams: dict[int, TextStream] = {}
        self._stops: dict[int, StopStrings] = {}
        self._requests = self._steps = self._finished = self._cancelled = self._output_tokens = 0

    def now_ns(self) -> int:
        """Engine time: nanoseconds since the zero of the recording, or since the engine was made."""
        return time.monotonic_ns() - self._zero_ns

    def require_fit(self, request: Request) -> None:
        """Raise NeverFitsError where the request could never be served, RequestError where one of its token
        ids is not in the vocabulary."""
        if not isinstance(request, Request):
            raise RequestError(f"request: {shown(request)} is not a Request")
        if self._vocabulary is not None and max(request.prompt_ids) >= self._vocabulary:
            raise RequestError(
                f"request {request.id!r}: prompt_ids: {max(request.prompt_ids)} is not in the vocabulary of"
                f" {self._vocabulary} tokens"
            )
        self.scheduler.require_fit(request)

    def add(self, request: Request, arrival_ns: int | None = None) -> int:
        """Put a request in the queue; returns its number.

        `arrival_ns` is the engine time at which it was due, now where that is not given. Raises NeverFitsError and
        RequestError.
        """
        self.require_fit(request)
        number = self._requests
        now = self.now_ns()
        due = now if arrival_ns is None else arrival_ns
        require_due(request, due, now)
        stream = self._new_stream()
        if self._recorder:  # first: a recorder that has failed raises, and then nothing has been added
            arrival = Arrival(
                request=number,
                id=request.id,
                arrival_ns=due,
                submitted_ns=now,
                prompt_tokens=len(request.prompt_ids),
                prompt=request.prompt,
                max_tokens=request.sampling.max_tokens,
                priority=request.priority,
            )
            if self._in_flight is None:
                self._recorder.record(arrival)
            else:  # the step in flight was scheduled before
                self._arrivals.append(arrival)
        self.scheduler.add(number, request, due)
        self._requests += 1
        self._streams[number] = stream
        if request.sampling.stop:
            self._stops[number] = StopStrings(request.sampling.stop, request.sampling.min_tokens)
        return number

    def cancel(self, number: int) -> bool:
        """End a request now, wherever it is; False where it has ended already.

        A step in flight is waited for; its tokens of other requests come with the next `step`.
        """
        if self._in_flight is not None:
            self._early += self._complete(self._in_flight, self.scheduler.update)
            self._in_flight = None
        if not self.scheduler.cancel(number):
            return False
        self._early = [output for output in self._early if output.request != number]
        self._forget(number)
        self._cancelled += 1
        if self._recorder:
            self._recorder.record(Finish(request=number, at_ns=self.now_ns(), reason="abort"))
        return True

    @property
    def has_work(self) -> bool:
        """Is a request waiting or running, or are there tokens that `step` has not yet given?"""
        return bool(self._early) or self.scheduler.has_work

    def ready_in_ns(self) -> int | None:
        """How long until `step` has something to do if no request comes or goes; None where there is no work.

        It is 0, except under a policy that waits for a batch to fill.
        """
        if self._early or self._in_flight is not None:
            return 0
        now = self.now_ns()
        ready = self.scheduler.ready_ns(now)
        return None if ready is None else max(0, ready - now)

    def step(self) -> list[Output]:
        """Make one step; returns the new tokens, none where there is nothing to do now (see `ready_in_ns`).

        Where the runner can be given a step before the one it runs is done, and that one's tokens cannot change it, the
        next step is scheduled and launched first: the device goes on while the host processes this step's tokens.
        """
        if self._early:
            early, self._early = self._early, []
            return early
        step, self._in_flight = self._in_flight or self._launch_step(), None
        if step is None:
            return []
        if self._launches is not None and self.scheduler.can_schedule_ahead(step.plan):
            self.scheduler.advance(step.plan)
            self._in_flight = self._launch_step(ahead=True)
            return self._complete(step, self.scheduler.commit_tokens)
        return self._complete(step, self.scheduler.update)

    def _launch_step(self, *, ahead: bool = False) -> InFlightStep | None:
        """Schedule a step and start it; None where there is nothing to do."""
        start_ns = self.now_ns()
        plan = self.scheduler.schedule(start_ns)
        if plan is None:
            return None
        scheduled_ns = self.now_ns()
        if self._launches is None:
            return InFlightStep(plan, partial(self._runner.execute, plan), start_ns, scheduled_ns, ahead)
        return InFlightStep(plan, self._launches.launch(plan), start_ns, scheduled_ns, ahead)

    def _complete(self, step: InFlightStep, update: Callable[[StepPlan, list[int]], StepOutcome]) -> list[Output]:
        """Wait for a step, `update` the scheduler with its tokens, and record it."""
        plan = step.plan
        samples = step.wait()
        end_ns = self.now_ns()
        tokens = samples.tokens
        outcome = update(plan, tokens)
        finished = outcome.finished
        reasons = {ending.request: ending.reason for ending in finished}
        producers = list(compress(plan.requests, plan.samples))
        streams = self._streams
        texts = [
            streams[request].text(token, request in reasons) for request, token in zip(producers, tokens, strict=True)
        ]
        shown = texts
        if self._stops:
            shown, met = self._watch(producers, texts, reasons)
            finished += [self.scheduler.finish(request, "stop") for request in met]
            reasons.update(dict.fromkeys(met, "stop"))
        for request in reasons:
            self._forget(request)
        self._finished += len(reasons)
        self._output_tokens += len(tokens)
        if self._recorder:
            self._record(self._recorder, step, samples, outcome, texts, end_ns)
        self._end_ns = end_ns
        self._steps += 1
        logprobs = samples.logprobs
        return [
            Output(request, token, text, end_ns, reasons.get(request), logprobs.get(row) if logprobs else None)
            for row, (request, token, text) in enumerate(zip(producers, tokens, shown, strict=True))
        ]

    def _record(
        self,
        recorder: Recorder,
        step: InFlightStep,
        samples: Samples,
        outcome: StepOutcome,
        texts: list[str],
        end_ns: int,
    ) -> None:
        """Record a step, and then the requests that came while it was in flight."""
        plan = step.plan
        recorder.record(
            Step(
                index=self._steps,
                # A step that was scheduled ahead begins when the one before it ends.
                start_ns=max(step.start_ns, self._end_ns),
                scheduled_ns=None if step.ahead else step.scheduled_ns,
                end_ns=end_ns,
                latency_ns=end_ns - step.start_ns if step.ahead else None,
                device_ns=samples.device_ns,
                # Before the first step the device may have waited since before the recording began.
                device_gap_ns=samples.device_gap_ns if self._steps else None,
                requests=plan.requests,
                slots=plan.slots,
                phases=plan.phases,
                positions=plan.positions,
                computed=list(map(len, plan.token_ids)),
                sampled=outcome.sampled,
                tokens=outcome.tokens,
                texts=texts,
                padding=plan.padding + samples.graph_padding,
                admitted=plan.admitted,
                preempted=plan.preempted,
                finished=outcome.finished,
                blocks=plan.blocks,
                waiting=plan.waiting,
                running=plan.running,
                kv_used=plan.kv_used,
            )
        )
        for arrival in self._arrivals:
            recorder.record(arrival)
        self._arrivals.clear()

    def _watch(self, producers: list[int], texts: list[str], reasons: dict[int, str]) -> tuple[list[str], list[int]]:
        """What of the texts may be shown, and which requests have met a stop string that no token has ended."""
        shown, met = list(texts), []
        for row, request in enumerate(producers):
            if stops := self._stops.get(request):
                shown[row] = stops.pass_on(texts[row], request in reasons)
                if stops.met and request not in reasons:
                    met.append(request)
        return shown, met

    def _forget(self, request: int) -> None:
        del self._streams[request]
        self._stops.pop(request, None)

    def metrics(self) -> EngineMetrics:
        """The engine's state between steps."""
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
