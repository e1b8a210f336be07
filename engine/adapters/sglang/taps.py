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
from tracereel.engine.adapters.pieces import warn_of_untried
from tracereel.engine.adapters.sglang.pieces import TRIED, installed, require
from tracereel.engine.adapters.sglang.plugin import ENVIRONMENT
from tracereel.engine.adapters.sglang.tap import Tap, refusal

logger = logging.getLogger("tracereel.sglang")
_ATTRIBUTE = "_tracereel_tap"


def run_event_loop(loop: Callable[..., Any], scheduler: Any, *args: Any, **kwargs: Any) -> Any:
    """The scheduler is built: record it until its loop ends."""
    with _kept_going(scheduler):
        parallel = import_module("sglang.srt.runtime_context").get_parallel()
        if parallel.tp_rank == 0:
            require(scheduler)
            warn_of_untried(logger, "SGLang", installed(), TRIED)
            if why := refusal(scheduler, parallel):
                raise AdapterError(f"{why} cannot be recorded")
            setattr(scheduler, _ATTRIBUTE, Tap(scheduler, os.environ[ENVIRONMENT], parallel))
    try:
        return loop(scheduler, *args, **kwargs)
    finally:
        if (tap := _tap(scheduler)) is not None:
            with _kept_going(scheduler):
                tap.close()


def add_request_to_queue(add: Callable[..., Any], scheduler: Any, req: Any, *args: Any, **kwargs: Any) -> Any:
    """A request came, or came back: its KV had to make room, or SGLang was paused."""
    at_ns = time.monotonic_ns()
    result = add(scheduler, req, *args, **kwargs)
    if (tap := _tap(scheduler)) is not None:
        with _kept_going(scheduler):
            if tap.knows(req.rid):
                tap.retracted(req.rid)
            elif scheduler.waiting_queue and scheduler.waiting_queue[-1] is req:
                tap.arrived(req, at_ns)
    return result


def send_abort_output(send: Callable[..., Any], scheduler: Any, abort_req: Any, req: Any, *args: Any) -> Any:
    """A request ends outside a batch: it was aborted in the queue or amid its prompt, or put out of a full queue."""
    if (tap := _tap(scheduler)) is not None:
        with _kept_going(scheduler):
            tap.aborted(req.rid, time.monotonic_ns())
    return send(scheduler, abort_req, req, *args)


def get_next_batch_to_run(choose: Callable[..., Any], scheduler: Any, *args: Any, **kwargs: Any) -> Any:
    """A schedule is made."""
    start_ns = time.monotonic_ns()
    plan = choose(scheduler, *args, **kwargs)
    if (tap := _tap(scheduler)) is not None:
        with _kept_going(scheduler):
            if plan.batch_to_run is not None:
                tap.scheduled(plan.batch_to_run, start_ns, time.monotonic_ns())
    return plan


def process_batch_result(process: Callable[..., Any], scheduler: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
    """The tokens of the oldest batch on its way are there."""
    lengths: list[int] = []
    if _tap(scheduler) is not None:
        with _kept_going(scheduler):
            lengths = [len(req.output_ids) for req in batch.reqs]
    result = process(scheduler, batch, *args, **kwargs)
    if (tap := _tap(scheduler)) is not None:
        with _kept_going(scheduler):
            tap.completed(batch, lengths, time.monotonic_ns())
    return result


def _tap(scheduler: Any) -> Tap | None:
    return getattr(scheduler, _ATTRIBUTE, None)


@contextmanager
def _kept_going(scheduler: Any) -> Iterator[None]:
    """Whatever goes wrong within it is one line in the log, and the end of the recording."""
    try:
        yield
    except Exception as error:
        said = str(error).removeprefix("tracereel: ") if isinstance(error, AdapterError) else repr(error)
        logger.warning("tracereel: the recording ends here: %s", said)
        tap = _tap(scheduler)
        setattr(scheduler, _ATTRIBUTE, None)
        if tap is not None:
            tap.abandon()
