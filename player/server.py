"""The page on 127.0.0.1, for browsers that do not open files: one page, read only, for this machine alone.

A request is untrusted: nothing but `GET /` is answered, and only where it names this very address, so that no page from
elsewhere can read it by a name of its own that points here (DNS rebinding). A request has its time, however its bytes
come, and connections beyond a number are closed at once.
"""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tracereel.player.errors import PlayerError

ADDRESS = "127.0.0.1"
MOST_CONNECTIONS = 64
REQUEST_SECONDS = 10.0


class _Server(ThreadingHTTPServer):
    """Holds no more than MOST_CONNECTIONS at a time."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]):
        super().__init__(address, handler)
        self._room = threading.BoundedSemaphore(MOST_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a thread of its own, where there is room."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a browser that has left is no fault."""


@contextmanager
def serving(page: str, port: int = 0) -> Iterator[tuple[str, Callable[[], None]]]:
    """Hold the port; gives the page's address and what serves it until interrupted. Raises PlayerError."""
    body = page.encode()

    class Handler(BaseHTTPRequestHandler):
        """Answers with the page."""

        server_version, sys_version = "tracereel", ""
        timeout = REQUEST_SECONDS

        def handle(self) -> None:
            """Answer one request; its socket is shut where it has not come in its time."""
            self._ends = threading.Timer(REQUEST_SECONDS, self._end)
            self._ends.daemon = True
            self._ends.start()
            try:
                super().handle()
            finally:
                self._ends.cancel()

        def _end(self) -> None:
            with suppress(OSError):  # it has ended a moment ago
                self.connection.shutdown(socket.SHUT_RDWR)

        def do_GET(self) -> None:
            self._ends.cancel()
            if self.headers.get("Host") not in (f"{ADDRESS}:{server.server_port}", f"localhost:{server.server_port}"):
                self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            elif self.path.partition("?")[0] != "/":
                self.send_error(HTTPStatus.NOT_FOUND)
            else:
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("X-Content-Type-Options", "nosniff")
                self.send_header("X-Frame-Options", "DENY")
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the address on the terminal is enough."""

    if not 0 <= port <= 65535:
        raise PlayerError(f"port: {port} is not between 0 and 65535")
    try:
        server = _Server((ADDRESS, port), Handler)
    except OSError as error:
        raise PlayerError(f"{ADDRESS}:{port}: cannot be listened on ({error.strerror})") from None
    with server:
        yield f"http://{ADDRESS}:{server.server_port}/", server.serve_forever
