"""Records a run while it happens: cheap on the engine's thread, encoded and written on a thread of its own.

Knows the records of `events` and that requests are numbered in the order of their arrival. Does not know how an engine
works: any program that can say what its steps did can call it.
"""

import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec
from tracereel.trace.format.atomic import target_of
from tracereel.trace.format.events import Arrival, Clock, End, Event, Finish, Header, Step, decoder, encoder
from tracereel.trace.format.locks import Lock, LockedError
from tracereel.trace.format.storage import LineWriter

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.25
"""How long a written record may stay unreadable for others."""
CAPACITY = 4096
"""Records that may wait to be written, if not said otherwise."""
STUCK_SECONDS = 30.0
"""How long the file may take nothing while the engine waits for room (a network disk that hangs)."""
_ROOM_SECONDS = 0.001
# The writer looks this often instead of being woken for each record: a wake-up costs the engine's thread a system call
# and a change of threads, some records at once cost it neither.
_LOOK_SECONDS = 0.02
_BATCH = 64


Later = Callable[..., Iterable[Arrival | Step | Finish]]
"""Makes records when it is called, on the recorder's thread."""
_Waiting = Event | tuple[Later, tuple[Any, ...]] | None
"""What waits for the recorder's thread: a record, or what makes records and its arguments; None ends the recording."""


class RecordingError(Exception):
    """A recording could not be written; the message is one line and names the file and the fault."""


def start_clock() -> Clock:
    """The zero of a recording's times: this instant on the process's two clocks."""
    return Clock(monotonic_ns=time.monotonic_ns(), wall_ns=time.time_ns())


def _line(record: Event) -> bytes:
    """The record as it is written. Raises ValueError for what a reader would refuse; the message names the field."""
    kind = type(record).__name__.lower()
    try:
        line = encoder.encode(record)
        decoder.decode(line)
    except (msgspec.DecodeError, OverflowError, TypeError, UnicodeEncodeError) as error:
        raise ValueError(f"{kind} record: {error}") from None
    return line


def _unreadable(header: Header) -> str | None:
    try:
        _line(header)
    except ValueError as error:
        return str(error)
    return None


class Recorder:
    """Writes one trace file; use it as a context manager, or call `close()`.

    `record()` only hands the event over (about a microsecond); events must not be changed afterwards. The file appears
    under its name when the recording is closed; until then, and after a crash, it is next to it as
    `<name>.<8 digits>.<suffix>.partial`. An earlier file of that name stays as it is until then. One recorder writes a
    file at a time: a second one fails and names the process of the first. In a forked child a recorder does nothing.

    At most `capacity` records wait to be written. When they are that many, `when_full` says whether `record()` blocks
    until there is room, or drops step records; the end record counts those, and the numbers of the steps tell where
    they are missing. (Arrivals and cancellations are never dropped: they are few, and all else refers to them.)

    When the file cannot be created or written (a full disk, a folder that vanished, a target that may not be written),
    `on_fault` says what comes of it. `stop`: the constructor, or the next `record()`, raises RecordingError.
    `continue`: one line goes to the log, and the engine goes on unrecorded. `close()` raises RecordingError in both
    cases. A record outside the bounds of `events`, which no reader would take, is such a fault, and so is a file that
    takes nothing for STUCK_SECONDS while the engine waits for room. A header outside them is refused at once, with
    RecordingError.
    """

    def __init__(
        self,
        path: Path | str,
        header: Header,
        *,
        capacity: int = CAPACITY,
        when_full: Literal["block", "drop"] = "block",
        on_fault: Literal["stop", "continue"] = "stop",
    ):
        self.path = Path(path)
        self.header = header
        self._capacity, self._drops, self._stops = capacity, when_full == "drop", on_fault == "stop"
        self._events: queue.SimpleQueue[_Waiting] = queue.SimpleQueue()
        self._look = threading.Event()
        self._requests = self._steps = self._output_tokens = self._last_ns = 0
        self._dropped = self._dropped_later = 0  # on the engine's thread, and on the writer's
        self._fault: str | None = None
        self._writer: LineWriter | None = None
        self._lock: Lock | None = None
        self._closed = self._inherited = self._stuck = False
        if what := _unreadable(header):
            raise RecordingError(f"{self.path}: {what}")
        try:
            self._lock = Lock(target_of(self.path))
            self._writer = LineWriter(self.path)
        except (OSError, LockedError) as error:
            self._fail(f"cannot be created ({getattr(error, 'strerror', None) or error})")
            if self._lock is not None:
                self._lock.release()
            if self._stops:
                raise self._error() from None
        _LIVE.add(self)
        self._events.put(header)
        self._thread = threading.Thread(target=self._write, name="tracereel-recorder", daemon=True)
        self._thread.start()

    def now_ns(self) -> int:
        """Nanoseconds since the zero of this recording."""
        return time.monotonic_ns() - self.header.clock.monotonic_ns

    def record(self, event: Arrival | Step | Finish) -> None:
        """Add one record. Raises RecordingError where recording has failed and `on_fault` is `stop`."""
        if self._inherited:
            return
        if self._events.qsize() >= self._capacity and not self._room(droppable=isinstance(event, Step)):
            self._dropped += 1
            return
        self._put(event)

    def record_later(self, make: Later, *facts: Any) -> None:
        """Add the records that `make(*facts)` gives; it is called in its turn, on the recorder's thread.

        For an engine that has no time to put its facts in order itself: it hands over what it has in its hands. Where
        records are dropped because there is no room, the steps that it gives are. Raises as `record()` does.
        """
        if self._inherited:
            return
        if self._events.qsize() >= self._capacity and not self._room(droppable=True):
            self._put((self._without_steps, (make, *facts)))
            return
        self._put((make, facts))

    def _put(self, event: _Waiting) -> None:
        if self._fault is None:
            self._events.put(event)
        elif self._stops:
            raise self._error()

    def _room(self, *, droppable: bool) -> bool:
        """The buffer is full: wait until it is not, or say whether this record stays where records are dropped."""
        if self._drops:
            return not droppable
        waits = 0  # counted, as a process that was suspended finds that time has passed
        while self._events.qsize() >= self._capacity and self._fault is None:
            self._look.set()
            time.sleep(_ROOM_SECONDS)
            waits += 1
            if waits * _ROOM_SECONDS >= STUCK_SECONDS:
                self._stuck = True
                self._fail(f"the recording was cut off (its file has taken nothing for {STUCK_SECONDS:g} s)")
        return True

    def close(self) -> None:
        """Write the end record and put the file in its place. Raises RecordingError where it is not whole."""
        if self._inherited:
            return
        self._stop()
        try:
            self._finish()
        finally:
            if self._lock is not None:
                self._lock.release()

    def _finish(self) -> None:
        if self._fault is None and self._writer is not None:
            end = End(
                at_ns=max(self.now_ns(), self._last_ns),
                requests=self._requests,
                steps=self._steps,
                output_tokens=self._output_tokens,
                digest=self._writer.digest.hexdigest(),
                dropped=self._dropped + self._dropped_later,
            )
            try:
                self._writer.write(encoder.encode(end) + b"\n")
                self._writer.commit()
                return
            except OSError as error:
                self._fail_with(error)
        self._leave()
        raise self._error()

    def abandon(self) -> None:
        """Stop without an end record: the partial file stays behind, readable and known to be cut."""
        if self._inherited:
            return
        self._stop()
        self._leave()
        if self._lock is not None:
            self._lock.release()

    def _leave(self) -> None:
        """Leave the partial file behind; a thread that is stuck in it has it still."""
        if self._writer is not None and not self._thread.is_alive():
            self._writer.abandon()

    def _stop(self) -> None:
        if not self._closed:
            self._closed = True
            self._events.put(None)
            self._look.set()
            self._thread.join(_LOOK_SECONDS if self._stuck else None)

    def _fail_with(self, error: Exception) -> None:
        self._fail(f"the recording was cut off ({getattr(error, 'strerror', None) or error})")

    def _fail(self, what: str) -> None:
        """The first fault is the one that is reported."""
        if self._fault is None:
            self._fault = " ".join(what.split())
            if not self._stops:
                logger.error("tracereel: %s; the engine goes on unrecorded", self._error())

    def _error(self) -> RecordingError:
        left = ""
        # A disk that hangs is not asked anything more.
        if self._writer is not None and (self._stuck or self._writer.partial.exists()):
            left = f"; what was written is in {self._writer.partial.name}"
        return RecordingError(f"{self.path}: {self._fault}{left}")

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _write(self) -> None:
        """The writer's thread: encode what has come, some records at once; flush when it is time."""
        flushed, dirty, ended = time.monotonic(), False, False
        while not ended:
            self._look.wait(_LOOK_SECONDS)
            while not ended and (batch := self._batch()):
                ended = batch[-1] is None
                try:
                    dirty = self._encode(batch) or dirty
                except Exception as error:  # a full disk, or an event that cannot be encoded: the engine must go on
                    self._fail_with(error)
            if not ended:
                self._look.clear()
            if dirty and time.monotonic() - flushed >= FLUSH_SECONDS:
                try:
                    if self._fault is None and self._writer is not None:
                        self._writer.flush()
                except OSError as error:
                    self._fail_with(error)
                flushed, dirty = time.monotonic(), False

    def _batch(self) -> list[_Waiting]:
        """What waits to be written, up to so much; ends with None where the recording does."""
        batch: list[_Waiting] = []
        try:
            while len(batch) < _BATCH and (not batch or batch[-1] is not None):
                batch.append(self._events.get_nowait())
        except queue.Empty:
            pass
        return batch

    def _encode(self, batch: list[_Waiting]) -> bool:
        """Write a batch; says whether there was anything to write."""
        lines = []
        try:
            for event in batch:
                if self._fault is not None:  # after which nothing is made any more, and nothing grows
                    break
                for record in event[0](*event[1]) if isinstance(event, tuple) else (event,):
                    if record is None:
                        continue
                    lines.append(_line(record))
                    self._count(record)
        finally:  # what came before a record that cannot be encoded is kept
            if lines and self._writer is not None:
                self._writer.write(b"\n".join([*lines, b""]))
        return bool(lines)

    def _without_steps(self, make: Later, *facts: Any) -> Iterable[Arrival | Step | Finish]:
        for record in make(*facts):
            if isinstance(record, Step):
                self._dropped_later += 1
            else:
                yield record

    def _count(self, event: Event) -> None:
        if isinstance(event, Step):
            self._steps += 1
            self._last_ns = max(self._last_ns, event.end_ns)
            self._output_tokens += sum(event.sampled)
        elif isinstance(event, Arrival):
            self._requests += 1


_LIVE: "weakref.WeakSet[Recorder]" = weakref.WeakSet()


def _silence_in_child() -> None:
    """A forked child has a copy of each recorder and none of its thread; the recording is the parent's."""
    for recorder in list(_LIVE):
        recorder._inherited = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_silence_in_child)
