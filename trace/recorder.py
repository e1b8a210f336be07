"""Records a run while it happens: cheap on the engine's thread, encoded and written on a thread of its own.

Knows the records of `events` and that requests are numbered in the order of their arrival. Does not know how an engine
works: any program that can say what its steps did can call it.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tracereel.trace.events import Arrival, Clock, End, Event, Finish, Header, Step, encoder
from tracereel.trace.storage import LineWriter

FLUSH_SECONDS = 0.25
"""How long a written record may stay unreadable for others."""


Later = Callable[[], Iterable[Arrival | Step | Finish]]
"""Makes records when it is called, on the recorder's thread."""


class RecordingError(Exception):
    """A recording could not be written; the message is one line and names the file and the fault."""


def start_clock() -> Clock:
    """The zero of a recording's times: this instant on the process's two clocks."""
    return Clock(monotonic_ns=time.monotonic_ns(), wall_ns=time.time_ns())


class Recorder:
    """Writes one trace file; use it as a context manager, or call `close()`.

    `record()` only hands the event over (about a microsecond); events must not be changed afterwards. The file appears
    under its name when the recording is closed; until then, and after a crash, it is `<name>.partial`.

    Raises RecordingError when the file cannot be created, and from `close()` when it could not be written to the end.
    """

    def __init__(self, path: Path | str, header: Header):
        self.path = Path(path)
        self.header = header
        self._events: queue.SimpleQueue[Event | Later | None] = queue.SimpleQueue()
        self._requests = self._steps = self._output_tokens = 0
        self._fault: Exception | None = None
        self._closed = False
        try:
            self._writer = LineWriter(self.path)
        except OSError as error:
            raise RecordingError(f"{self.path}: cannot be created ({error.strerror or error})") from None
        self._events.put(header)
        self._thread = threading.Thread(target=self._write, name="tracereel-recorder", daemon=True)
        self._thread.start()

    def now_ns(self) -> int:
        """Nanoseconds since the zero of this recording."""
        return time.monotonic_ns() - self.header.clock.monotonic_ns

    def record(self, event: Arrival | Step | Finish) -> None:
        """Add one record."""
        self._events.put(event)

    def record_later(self, make: Later) -> None:
        """Add the records that `make` gives; it is called in its turn, on the recorder's thread.

        For an engine that has no time to put its facts in order itself: it hands over what it has in its hands.
        """
        self._events.put(make)

    def close(self) -> None:
        """Write the end record and put the file in its place."""
        self._stop()
        if self._fault is None:
            end = End(
                at_ns=self.now_ns(),
                requests=self._requests,
                steps=self._steps,
                output_tokens=self._output_tokens,
                digest=self._writer.digest.hexdigest(),
            )
            try:
                self._writer.write(encoder.encode(end) + b"\n")
                self._writer.commit()
                return
            except OSError as error:
                self._fault = error
        self._writer.abandon()
        raise RecordingError(
            f"{self.path}: the recording was cut off ({getattr(self._fault, 'strerror', None) or self._fault});"
            f" what was written lies in {self._writer.partial.name}"
        )

    def abandon(self) -> None:
        """Stop without an end record: the file stays behind as `<name>.partial`, readable and known to be cut."""
        self._stop()
        self._writer.abandon()

    def _stop(self) -> None:
        if not self._closed:
            self._closed = True
            self._events.put(None)
            self._thread.join()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _write(self) -> None:
        """The writer's thread: encode what comes, flush when a quarter of a second has passed."""
        flushed = time.monotonic()
        dirty = False
        while True:
            try:
                event = self._events.get(timeout=FLUSH_SECONDS if dirty else None)
                if event is None:
                    return
                for record in event() if callable(event) else (event,):
                    self._count(record)
                    if self._fault is None:
                        self._writer.write(encoder.encode(record) + b"\n")
                        dirty = True
                if dirty and time.monotonic() - flushed >= FLUSH_SECONDS:
                    self._writer.flush()
                    flushed, dirty = time.monotonic(), False
            except queue.Empty:
                self._flush_quietly()
                flushed, dirty = time.monotonic(), False
            except Exception as error:  # a full disk, or an event that cannot be encoded: the engine must go on
                self._fault = self._fault or error
                dirty = False

    def _flush_quietly(self) -> None:
        try:
            self._writer.flush()
        except OSError as error:
            self._fault = self._fault or error

    def _count(self, event: Event) -> None:
        if isinstance(event, Step):
            self._steps += 1
            self._output_tokens += sum(event.sampled)
        elif isinstance(event, Arrival):
            self._requests += 1
