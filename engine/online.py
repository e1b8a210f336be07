"""A thread-safe engine that runs by itself: submit from any thread, read the tokens as they come.

Knows threads, queues and streams. The steps are the `Engine`'s; only its own thread touches it.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tracereel.engine.engine import Engine, EngineMetrics, Output
from tracereel.engine.request import Request


class EngineStoppedError(RuntimeError):
    """The engine takes no requests: it has not been started, was stopped, or failed (the cause is chained)."""


class Stream:
    """One request's answer: iterate over it for its tokens as they come; it ends after the last one.

    `finish_reason` is set once the iteration has ended: `stop`, `length`, or `abort` after a cancellation.
    """

    def __init__(self, request: Request):
        self.request = request
        self.finish_reason: str | None = None
        self._outputs: queue.SimpleQueue[Output | str | BaseException] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[Output]:
        while self.finish_reason is None:
            item = self._outputs.get()
            if isinstance(item, BaseException):
                self.finish_reason = "error"
                raise EngineStoppedError(f"the engine failed: {item}") from item
            if isinstance(item, str):
                self.finish_reason = item
                return
            self.finish_reason = item.finish_reason
            yield item

    def text(self) -> str:
        """Wait for the end; the whole text."""
        return "".join(output.text for output in self)


@dataclass
class _Inbox:
    """What other threads ask of the engine's thread."""

    submissions: deque[tuple[Stream, int | None]] = field(default_factory=deque)
    cancellations: deque[Stream] = field(default_factory=deque)
    stop: str | None = None


class OnlineEngine:
    """Runs an engine on a thread of its own: `start`, `submit`, `cancel`, `metrics`, `stop`; all safe from any thread.

    Also a context manager: starts, and stops when what was submitted has been answered.
    """

    def __init__(self, engine: Engine):
        self._engine = engine
        self._wake = threading.Condition()
        self._inbox = _Inbox()
        self._numbers: dict[Stream, int] = {}
        self._streams: dict[int, Stream] = {}
        self._thread: threading.Thread | None = None
        self._running = False
        self._failure: BaseException | None = None
        self._metrics = engine.metrics()

    def start(self) -> None:
        """Start the engine's thread. Raises EngineStoppedError where it was started before."""
        with self._wake:
            if self._thread is not None:
                raise EngineStoppedError("the engine was started before")
            self._running = True
            self._thread = threading.Thread(target=self._run, name="tracereel-engine", daemon=True)
            self._thread.start()

    def submit(self, request: Request, arrival_ns: int | None = None) -> Stream:
        """Put a request in the queue; returns the stream of its tokens.

        `arrival_ns` is the engine time at which it was due, now where that is not given. Raises EngineStoppedError,
        and NeverFitsError or RequestError where the request could never be served.
        """
        stream = Stream(request)
        with self._wake:
            self._require_running()
            self._engine.require_fit(request)
            self._inbox.submissions.append((stream, arrival_ns))
            self._wake.notify()
        return stream

    def cancel(self, stream: Stream) -> None:
        """End a request at the next step; its stream ends with the reason `abort`. Does nothing where it has ended."""
        with self._wake:
            self._inbox.cancellations.append(stream)
            self._wake.notify()

    def metrics(self) -> EngineMetrics:
        """Where the engine stood after its newest step."""
        return self._metrics

    def now_ns(self) -> int:
        """Engine time."""
        return self._engine.now_ns()

    def stop(self, *, drain: bool = True) -> None:
        """Stop the engine: after answering all that was submitted, or at once, ending the rest with `abort`."""
        with self._wake:
            thread = self._thread
            self._running = False
            self._inbox.stop = "drain" if drain else "abort"
            self._wake.notify()
        if thread is not None:
            thread.join()
        if self._failure is not None:
            raise EngineStoppedError(f"the engine failed: {self._failure}") from self._failure

    def __enter__(self) -> "OnlineEngine":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop(drain=kind is None)

    def _require_running(self) -> None:
        if not self._running:
            raise EngineStoppedError("the engine is not running") from self._failure

    def _run(self) -> None:
        try:
            while self._take_inbox():
                for output in self._engine.step():
                    stream = self._streams[output.request]
                    if output.finish_reason is not None:
                        self._forget(stream)
                    stream._outputs.put(output)
                self._metrics = self._engine.metrics()
        except BaseException as error:  # the engine's thread must not die unseen: every waiting stream is told
            with self._wake:
                self._running, self._failure = False, error
                waiting = [*self._numbers, *(stream for stream, _ in self._inbox.submissions)]
            for stream in waiting:
                stream._outputs.put(error)

    def _take_inbox(self) -> bool:
        """Apply what was asked since the last step; wait while there is nothing to do. False: stop."""
        with self._wake:
            while not self._has_something_to_do():
                ready_ns = self._engine.ready_in_ns()
                if ready_ns is None:
                    self._inbox.cancellations.clear()
                self._wake.wait(None if ready_ns is None else ready_ns / 1e9)
            submissions, cancellations = self._inbox.submissions, self._inbox.cancellations
            stop = self._inbox.stop
            self._inbox = _Inbox(stop=stop)
        for stream, arrival_ns in submissions:
            number = self._engine.add(stream.request, arrival_ns)
            self._numbers[stream] = number
            self._streams[number] = stream
        ended = list(self._numbers) if stop == "abort" else [s for s in cancellations if s in self._numbers]
        for stream in ended:
            if self._engine.cancel(self._numbers[stream]):  # else it has just ended, which its stream will be told
                self._forget(stream)
                stream._outputs.put("abort")
        return stop is None or self._engine.has_work

    def _has_something_to_do(self) -> bool:
        inbox, ready_ns = self._inbox, self._engine.ready_in_ns()
        if ready_ns is None:
            return bool(inbox.submissions or inbox.stop)
        return bool(ready_ns == 0 or inbox.submissions or inbox.cancellations or inbox.stop == "abort")

    def _forget(self, stream: Stream) -> None:
        del self._streams[self._numbers.pop(stream)]


def drive(engine: OnlineEngine, requests: Iterable[tuple[int, Request]]) -> list[Stream]:
    """Submit requests when they are due: (engine time in ns, request) in the order of time; returns their streams.

    A late submission still counts from when it was due.
    """
    streams = []
    for arrival_ns, request in requests:
        if (early_ns := arrival_ns - engine.now_ns()) > 0:
            time.sleep(early_ns / 1e9)
        streams.append(engine.submit(request, arrival_ns))
    return streams
