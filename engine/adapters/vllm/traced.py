"""vLLM's schedulers with a tap: each does what vLLM's does, and reports it."""

import time
from functools import cache
from typing import Any

from tracereel.engine.adapters.vllm.settings import Settings
from tracereel.engine.adapters.vllm.tap import Tap
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler


def chosen_scheduler(vllm_config: Any) -> Any:
    """The class of scheduler that vLLM takes for this configuration."""
    return AsyncScheduler if vllm_config.scheduler_config.async_scheduling else Scheduler


@cache
def traced(base: Any) -> Any:
    """A subclass of one of vLLM's schedulers that records what it does."""

    class TracedScheduler(base):  # type: ignore[misc]
        """vLLM's scheduler, with a tap."""

        def __init__(self, vllm_config: Any, *args: Any, **kwargs: Any):
            super().__init__(vllm_config, *args, **kwargs)
            self._tap = Tap(self, Settings.of(vllm_config))

        def add_request(self, request: Any) -> None:
            super().add_request(request)
            self._tap.arrived(request)

        def schedule(self, *args: Any, **kwargs: Any) -> Any:
            before, start_ns = self._tap.before(), time.monotonic_ns()
            plan = super().schedule(*args, **kwargs)
            self._tap.scheduled(plan, start_ns, time.monotonic_ns(), before)
            return plan

        def update_from_output(self, plan: Any, output: Any) -> Any:
            results = super().update_from_output(plan, output)
            self._tap.updated(plan, results, output, time.monotonic_ns())
            return results

        def finish_requests(self, request_ids: Any, finished_status: Any) -> Any:
            known = dict(self.requests)
            ended = super().finish_requests(request_ids, finished_status)
            for each in ended:
                # vLLM 0.25 gives the request's id and its client, later versions the request.
                self._tap.ended(known[each[0]] if isinstance(each, tuple) else each, time.monotonic_ns())
            return ended

        def shutdown(self) -> None:
            self._tap.close()
            super().shutdown()

    return TracedScheduler
