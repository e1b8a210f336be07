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
from tracereel.engine.request import Request, RequestError, require_due, require_valid
from tracereel.engine.scheduler import NeverFitsError
from tracereel.trace.format.bounds import shown


class EngineStoppedError(RuntimeError):
    """The engine takes no requests: it has not been started, was stopped, or failed (the cause is chained)."""


@dataclass(frozen=True, slots=True)
class _End:
    """What a stream's readers get after its last token: the reason, and the error where one ended it."""

    reason: str
    error: BaseException | None = None


class Stream:
    """One request's answer: iterate over it for its tokens as they come; it ends after the last one.

    `finish_reason` is set once the iteration has ended: `stop`, `length`, `abort` after a cancellation, or `error`.
    Iterating raises EngineStoppedError where the engine failed, RequestError where this request could not be added.
    Several threads may read one stream: each token goes to one of them, and the end to all.
    """

    def __init__(self, request: Request):
        self.request = request
        self.finish_reason: str | None = None
        self._outputs: queue.SimpleQueue[Output | _End] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[Output]:
        while True:
            item = self._outputs.get()
            if isinstance(item, _End):
                self._outputs.put(item)  # for other readers, and for another iteration
                self.finish_reason = item.reason
                if item.error is not None:
                    raise _stream_error(item.error) from item.error
                return
            self.finish_reason = item.finish_reason
            yield item

    def text(self) -> str:
        """Wait for the end; the whole text."""
        return "".join(output.text for output in self)

    def _put(self, output: Output) -> None:
        self._outputs.put(output)
        if output.finish_reason is not None:
            self._outputs.put(_End(output.finish_reason))

    def _end(self, reason: str, error: BaseException | None = None) -> None:
        self._outputs.put(_End(reason, error))


def _stream_error(error: BaseException) -> Exception:
    if isinstance(error, (RequestError, NeverFitsError)):
        return type(error)(str(error))
    return _failed(error)


def _failed(error: BaseException) -> EngineStoppedError:
    return EngineStoppedError(f"the engine failed: {' '.join(str(error).split()) or type(error).__name__}")


@dataclass
class _Inbox:
    """What other threads ask of the engine's thread."""

    submissions: deque[tuple[Stream, int]] = field(default_factory=deque)
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
        self._open: set[Stream] = set()
        """Every stream that was submitted and has not ended, known to the engine or not; guarded by `_wake`."""
        self._numbers: dict[Stream, int] = {}
        self._streams: dict[int, Stream] = {}
        self._thread: threading.Thread | None = None
        self._running = False
        self._failure: BaseException | None = None
        self._metrics = engine.metrics()

    def start(self) -> None:
        """Start the engine's thread. Raises EngineStoppedError where it was started or stopped before."""
        with self._wake:
            if self._thread is not None:
                raise EngineStoppedError("the engine was started before")
            if self._inbox.stop is not None:
                raise EngineStoppedError("the engine was stopped before it was started")
            thread = threading.Thread(target=self._run, name="tracereel-engine", daemon=True)
            thread.start()  # before anything is noted: the system may refuse a thread
            self._thread, self._running = thread, True

    def submit(self, request: Request, arrival_ns: int | None = None) -> Stream:
        """Put a request in the queue; returns the stream of its tokens.

        `arrival_ns` is the engine time at which it was due, not in the future; now where that is not given.
        Raises EngineStoppedError, and NeverFitsError or RequestError, which names the field, where the request could
        never be served: nothing has been added then.
        """
        if isinstance(request, Request):
            require_valid(request)
        with self._wake:
            self._require_running()
            self._engine.require_fit(request)
            now = self._engine.now_ns()
            due = now if arrival_ns is None else arrival_ns
            require_due(request, due, now)
            stream = Stream(request)
            self._open.add(stream)
            self._inbox.submissions.append((stream, due))
            self._wake.notify()
        return stream

    def cancel(self, stream: Stream) -> None:
        """End a request at the next step; its stream ends with the reason `abort`. Does nothing where it has ended.

        Raises RequestError for what is not a stream.
        """
        if not isinstance(stream, Stream):
            raise RequestError(f"stream: {shown(stream)} is not a Stream")
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
            raise _failed(self._failure) from self._failure

    def __enter__(self) -> "OnlineEngine":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop(drain=kind is None)

    def _require_running(self) -> None:
        # A thread does not outlive a fork: in the child nothing would ever be answered.
        if not self._running or self._thread is None or not self._thread.is_alive():
            raise EngineStoppedError("the engine is not running") from self._failure

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            while self._take_inbox():
                for output in self._engine.step():
                    stream = self._streams[output.request]
                    if output.finish_reason is not None:
                        self._forget(stream)
                    stream._put(output)
                self._metrics = self._engine.metrics()
        except BaseException as error:  # whatever ends this thread, every stream ends with its reason
            failure = error
        with self._wake:
            self._running, self._failure = False, failure
            left, self._open = self._open, set()
        for stream in left:
            stream._end("abort" if failure is None else "error", failure)

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
            self._add(stream, arrival_ns)
        ended = list(self._numbers) if stop == "abort" else [s for s in cancellations if s in self._numbers]
        for stream in ended:
            # A stream that was cancelled twice has no number any more; a request that has just ended has its reason.
            if stream in self._numbers and self._engine.cancel(self._numbers[stream]):
                self._forget(stream)
                stream._end("abort")
        return stop is None or self._engine.has_work

    def _add(self, stream: Stream, arrival_ns: int) -> None:
        try:
            number = self._engine.add(stream.request, arrival_ns)
        except (RequestError, NeverFitsError) as error:  # it is this request's fault, and disturbs no other
            with self._wake:
                self._open.discard(stream)
            stream._end("error", error)
            return
        self._numbers[stream] = number
        self._streams[number] = stream

    def _has_something_to_do(self) -> bool:
        inbox, ready_ns = self._inbox, self._engine.ready_in_ns()
        if ready_ns is None:
            return bool(inbox.submissions or inbox.stop)
        return bool(ready_ns == 0 or inbox.submissions or inbox.cancellations or inbox.stop == "abort")

    def _forget(self, stream: Stream) -> None:
        del self._streams[self._numbers.pop(stream)]
        with self._wake:
            self._open.discard(stream)


def drive(engine: OnlineEngine, requests: Iterable[tuple[int, Request]]) -> list[Stream]:
    """Submit requests when they are due: (engine time in ns, request) in the order of time; returns their streams.

    A late submission still counts from when it was due.
    """
    streams = []
    for arrival_ns, request in requests:
        while (early_ns := arrival_ns - engine.now_ns()) > 0:
            time.sleep(early_ns / 1e9)
        streams.append(engine.submit(request, arrival_ns))
    return streams
