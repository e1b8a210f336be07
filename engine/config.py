"""What an engine is told before it starts. Plain values, checked once, then recorded in every trace."""

from dataclasses import asdict, dataclass


class ConfigError(ValueError):
    """A setting cannot be; the message is one line and names the field, its value and what it may be."""


@dataclass(frozen=True)
class EngineConfig:
    """The scheduler's limits.

    max_num_seqs: slots, rows of the batch. max_num_batched_tokens: the token budget of one step. num_blocks KV blocks
    of block_tokens tokens each make up the block pool. max_model_len: most tokens of one sequence.

    Raises ConfigError where a value cannot be.
    """

    policy: str = "continuous"
    max_num_seqs: int = 8
    max_num_batched_tokens: int = 512
    num_blocks: int = 256
    block_tokens: int = 16
    max_model_len: int = 2048

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, int) and value < 1:
                raise ConfigError(f"{name}: {value} is less than 1")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ConfigError(
                f"max_num_batched_tokens: {self.max_num_batched_tokens} is less than max_num_seqs"
                f" ({self.max_num_seqs}); a step could not give every sequence a token"
            )
