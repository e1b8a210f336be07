"""vLLM's schedulers with a tap: each does what vLLM's does, and reports it."""

import time
from functools import cache
from typing import Any

from tracereel.engine.adapters.vllm.pieces import piece
from tracereel.engine.adapters.vllm.settings import Settings
from tracereel.engine.adapters.vllm.tap import Tap

AsyncScheduler = piece("vllm.v1.core.sched.async_scheduler:AsyncScheduler")
Scheduler = piece("vllm.v1.core.sched.scheduler:Scheduler")


def chosen_scheduler(vllm_config: Any) -> Any:
    """The class of scheduler that vLLM takes for this configuration."""
    return AsyncScheduler if vllm_config.scheduler_config.async_scheduling else Scheduler


@cache
def traced(base: Any) -> Any:
    """A subclass of one of vLLM's schedulers that records what it does."""

    class TracedScheduler(base):  # type: ignore[misc]
        """vLLM's scheduler, with a tap. What goes wrong in the tap ends the recording; vLLM does not see it.

        The arguments have the names that they have in vLLM, which may pass them by name.
        """

        def __init__(self, vllm_config: Any, *args: Any, **kwargs: Any):
            super().__init__(vllm_config, *args, **kwargs)
            self._tap = Tap(self, Settings.of(vllm_config))

        def add_request(self, request: Any) -> None:
            super().add_request(request)
            try:
                self._tap.arrived(request)
            except Exception as error:
                self._tap.give_up(error)

        def schedule(self, *args: Any, **kwargs: Any) -> Any:
            before = None
            try:
                before = self._tap.before()
            except Exception as error:
                self._tap.give_up(error)
            start_ns = time.monotonic_ns()
            plan = super().schedule(*args, **kwargs)
            try:
                self._tap.scheduled(plan, start_ns, time.monotonic_ns(), before)
            except Exception as error:
                self._tap.give_up(error)
            return plan

        def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
            results = super().update_from_output(scheduler_output, model_runner_output)
            try:
                self._tap.updated(scheduler_output, results, model_runner_output, time.monotonic_ns())
            except Exception as error:
                self._tap.give_up(error)
            return results

        def finish_requests(self, request_ids: Any, finished_status: Any) -> Any:
            ended = super().finish_requests(request_ids, finished_status)
            try:
                reason = str(type(finished_status).get_finished_reason(finished_status))
                for each in ended:
                    # vLLM 0.25 gives the request's id and its client, later versions the request.
                    key = each[0] if isinstance(each, tuple) else each.request_id
                    self._tap.ended(key, reason, time.monotonic_ns())
            except Exception as error:
                self._tap.give_up(error)
            return ended

        def shutdown(self) -> None:
            self._tap.close()
            super().shutdown()

    return TracedScheduler
