"""A request as it is asked for, and a sequence as the scheduler carries it through. No torch, no clock."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SamplingParams:
    """How a request's tokens are chosen and when it ends; greedy.

    max_tokens: output tokens at most. min_tokens: an end token before this many output tokens does not end it.
    """

    max_tokens: int = 128
    min_tokens: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens: {self.max_tokens} is less than 1")
        if not 0 <= self.min_tokens <= self.max_tokens:
            raise ValueError(f"min_tokens: {self.min_tokens} is not between 0 and max_tokens ({self.max_tokens})")


@dataclass(frozen=True)
class Request:
    """One request: a prompt in token ids, and how to answer it. `prompt` is its text, for the trace.

    priority: lower goes first, in the queue and against preemption; the older one among equals.
    """

    id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams = SamplingParams()
    prompt: str | None = None
    priority: int = 0

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise ValueError(f"request {self.id!r}: the prompt has no tokens")


@dataclass(eq=False, slots=True)
class Sequence:
    """A request on its way: which tokens it has, how many of them have KV, where it sits.

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

    def __post_init__(self) -> None:
        self.rank = (self.request.priority, self.number)

    @property
    def num_output_tokens(self) -> int:
        """Output tokens so far."""
        return len(self.token_ids) - len(self.request.prompt_ids)

    @property
    def num_uncomputed_tokens(self) -> int:
        """Tokens that lack KV: 1 for a sequence that decodes, more for one that prefills."""
        return len(self.token_ids) - self.num_computed_tokens
