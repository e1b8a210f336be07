"""One llama.cpp server over HTTP: what it says of itself, its slots, and a streamed answer. Bounded in size and time.

The answers' types name the fields that are used; a server of another build that lacks one is refused by name.
"""

import http.client
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from math import inf
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from tracereel.engine.adapters import AdapterError
from tracereel.engine.adapters.llama_cpp.watch import Watch
from tracereel.trace.format.events import Index, Size

_MOST_BYTES = 16 * 2**20
_MOST_LINE = 2**20
_MOST_OTHERS = 1000
"""Lines of a stream from one new token to the next."""

Answer = TypeVar("Answer")
Tokens = Annotated[int, msgspec.Meta(ge=0, le=2**24)]
"""More than any context holds."""


class Props(msgspec.Struct, frozen=True):
    """`/props`: what the server is."""

    total_slots: Size
    model_path: str = ""
    model_ftype: str = ""
    build_info: str = ""
    default_generation_settings: dict[str, Any] = {}


class SlotParams(msgspec.Struct, frozen=True):
    """Of a slot's sampling parameters the one by which a request of one's own is found again."""

    seed: int = 0


class NextToken(msgspec.Struct, frozen=True):
    """How far a slot has decoded; `n_remain` is -1 where nothing limits it."""

    n_decoded: Tokens
    n_remain: int = -1


class SlotAnswer(msgspec.Struct, frozen=True):
    """A slot in `/slots`; an idle one shows its last task without its counts."""

    id: Index
    is_processing: bool
    id_task: int = -1
    n_prompt_tokens_processed: Tokens = 0
    n_prompt_tokens_cache: Tokens = 0
    params: SlotParams = SlotParams()
    next_token: list[NextToken] = []


class _Templated(msgspec.Struct, frozen=True):
    """`/apply-template`."""

    prompt: str


class _Tokenized(msgspec.Struct, frozen=True):
    """`/tokenize`."""

    tokens: list[Index]


class Timings(msgspec.Struct, frozen=True):
    """The counts at the end of an answer: prompt tokens found in the cache, and computed."""

    cache_n: Tokens = 0
    prompt_n: Tokens = 0


class Chunk(msgspec.Struct, frozen=True):
    """A part of a streamed answer; the last one has `stop`. `tokens_predicted` counts its tokens so far."""

    content: str = ""
    tokens: list[Index] = []
    stop: bool = False
    stop_type: str = "none"
    tokens_predicted: Tokens = 0
    tokens_evaluated: Tokens = 0
    timings: Timings | None = None


class Server:
    """A server by its address; raises AdapterError, in one line, for whatever it does not answer."""

    timeout_s = 60.0
    """The server answers `/slots` only between two passes, and a pass over a long prompt takes its time."""

    def __init__(self, url: str):
        try:
            parts = urlsplit(url if "//" in url else f"http://{url}")
        except ValueError as error:
            raise AdapterError(f"{url}: is no address ({error})") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise AdapterError(f"{url}: is no address of a server, such as http://127.0.0.1:8080")
        try:
            self._port = parts.port
        except ValueError:
            raise AdapterError(f"{url}: its port is no number from 0 to 65535") from None
        self.host = parts.hostname
        self._secure, self._prefix = parts.scheme == "https", parts.path.rstrip("/")
        self.url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{self._prefix}"
        self._looks: http.client.HTTPConnection | None = None
        self._watch = Watch()

    def props(self) -> Props:
        """What the server is."""
        return self._ask("/props", Props)

    def architecture(self) -> dict[str, Any]:
        """What it says of its model: `n_params`, `n_ctx`, …; empty where it says nothing."""
        models = self._ask("/v1/models", dict[str, Any]).get("data")
        meta = models[0].get("meta") if isinstance(models, list) and models and isinstance(models[0], dict) else None
        return meta if isinstance(meta, dict) else {}

    def slots(self) -> list[SlotAnswer]:
        """All slots, between two passes. The connection is kept for the next look."""
        if self._looks is None:
            self._looks = self._connection()
        try:
            return self._ask("/slots", list[SlotAnswer], connection=self._looks)
        except AdapterError:
            self.close()
            raise

    def prompt_ids(self, prompt: str) -> list[int]:
        """A user's message as the server's chat template and tokenizer make it."""
        message = {"messages": [{"role": "user", "content": prompt}]}
        templated = self._ask("/apply-template", _Templated, message).prompt
        body = {"content": templated, "add_special": True, "parse_special": True}
        return self._ask("/tokenize", _Tokenized, body).tokens

    def stream(self, prompt_ids: list[int], max_tokens: int, seed: int) -> Iterator[Chunk]:
        """Decode greedily from these tokens; the chunks as they come.

        However long they take: a request may wait for others. `interrupt` ends the wait.
        """
        body = {
            "prompt": prompt_ids,
            "n_predict": max_tokens,
            "seed": seed,
            "temperature": 0,
            "stream": True,
            "return_tokens": True,
        }
        path = "/completion"
        with closing(self._connection()) as connection, self._faults_named(path), self._asked(connection, inf):
            connection.sock.settimeout(None)
            yield from _chunks(self._answered(connection, path, body), max_tokens)

    def interrupt(self) -> None:
        """Break off what is being read now, on any thread: it raises AdapterError there."""
        self._watch.interrupt()

    def close(self) -> None:
        """Let go of the connection that the looks keep, and break off the answers that still come."""
        self.interrupt()
        if self._looks is not None:
            self._looks.close()
            self._looks = None

    def _ask(
        self,
        path: str,
        kind: type[Answer],
        body: object = None,
        *,
        connection: http.client.HTTPConnection | None = None,
    ) -> Answer:
        own = connection or self._connection()
        try:
            with self._faults_named(path), self._asked(own, self.timeout_s):
                content = self._answered(own, path, body).read(_MOST_BYTES + 1)
                if len(content) > _MOST_BYTES:
                    raise AdapterError(f"{self.url}{path}: answers more than {_MOST_BYTES >> 20} MiB")
                return msgspec.json.decode(content, type=kind)
        finally:
            if connection is None:
                own.close()

    @contextmanager
    def _asked(self, connection: http.client.HTTPConnection, seconds: float) -> Iterator[None]:
        """Within it the connection is there, and is shut where the exchange takes longer."""
        if connection.sock is None:
            connection.connect()
        with self._watch.within(connection.sock, seconds):
            yield

    def _answered(self, connection: http.client.HTTPConnection, path: str, body: object) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("LLAMA_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        content = None if body is None else msgspec.json.encode(body)
        connection.request("GET" if body is None else "POST", self._prefix + path, content, headers)
        answer = connection.getresponse()
        if answer.status == 200:
            return answer
        said = _refusal(answer.read(_MOST_LINE))
        if answer.status == 501 and "--slots" not in said:
            said = f"{said}; start llama-server with --slots"
        elif answer.status in (401, 403):
            said = f"{said}; let LLAMA_API_KEY hold the server's key"
        raise AdapterError(f"{self.url}{path}: the server refuses ({answer.status}): {said}")

    def _connection(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        return kind(self.host, self._port, timeout=self.timeout_s)

    @contextmanager
    def _faults_named(self, path: str) -> Iterator[None]:
        """Within it whatever goes wrong is an AdapterError, in one line."""
        try:
            yield
        except TimeoutError:
            raise AdapterError(f"{self.url}{path}: no answer in {self.timeout_s:g} s") from None
        except InterruptedError:
            raise AdapterError(f"{self.url}{path}: was broken off") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise AdapterError(f"{self.url}{path}: is not what llama.cpp's server answers ({error})") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            said = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise AdapterError(f"{self.url}{path}: {said}") from None


def _chunks(answer: http.client.HTTPResponse, max_tokens: int) -> Iterator[Chunk]:
    """The chunks of a stream of server-sent events, up to the last one: no more than tokens were asked for."""
    others = tokens = 0
    while line := answer.readline(_MOST_LINE + 1):
        if len(line) > _MOST_LINE:
            raise http.client.LineTooLong("event")
        kind, _, content = line.strip().partition(b": ")
        if kind == b"error":
            raise http.client.HTTPException(_refusal(content))
        chunk = msgspec.json.decode(content, type=Chunk) if kind == b"data" and content != b"[DONE]" else None
        others = 0 if chunk is not None and chunk.tokens_predicted > tokens else others + 1
        if others > _MOST_OTHERS or (chunk is not None and chunk.tokens_predicted > max_tokens):
            raise http.client.HTTPException(f"the answer goes on beyond the {max_tokens} tokens that were asked for")
        if chunk is not None:
            tokens = max(tokens, chunk.tokens_predicted)
            yield chunk
            if chunk.stop:
                return
    raise http.client.HTTPException("the answer breaks off")


def _refusal(content: bytes) -> str:
    """What an error answer says, in one line."""
    try:
        error = msgspec.json.decode(content, type=dict[str, Any])
        error = error.get("error", error)
        said = error.get("message") if isinstance(error, dict) else error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = content.decode(errors="replace")
    return " ".join(str(said).split())[:300] or "without a word"
