"""A request as it is submitted, and a sequence: the request with its state in the scheduler. No torch, no clock."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn, get_type_hints

import msgspec
from tracereel.trace.format import events
from tracereel.trace.format.bounds import fault, is_text, shown

MAX_LOGPROBS = 64
MAX_SEED = 2**63 - 1
_SMALLEST, _LARGEST = 1e-10, 1e10
"""What logits may be divided or multiplied by: beyond these bounds the results are not finite in fp32."""


class RequestError(ValueError):
    """A request is not valid; the message is one line and names the field, its value and what it may be."""


def _is_whole(value: object, least: int, most: int = 2**31 - 1) -> bool:
    return type(value) is int and least <= value <= most


@dataclass(frozen=True)
class SamplingParams:
    """How a request's tokens are chosen and when it ends; greedy where nothing else is said.

    max_tokens: output tokens at most. min_tokens: an end token, a stop token or a stop string before this many output
    tokens does not end it. ignore_eos: the model's end tokens never end it.

    stop: texts that end it once they stand in its output, which is cut before the first of them. stop_token_ids: tokens
    that end it, besides the model's own.

    temperature: logits are divided by it; 0 is greedy. top_k: only the k likeliest tokens are drawn from; 0 for all.
    top_p: only the likeliest tokens that together have this probability. min_p: only tokens at least this fraction as
    likely as the likeliest. They apply in the order temperature, min_p, top_k, top_p; tokens as likely as the last one
    kept are kept too. repetition_penalty: logits of tokens that stand in prompt or output are divided by it where they
    are positive, and multiplied where not; 1 for none.

    seed: the same seed gives the same draws, whatever the batch around them; the request's number where there is none.

    logprobs: log-probabilities of the token chosen and of this many of the likeliest come with each token; None for
    none. They are the model's own, before temperature and all that follows.

    Raises RequestError where a value is not valid.
    """

    max_tokens: int = 128
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    logprobs: int | None = None

    def __post_init__(self) -> None:
        self._whole("max_tokens", 1)
        self._whole("min_tokens", 0)
        if self.min_tokens > self.max_tokens:
            raise RequestError(f"min_tokens: {self.min_tokens} is more than max_tokens ({self.max_tokens})")
        self._flag("ignore_eos")
        if type(self.stop) is not tuple or not all(type(text) is str and text and is_text(text) for text in self.stop):
            raise RequestError(f"stop: {shown(self.stop)} is not a tuple of texts that are not empty")
        if type(self.stop_token_ids) is not tuple or not all(_is_whole(i, 0) for i in self.stop_token_ids):
            raise RequestError(f"stop_token_ids: {shown(self.stop_token_ids)} is not a tuple of token ids")
        self._number(
            "temperature",
            lambda value: value == 0 or value >= _SMALLEST,
            f"that is 0 or from {_SMALLEST:g} to {_LARGEST:g}",
        )
        self._whole("top_k", 0)
        self._number("top_p", lambda value: 0 < value <= 1, "above 0 and at most 1")
        self._number("min_p", lambda value: 0 <= value <= 1, "between 0 and 1")
        self._number("repetition_penalty", lambda value: value >= _SMALLEST, f"from {_SMALLEST:g} to {_LARGEST:g}")
        if self.seed is not None:
            self._whole("seed", 0, MAX_SEED)
        if self.logprobs is not None:
            self._whole("logprobs", 0, MAX_LOGPROBS)

    def _whole(self, name: str, least: int, most: int = 2**31 - 1) -> None:
        value = getattr(self, name)
        if not _is_whole(value, least, most):
            raise RequestError(f"{name}: {shown(value)} is not a whole number from {least} to {most}")

    def _flag(self, name: str) -> None:
        if type(value := getattr(self, name)) is not bool:
            raise RequestError(f"{name}: {shown(value)} is not True or False")

    def _number(self, name: str, holds: Callable[[float], bool], wanted: str) -> None:
        value = getattr(self, name)
        if type(value) not in (int, float) or not abs(value) <= _LARGEST or not holds(value):
            raise RequestError(f"{name}: {shown(value)} is not a number {wanted}")

    @property
    def is_greedy(self) -> bool:
        """Is each token just the likeliest one, without log-probabilities?"""
        return self.temperature == 0 and self.repetition_penalty == 1 and self.logprobs is None


@dataclass(frozen=True, slots=True)
class SampleSpec:
    """How to choose one token that is not just the likeliest.

    `index` counts the request's output tokens before this one; with `key` it decides the random number, and nothing
    else does. `context` are the tokens of prompt and output so far, where the repetition penalty wants them.
    """

    params: SamplingParams
    key: tuple[int, int]
    index: int
    context: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural logarithms of probabilities: of the token that was chosen, and (token id, of it) of the likeliest."""

    chosen: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Samples:
    """A step's new tokens on the host, and log-probabilities of those that asked, by their place in `tokens`.

    Where the device says so: the time it computed, the time it had waited for this step since the one before, in ns,
    and how many rows it computed for nothing besides those that were planned.
    """

    tokens: list[int]
    logprobs: dict[int, TokenLogprobs] = field(default_factory=dict)
    device_ns: int | None = None
    device_gap_ns: int | None = None
    graph_padding: int = 0


class _Bounds(msgspec.Struct):
    """What a trace can hold of a request: asked of all its fields at once, which a server does for each request."""

    id: events.Name
    prompt_ids: tuple[events.Index, ...]
    prompt: events.Prompt | None
    priority: events.Priority
    client: events.Name | None


@dataclass(frozen=True)
class Request:
    """One request: a prompt in token ids, and how to answer it. `prompt` is its text, for the trace.

    priority: lower goes first, in the queue and against preemption; the older one among equals. client: who sent
    it, for a policy that shares the engine fairly; None where that is not known.

    Every field has the bounds of the trace (`trace/format/events`), so that what was run can be recorded. Raises
    RequestError where one is outside them.
    """

    id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams = SamplingParams()
    prompt: str | None = None
    priority: int = 0
    client: str | None = None

    def __post_init__(self) -> None:
        if type(self.sampling) is SamplingParams and type(self.prompt_ids) is tuple and self.prompt_ids:
            fields = {name: getattr(self, name) for name in _Bounds.__struct_fields__}
            try:
                msgspec.json.encode(msgspec.convert(fields, _Bounds))  # a string that is no UTF-8 cannot be encoded
                return
            except (
                msgspec.ValidationError,
                UnicodeEncodeError,
                TypeError,
            ):  # a subclass of str cannot be encoded either
                pass  # which field it is, and its value, are said below
        self._say_what_is_wrong()

    def _say_what_is_wrong(self) -> NoReturn:
        if what := fault(self.id, events.Name):
            raise RequestError(f"id: {shown(self.id)}: {what}")
        name = f"request {shown(self.id)}"
        for own, kind in get_type_hints(_Bounds, include_extras=True).items():
            if what := fault(value := getattr(self, own), kind):
                raise RequestError(f"{name}: {own}: {shown(value)}: {what}")
        if type(self.prompt_ids) is not tuple:
            raise RequestError(f"{name}: prompt_ids: {shown(self.prompt_ids)} is not a tuple")
        if not self.prompt_ids:
            raise RequestError(f"{name}: prompt_ids: the prompt has no tokens")
        raise RequestError(f"{name}: sampling: {shown(self.sampling)} is not SamplingParams")


def require_valid(request: Request) -> None:
    """Raise RequestError where a field is outside its bounds.

    A request is checked when it is made, but a subclass may leave that out, and Python lets a frozen field be set.
    """
    Request.__post_init__(request)
    SamplingParams.__post_init__(request.sampling)


def require_due(request: Request, arrival_ns: int, now_ns: int) -> None:
    """Raise RequestError where a request cannot have been due at `arrival_ns` (engine time), which is to be past."""
    if type(arrival_ns) is int and 0 <= arrival_ns <= now_ns:
        return
    name = f"request {shown(request.id)}: arrival_ns"
    if what := fault(arrival_ns, events.Nanoseconds):
        raise RequestError(f"{name}: {shown(arrival_ns)}: {what}")
    raise RequestError(f"{name}: {arrival_ns} is later than the engine's time, {now_ns}; submit it when it is due")


@dataclass(eq=False, slots=True)
class Sequence:
    """A request in the scheduler: which tokens it has, how many of them have KV, where it sits.

    `number` counts the requests in the order of their submission. `arrival_ns` is when it was due, in engine time.
    """

    number: int
    request: Request
    token_ids: list[int]
    arrival_ns: int = 0
    num_computed_tokens: int = 0
    slot: int | None = None
    prefills: bool = True
    """Does it compute tokens that are known? From its admission until it gives a token; after that it decodes."""
    block_table: list[int] = field(default_factory=list)
    num_full_blocks: int = 0
    """The blocks at the head of its table whose tokens are all computed."""
    prefix: int = 0
    """The number of those blocks' content in the prefix cache; see `block_pool`."""
    last_step: int = -1
    """The newest step this sequence advanced in."""
    rank: tuple[int, int] = field(init=False)
    """Its place in every order: the lowest priority first, the oldest first among equals."""
    is_greedy: bool = field(init=False)

    def __post_init__(self) -> None:
        self.rank = (self.request.priority, self.number)
        self.is_greedy = self.request.sampling.is_greedy

    def sample_spec(self) -> SampleSpec:
        """How its next token is to be chosen."""
        params = self.request.sampling
        # Requests that name no seed must not draw the same numbers as one that names theirs: hence two kinds of keys.
        key = (self.number, 1) if params.seed is None else (params.seed, 0)
        context = tuple(self.token_ids) if params.repetition_penalty != 1 else ()
        return SampleSpec(params, key, self.num_output_tokens, context)

    @property
    def num_output_tokens(self) -> int:
        """Output tokens so far."""
        return len(self.token_ids) - len(self.request.prompt_ids)

    @property
    def num_uncomputed_tokens(self) -> int:
        """Tokens that lack KV: 1 for a sequence that decodes, more for one that prefills."""
        return len(self.token_ids) - self.num_computed_tokens
