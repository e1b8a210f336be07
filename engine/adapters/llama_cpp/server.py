"""One llama.cpp server over HTTP: what it says of itself, its slots, and a streamed answer. Bounded in size and time.

The answers' types name the fields that are used; a server of another build that lacks one is refused by name.
"""

import http.client
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from tracereel.engine.adapters import AdapterError

TRIED = ("b11434",)
"""Builds of llama.cpp that this was tried with."""
TIMEOUT_SECONDS = 60.0
"""The server answers `/slots` only between two passes, and a pass over a long prompt takes its time."""
_MOST_BYTES = 16 * 2**20
_MOST_LINE = 2**20

Answer = TypeVar("Answer")


class Props(msgspec.Struct, frozen=True):
    """`/props`: what the server is."""

    total_slots: int
    model_path: str = ""
    model_ftype: str = ""
    build_info: str = ""
    default_generation_settings: dict[str, Any] = {}


class SlotParams(msgspec.Struct, frozen=True):
    """Of a slot's sampling parameters the one by which a request of one's own is found again."""

    seed: int = 0


class NextToken(msgspec.Struct, frozen=True):
    """How far a slot has decoded; `n_remain` is -1 where nothing limits it."""

    n_decoded: int
    n_remain: int = -1


class SlotAnswer(msgspec.Struct, frozen=True):
    """A slot in `/slots`; an idle one shows its last task without its counts."""

    id: int
    is_processing: bool
    id_task: int = -1
    n_prompt_tokens_processed: int = 0
    n_prompt_tokens_cache: int = 0
    params: SlotParams = SlotParams()
    next_token: list[NextToken] = []


class Timings(msgspec.Struct, frozen=True):
    """The counts at the end of an answer: prompt tokens found in the cache, and computed."""

    cache_n: int = 0
    prompt_n: int = 0


class Chunk(msgspec.Struct, frozen=True):
    """A part of a streamed answer; the last one has `stop`. `tokens_predicted` counts its tokens so far."""

    content: str = ""
    tokens: list[int] = []
    stop: bool = False
    stop_type: str = "none"
    tokens_predicted: int = 0
    tokens_evaluated: int = 0
    timings: Timings | None = None


class Server:
    """A server by its address; raises AdapterError, in one line, for whatever it does not answer."""

    def __init__(self, url: str):
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise AdapterError(f"{url}: is no address of a server, such as http://127.0.0.1:8080")
        try:
            self._port = parts.port
        except ValueError:
            raise AdapterError(f"{url}: its port is no number from 0 to 65535") from None
        self.url, self.host = url, parts.hostname
        self._secure, self._prefix = parts.scheme == "https", parts.path.rstrip("/")
        self._looks: http.client.HTTPConnection | None = None

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
        templated = self._ask("/apply-template", dict[str, Any], message).get("prompt")
        body = {"content": templated, "add_special": True, "parse_special": True}
        return msgspec.convert(self._ask("/tokenize", dict[str, Any], body).get("tokens"), list[int])

    def stream(self, prompt_ids: list[int], max_tokens: int, seed: int) -> Iterator[Chunk]:
        """Decode greedily from these tokens; the chunks as they come."""
        body = {
            "prompt": prompt_ids,
            "n_predict": max_tokens,
            "seed": seed,
            "temperature": 0,
            "stream": True,
            "return_tokens": True,
        }
        with closing(self._connection()) as connection:
            try:
                yield from _chunks(self._answered(connection, "/completion", body))
            except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
                raise self._fault("/completion", error) from None

    def close(self) -> None:
        """Let go of the connection that the looks keep."""
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
            content = self._answered(own, path, body).read(_MOST_BYTES + 1)
            if len(content) > _MOST_BYTES:
                raise AdapterError(f"{self.url}{path}: answers more than {_MOST_BYTES >> 20} MiB")
            return msgspec.json.decode(content, type=kind)
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            raise self._fault(path, error) from None
        finally:
            if connection is None:
                own.close()

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
        return kind(self.host, self._port, timeout=TIMEOUT_SECONDS)

    def _fault(self, path: str, error: Exception) -> AdapterError:
        if isinstance(error, socket.timeout):
            return AdapterError(f"{self.url}{path}: no answer in {TIMEOUT_SECONDS:.0f} s")
        if isinstance(error, msgspec.DecodeError):
            return AdapterError(f"{self.url}{path}: is not what llama.cpp's server answers ({error})")
        return AdapterError(f"{self.url}{path}: {getattr(error, 'strerror', None) or error or type(error).__name__}")


def _chunks(answer: http.client.HTTPResponse) -> Iterator[Chunk]:
    """The chunks of a stream of server-sent events, up to the last one."""
    while line := answer.readline(_MOST_LINE + 1):
        if len(line) > _MOST_LINE:
            raise http.client.LineTooLong("event")
        kind, _, content = line.strip().partition(b": ")
        if kind == b"error":
            raise http.client.HTTPException(_refusal(content))
        if kind != b"data" or content == b"[DONE]":
            continue
        chunk = msgspec.json.decode(content, type=Chunk)
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
    except msgspec.DecodeError:
        said = content.decode(errors="replace")
    return " ".join(str(said).split())[:300] or "without a word"
