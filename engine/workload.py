"""The work for an engine: prompts with the lengths of their answers, and when each request comes.

Knows arrival processes, distributions of lengths, and prompts that are text or made of token ids; names every workload
by a digest. Does not know files (`workload_files`), models or engines.
"""

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec
from tracereel.trace.format.bounds import fault, is_text, shown
from tracereel.trace.format.events import Seed, WorkloadInfo

MAX_ARRIVAL_NS = 10**18
"""The latest that a request may come: about 31 years after the first."""


class WorkloadError(Exception):
    """A workload cannot be used; the message is one line and names the file, the line and the field."""


class Prompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A prompt that is text; `output_tokens` is None before it is pinned.

    `arrival_ms` is counted from the start of the run. `client` names the client that sends it, for the policy `fair`.
    """

    id: str
    prompt: str
    output_tokens: int | None = None
    arrival_ms: float | None = None
    client: str | None = None


@dataclass(frozen=True)
class TokenPrompt:
    """A prompt of which only the length is known: its token ids are made up, the same for the same `seed`.

    Its first `block_size` tokens follow from the first of `hash_ids`, the next from the second, and so on: equal ids
    give equal tokens in all prompts, as in Mooncake's traces (Qin et al., "Mooncake: A KVCache-centric Disaggregated
    Architecture for LLM Serving", FAST 2025). The tokens after the last hash id are the prompt's own.
    """

    id: str
    prompt_tokens: int
    output_tokens: int
    arrival_ms: float | None = None
    hash_ids: tuple[int, ...] = ()
    block_size: int = 512
    seed: int = 0
    client: str | None = None

    def token_ids(self, vocabulary: int, avoid: frozenset[int] = frozenset()) -> tuple[int, ...]:
        """`prompt_tokens` ids below `vocabulary`, none of `avoid`."""
        ids: list[int] = []
        for hash_id in self.hash_ids[: -(-self.prompt_tokens // self.block_size)]:
            ids += random.Random(f"{self.seed}/block/{hash_id}").choices(range(vocabulary), k=self.block_size)
        if (own := self.prompt_tokens - len(ids)) > 0:
            ids += random.Random(f"{self.seed}/prompt/{self.id}").choices(range(vocabulary), k=own)
        allowed = min(set(range(len(avoid) + 1)) - avoid)
        return tuple(allowed if token in avoid else token for token in ids[: self.prompt_tokens])


class Arrivals(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How requests come; `rate` is in requests a second.

    `at once`; at a `fixed` rate; as a `poisson` process; in `bursts` of `burst` requests at once, the bursts as a
    Poisson process; or as `given` by each prompt.
    """

    kind: str = "at once"
    rate: float = 0.0
    seed: int = 0
    burst: int = 1

    def times_ns(self, prompts: Sequence[Prompt | TokenPrompt]) -> list[int]:
        """When each comes, ns from the start. Raises WorkloadError for an unknown kind, rate, or a missing time."""
        if self.kind == "at once":
            return [0] * len(prompts)
        if self.kind == "given":
            missing = next((prompt.id for prompt in prompts if prompt.arrival_ms is None), None)
            if missing is not None:
                raise WorkloadError(f"arrivals: kind 'given' needs arrival_ms of every prompt, {missing!r} has none")
            return [_ns("arrivals: arrival_ms", (prompt.arrival_ms or 0) * 1e6) for prompt in prompts]
        if self.kind not in ("fixed", "poisson", "bursts"):
            kinds = "'at once', 'fixed', 'poisson', 'bursts', 'given'"
            raise WorkloadError(f"arrivals: kind {self.kind!r} is not one of {kinds}")
        if not self.rate > 0 or not math.isfinite(self.rate):
            raise WorkloadError(f"arrivals: rate {self.rate} is not above 0 requests a second")
        if not 1 <= self.burst <= 1_000_000:
            raise WorkloadError(f"arrivals: burst {shown(self.burst)} is not 1 to 1,000,000")
        if what := fault(self.seed, Seed):
            raise WorkloadError(f"arrivals: seed {shown(self.seed)}: {what}")
        field = f"arrivals: rate {self.rate:g}"
        if self.kind == "fixed":
            return [_ns(field, i / self.rate * 1e9) for i in range(len(prompts))]
        burst = self.burst if self.kind == "bursts" else 1
        rng = random.Random(self.seed)
        times: list[int] = []
        now = 0.0
        for i in range(len(prompts)):
            if i % burst == 0:
                now += rng.expovariate(self.rate / burst)
            times.append(_ns(field, now * 1e9))
        return times

    def __str__(self) -> str:
        if self.kind == "bursts":
            return f"bursts of {self.burst}, {self.rate:g} requests/s"
        if self.kind == "given":
            return "given by each request"
        return self.kind if self.kind == "at once" else f"{self.kind}, {self.rate:g} requests/s"


class Lengths(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A distribution of lengths in tokens; what falls outside `min` to `max` is set to the nearer of them.

    `fixed`: always `mean`. `uniform`: from `min` to `max`. `lognormal`: of that `mean`, `sigma` that of the logarithm.
    `geometric`: of that `mean`.
    """

    kind: str
    mean: float = 0.0
    sigma: float = 1.0
    min: int = 1
    max: int = 1_000_000

    def draw(self, count: int, rng: random.Random) -> list[int]:
        """`count` lengths. Raises WorkloadError where a parameter is not valid."""
        if not 1 <= self.min <= self.max <= 1_000_000:
            raise WorkloadError(f"min {self.min} and max {self.max} are not between 1 and 1,000,000 in this order")
        draws: dict[str, Callable[[], float]] = {
            "fixed": lambda: self.mean,
            "uniform": lambda: rng.randint(self.min, self.max),
            "lognormal": lambda: rng.lognormvariate(math.log(self.mean) - self.sigma**2 / 2, self.sigma),
            "geometric": lambda: 1 + rng.expovariate(-math.log1p(-1 / self.mean)) // 1 if self.mean > 1 else 1,
        }
        if self.kind not in draws:
            raise WorkloadError(f"kind {self.kind!r} is not one of {', '.join(map(repr, draws))}")
        if self.kind != "uniform" and not 1 <= self.mean <= 1_000_000:
            raise WorkloadError(f"mean {self.mean:g} is not 1 to 1,000,000")
        if not 0 <= self.sigma <= 10:
            raise WorkloadError(f"sigma {self.sigma:g} is not 0 to 10")
        draw = draws[self.kind]
        return [min(max(round(draw()), self.min), self.max) for _ in range(count)]


@dataclass(frozen=True)
class Workload:
    """Requests and when they come: (arrival in ns from the start, prompt) in the order of arrival.

    `notes` say, a line each, what was changed of it: nothing is left out, scaled or clipped silently.
    """

    name: str
    arrivals: str
    requests: tuple[tuple[int, Prompt | TokenPrompt], ...]
    seed: int | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, prompts: Sequence[Prompt | TokenPrompt], arrivals: Arrivals) -> "Workload":
        """Prompts with arrival times, in the order of those; their own order among equals."""
        timed = zip(arrivals.times_ns(prompts), prompts, strict=True)
        seed = arrivals.seed if arrivals.kind in ("poisson", "bursts") else None
        if not is_text(name):  # a file's name that is no UTF-8
            name = name.encode(errors="replace").decode()
        return cls(name, str(arrivals), tuple(sorted(timed, key=lambda request: request[0])), seed)

    @property
    def at_once(self) -> bool:
        """Do all requests come at the very start?"""
        return all(at == 0 for at, _ in self.requests)

    @property
    def rate(self) -> float | None:
        """Requests a second from the first arrival to the last; None where they come together."""
        first, last = self.requests[0][0], self.requests[-1][0]
        return (len(self.requests) - 1) / (last - first) * 1e9 if last > first else None

    def scaled(self, factor: float) -> "Workload":
        """With every arrival at `factor` times its time. Raises WorkloadError where the factor is not valid."""
        if not (factor > 0 and math.isfinite(factor)):
            raise WorkloadError(f"time scale: {factor:g} is not above 0")
        requests = tuple((_ns(f"time scale {factor:g}", at * factor), prompt) for at, prompt in self.requests)
        return replace(self, requests=requests, arrivals=f"{self.arrivals}, times multiplied by {factor:g}")

    def at_rate(self, rate: float, seed: int = 0) -> "Workload":
        """With that many requests a second: their times scaled, or a Poisson process where all come together.

        Raises WorkloadError where the rate is not valid.
        """
        if not (rate > 0 and math.isfinite(rate)):
            raise WorkloadError(f"rate: {rate:g} is not above 0 requests a second")
        if self.rate is not None:
            span_ns = self.requests[-1][0] - self.requests[0][0]
            _ns(f"rate {rate:g}", span_ns * (self.rate / rate))
            return self.scaled(self.rate / rate)
        prompts = [prompt for _, prompt in self.requests]
        return replace(Workload.of(self.name, prompts, Arrivals("poisson", rate, seed)), notes=self.notes)

    def clipped(self, max_model_len: int) -> "Workload":
        """With prompts cut so that they and their answers have at most `max_model_len` tokens.

        Only prompts that are lengths can be cut; where an answer is too long by itself, one token of the prompt is
        left. A text is left as it is: the engine refuses it by name.
        """
        requests: list[tuple[int, Prompt | TokenPrompt]] = []
        cut: list[TokenPrompt] = []
        for at, prompt in self.requests:
            fits = prompt
            if isinstance(prompt, TokenPrompt) and prompt.prompt_tokens + prompt.output_tokens > max_model_len:
                output = min(prompt.output_tokens, max_model_len - 1)
                fits = replace(prompt, prompt_tokens=max_model_len - output, output_tokens=output)
                cut.append(prompt)
            requests.append((at, fits))
        if not cut:
            return self
        longest = max(prompt.prompt_tokens + prompt.output_tokens for prompt in cut)
        note = (
            f"{len(cut)} of {len(requests)} requests are clipped to max_model_len, {max_model_len} tokens (the longest"
            f" has {longest:,})"
        )
        return replace(self, requests=tuple(requests), notes=(*self.notes, note))

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over every prompt, pinned length, arrival time and client."""
        content = [(at, *_content(prompt)) for at, prompt in self.requests]
        return hashlib.sha256(msgspec.json.encode(content)).hexdigest()

    def info(self) -> WorkloadInfo:
        """What a trace says of it."""
        return WorkloadInfo(
            name=self.name,
            digest=self.digest,
            requests=len(self.requests),
            arrivals=self.arrivals,
            seed=self.seed,
        )


def _ns(field: str, ns: float) -> int:
    """A time in whole ns. Raises WorkloadError, which names the field, for one later than any run."""
    if not 0 <= ns <= MAX_ARRIVAL_NS:
        raise WorkloadError(f"{field}: a request would come later than {MAX_ARRIVAL_NS / 1e9:,.0f} seconds")
    return round(ns)


def _content(prompt: Prompt | TokenPrompt) -> tuple[object, ...]:
    client = () if prompt.client is None else (prompt.client,)
    if isinstance(prompt, Prompt):
        return prompt.id, prompt.prompt, prompt.output_tokens, *client
    made_of = (prompt.prompt_tokens, prompt.hash_ids, prompt.block_size, prompt.seed)
    return prompt.id, made_of, prompt.output_tokens, *client
