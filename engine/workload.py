"""What is asked of an engine: prompts with the lengths of their answers, and when each request comes.

Knows prompt files and arrival processes, and names every workload by a digest. Does not know models or engines.

A prompt file is JSON Lines: {"id", "prompt", "output_tokens", "arrival_ms"}. `output_tokens` is how long the model's
own greedy answer was, up to its end token or a stated cap: with it pinned, every policy decodes the same number of
tokens. `arrival_ms` is when the request comes where the arrivals are `given`.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from tracereel.trace.events import WorkloadInfo

MAX_PROMPT_CHARACTERS = 1_000_000
MAX_PROMPTS = 1_000_000
MAX_ARRIVAL_MS = 1_000_000_000


class WorkloadError(Exception):
    """A workload cannot be used; the message is one line and names the file, the line and the field."""


class Prompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line of a prompt file; `output_tokens` is None before it is pinned.

    `arrival_ms` is counted from the start of the run.
    """

    id: str
    prompt: str
    output_tokens: int | None = None
    arrival_ms: float | None = None


class Arrivals(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How requests come: `at once`, at a `fixed` rate, as a `poisson` process, or as `given` by each prompt.

    The rate is in requests a second.
    """

    kind: str = "at once"
    rate: float = 0.0
    seed: int = 0

    def times_ns(self, prompts: Sequence[Prompt]) -> list[int]:
        """When each comes, ns from the start. Raises WorkloadError for an unknown kind, rate, or a missing time."""
        if self.kind == "at once":
            return [0] * len(prompts)
        if self.kind == "given":
            missing = next((prompt.id for prompt in prompts if prompt.arrival_ms is None), None)
            if missing is not None:
                raise WorkloadError(f"arrivals: kind 'given' needs arrival_ms of every prompt, {missing!r} has none")
            return [round((prompt.arrival_ms or 0) * 1e6) for prompt in prompts]
        if self.kind not in ("fixed", "poisson"):
            raise WorkloadError(f"arrivals: kind {self.kind!r} is not one of 'at once', 'fixed', 'poisson', 'given'")
        if not self.rate > 0:
            raise WorkloadError(f"arrivals: rate {self.rate} is not above 0 requests a second")
        if self.kind == "fixed":
            return [round(i / self.rate * 1e9) for i in range(len(prompts))]
        rng = random.Random(self.seed)
        times: list[int] = []
        now = 0.0
        for _ in prompts:
            now += rng.expovariate(self.rate)
            times.append(round(now * 1e9))
        return times

    def __str__(self) -> str:
        return f"{self.kind}, {self.rate:g} requests/s" if self.kind in ("fixed", "poisson") else self.kind


@dataclass(frozen=True)
class Workload:
    """Requests and when they come: (arrival in ns from the start, prompt) in the order of arrival."""

    name: str
    arrivals: Arrivals
    requests: tuple[tuple[int, Prompt], ...]

    @classmethod
    def of(cls, name: str, prompts: Sequence[Prompt], arrivals: Arrivals) -> "Workload":
        """Prompts with arrival times, in the order of those; their own order among equals."""
        timed = zip(arrivals.times_ns(prompts), prompts, strict=True)
        return cls(name, arrivals, tuple(sorted(timed, key=lambda request: request[0])))

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over every prompt, pinned length and arrival time."""
        content = [(at, item.id, item.prompt, item.output_tokens) for at, item in self.requests]
        return hashlib.sha256(msgspec.json.encode(content)).hexdigest()

    def info(self) -> WorkloadInfo:
        """What a trace says of it."""
        return WorkloadInfo(
            name=self.name,
            digest=self.digest,
            requests=len(self.requests),
            arrivals=str(self.arrivals),
            seed=self.arrivals.seed if self.arrivals.kind == "poisson" else None,
        )


def read_prompts(path: Path) -> list[Prompt]:
    """Read a prompt file. Raises WorkloadError that names the line and the field at fault."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise WorkloadError(f"{path}: cannot be read ({error.strerror})") from None
    if len(lines) > MAX_PROMPTS:
        raise WorkloadError(f"{path}: {len(lines)} lines, at most {MAX_PROMPTS} are read")
    prompts: list[Prompt] = []
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            prompt = msgspec.json.decode(line, type=Prompt)
        except msgspec.DecodeError as error:
            raise WorkloadError(f"{path}, line {number}: {error}") from None
        if not prompt.prompt or len(prompt.prompt) > MAX_PROMPT_CHARACTERS:
            raise WorkloadError(f"{path}, line {number}: prompt: 1 to {MAX_PROMPT_CHARACTERS} characters")
        if prompt.output_tokens is not None and prompt.output_tokens < 1:
            raise WorkloadError(f"{path}, line {number}: output_tokens: {prompt.output_tokens} is less than 1")
        if prompt.arrival_ms is not None and not 0 <= prompt.arrival_ms <= MAX_ARRIVAL_MS:
            raise WorkloadError(f"{path}, line {number}: arrival_ms: {prompt.arrival_ms} is not 0 to {MAX_ARRIVAL_MS}")
        if prompt.id in seen:
            raise WorkloadError(f"{path}, line {number}: id: {prompt.id!r} stands on an earlier line")
        seen.add(prompt.id)
        prompts.append(prompt)
    if not prompts:
        raise WorkloadError(f"{path}: holds no prompt")
    return prompts


def write_prompts(path: Path, prompts: list[Prompt]) -> None:
    """Write a prompt file, whole or not at all."""
    part = path.with_name(path.name + ".partial")
    part.write_bytes(b"".join(msgspec.json.encode(prompt) + b"\n" for prompt in prompts))
    part.replace(path)
