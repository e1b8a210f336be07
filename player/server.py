"""The page on 127.0.0.1, for browsers that do not open files: one page, read only, for this machine alone.

A request is untrusted: nothing but `GET /` is answered, and only where it names this very address, so that no page from
elsewhere can read it by a name of its own that points here (DNS rebinding).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tracereel.player.errors import PlayerError

ADDRESS = "127.0.0.1"


@contextmanager
def serving(page: str, port: int = 0) -> Iterator[tuple[str, Callable[[], None]]]:
    """Hold the port; gives the page's address and what serves it until interrupted. Raises PlayerError."""
    body = page.encode()

    class Handler(BaseHTTPRequestHandler):
        """Answers with the page."""

        server_version, sys_version = "tracereel", ""
        timeout = 10

        def do_GET(self) -> None:
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
        server = ThreadingHTTPServer((ADDRESS, port), Handler)
    except OSError as error:
        raise PlayerError(f"{ADDRESS}:{port}: cannot be listened on ({error.strerror})") from None
    with server:
        yield f"http://{ADDRESS}:{server.server_port}/", server.serve_forever
