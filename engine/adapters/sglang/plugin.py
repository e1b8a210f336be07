"""With TRACEREEL_SGLANG=FOLDER in the environment SGLang is recorded; without it nothing is imported or changed."""

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

from tracereel.engine.adapters.sglang.pieces import refuse

ENVIRONMENT = "TRACEREEL_SGLANG"
SCHEDULER = "sglang.srt.managers.scheduler"
METHODS = (
    "run_event_loop",
    "_add_request_to_queue",
    "send_abort_output",
    "get_next_batch_to_run",
    "process_batch_result",
)
"""The scheduler's methods that are followed: each has a wrapper of that name in `taps`, less the underscore."""


def plugin() -> None:
    """Have SGLang's registry wrap the scheduler's methods. Raises AdapterError where one is not there."""
    if not os.environ.get(ENVIRONMENT):
        return
    hooks = import_module("sglang.srt.plugins.hook_registry")
    scheduler = getattr(import_module(SCHEDULER), "Scheduler", None)
    refuse([f"Scheduler.{name}" for name in METHODS if not hasattr(scheduler, name)])
    for name in METHODS:
        hooks.HookRegistry.register(f"{SCHEDULER}.Scheduler.{name}", _around(name), hooks.HookType.AROUND)


def _around(name: str) -> Callable[..., Any]:
    """A wrapper that imports the taps only in the process that has a scheduler."""

    def around(original: Callable[..., Any], scheduler: Any, *args: Any, **kwargs: Any) -> Any:
        taps = import_module("tracereel.engine.adapters.sglang.taps")
        return getattr(taps, name.lstrip("_"))(original, scheduler, *args, **kwargs)

    return around
