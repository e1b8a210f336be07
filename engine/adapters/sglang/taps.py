"""Around the methods of one SGLang scheduler: each does what SGLang's does, and notes what went in and came out.

The engine goes on whatever happens here: a fault ends the recording with one line in the log.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from tracereel.engine.adapters import AdapterError
from tracereel.engine.adapters.sglang.pieces import installed, require, warn_of_untried
from tracereel.engine.adapters.sglang.plugin import ENVIRONMENT
from tracereel.engine.adapters.sglang.tap import Tap, refusal

logger = logging.getLogger("tracereel.sglang")
_ATTRIBUTE = "_tracereel_tap"


def run_event_loop(loop: Callable[..., Any], scheduler: Any, *args: Any, **kwargs: Any) -> Any:
    """The scheduler is built: record it until its loop ends."""
    parallel = import_module("sglang.srt.runtime_context").get_parallel()
    if parallel.tp_rank == 0:
        with _kept_going(scheduler):
            require(scheduler)
            warn_of_untried(installed())
            if why := refusal(scheduler, parallel):
                raise AdapterError(f"{why} cannot be recorded")
            setattr(scheduler, _ATTRIBUTE, Tap(scheduler, os.environ[ENVIRONMENT], parallel.dp_rank))
    try:
        return loop(scheduler, *args, **kwargs)
    finally:
        if (tap := _tap(scheduler)) is not None:
            with _kept_going(scheduler):
                tap.close()


def add_request_to_queue(add: Callable[..., Any], scheduler: Any, req: Any, is_retracted: bool = False) -> Any:
    """A request came, or came back because its KV had to make room."""
    at_ns = time.monotonic_ns()
    result = add(scheduler, req, is_retracted)
    if (tap := _tap(scheduler)) is not None:
        with _kept_going(scheduler):
            if is_retracted:
                tap.retracted(req.rid)
            elif any(waiting is req for waiting in scheduler.waiting_queue):
                tap.arrived(req, at_ns)
    return result


def abort_request(abort: Callable[..., Any], scheduler: Any, *args: Any, **kwargs: Any) -> Any:
    """Requests that wait may be taken out of the queue; those that run end with a later batch."""
    tap = _tap(scheduler)
    before = list(scheduler.waiting_queue) if tap is not None else []
    result = abort(scheduler, *args, **kwargs)
    if tap is not None:
        with _kept_going(scheduler):
            left = set(map(id, scheduler.waiting_queue))
            tap.aborted([req.rid for req in before if id(req) not in left], time.monotonic_ns())
    return result


def get_next_batch_to_run(choose: Callable[..., Any], scheduler: Any, *args: Any, **kwargs: Any) -> Any:
    """A schedule is made."""
    start_ns = time.monotonic_ns()
    plan = choose(scheduler, *args, **kwargs)
    if (tap := _tap(scheduler)) is not None and plan.batch_to_run is not None:
        with _kept_going(scheduler):
            tap.scheduled(plan.batch_to_run, start_ns, time.monotonic_ns())
    return plan


def process_batch_result(process: Callable[..., Any], scheduler: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
    """The tokens of the oldest batch on its way are there."""
    tap = _tap(scheduler)
    lengths = [len(req.output_ids) for req in batch.reqs] if tap is not None else []
    result = process(scheduler, batch, *args, **kwargs)
    if tap is not None:
        with _kept_going(scheduler):
            tap.completed(batch, lengths, time.monotonic_ns())
    return result


def _tap(scheduler: Any) -> Tap | None:
    return getattr(scheduler, _ATTRIBUTE, None)


@contextmanager
def _kept_going(scheduler: Any) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        logger.warning("tracereel: the recording ends here: %s", error)
        tap = _tap(scheduler)
        setattr(scheduler, _ATTRIBUTE, None)
        if tap is not None:
            tap.abandon()
