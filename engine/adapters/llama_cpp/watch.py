"""Breaks off what a server drags out: one that sends a byte now and then keeps every time limit of a socket.

Knows sockets and clocks. Does not know what is read from them.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_LOOK_SECONDS = 0.05


class Watch:
    """Shuts sockets whose time is over, on a thread of its own; `interrupt` shuts all of them at once."""

    def __init__(self) -> None:
        self._until: dict[socket.socket, float] = {}
        # A signal's handler may interrupt this thread while it holds the lock, and call `interrupt`.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._interrupted = False

    @contextmanager
    def within(self, sock: socket.socket, seconds: float) -> Iterator[None]:
        """Within it the socket may be used for so long.

        Raises TimeoutError where it was shut because the time was over, InterruptedError where by `interrupt`.
        """
        with self._lock:
            self._until[sock] = time.monotonic() + seconds
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tracereel-watch", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                shut = self._until.pop(sock, None) is None
            if shut:
                raise InterruptedError if self._interrupted else TimeoutError

    def interrupt(self) -> None:
        """Shut all sockets that are in use: whatever is read from them ends."""
        self._interrupted = True
        self._shut(float("inf"))

    def _run(self) -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            self._shut(time.monotonic())

    def _shut(self, now: float) -> None:
        with self._lock:
            for sock in [sock for sock, until in self._until.items() if until <= now]:
                del self._until[sock]
                with suppress(OSError):  # the other side may have closed it
                    sock.shutdown(socket.SHUT_RDWR)
