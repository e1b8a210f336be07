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
    """One request: a prompt in token ids, and how to answer it. `prompt` is its text, for the trace."""

    id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams = SamplingParams()
    prompt: str | None = None

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise ValueError(f"request {self.id!r}: the prompt has no tokens")


@dataclass(eq=False, slots=True)
class Sequence:
    """A request on its way: which tokens it has, how many of them have KV, where it sits.

    `number` counts the requests in the order of their submission; it is the age that preemption and order go by.
    """

    number: int
    request: Request
    token_ids: list[int]
    num_computed_tokens: int = 0
    slot: int | None = None
    block_table: list[int] = field(default_factory=list)
    last_step: int = -1
    """The newest step this sequence advanced in."""

    @property
    def num_output_tokens(self) -> int:
        """Output tokens so far."""
        return len(self.token_ids) - len(self.request.prompt_ids)

    @property
    def num_uncomputed_tokens(self) -> int:
        """Tokens that lack KV: 1 for a sequence that decodes, more for one that prefills."""
        return len(self.token_ids) - self.num_computed_tokens

    @property
    def decodes(self) -> bool:
        """Does it decode (only its newest output token lacks KV), rather than prefill?"""
        return self.num_uncomputed_tokens == 1 and self.num_output_tokens > 0
