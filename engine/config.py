"""The settings of an engine. Plain values, checked once, then recorded in every trace."""

from dataclasses import dataclass, fields

from tracereel.trace.format.bounds import shown

_MOST = {"max_num_seqs": 2**20, "block_size": 2**20, "max_wait_ms": 24 * 3600 * 1000}
_MOST_ELSE = 2**31 - 1
"""What a trace can hold, and what an array's index or a wait can be."""


class ConfigError(ValueError):
    """A setting is not valid; the message is one line and names the field, its value and what it may be."""


@dataclass(frozen=True)
class EngineConfig:
    """The scheduler's limits.

    max_num_seqs: slots, rows of the batch. max_num_batched_tokens: the token budget of one step. num_blocks KV blocks
    of block_size tokens each make up the block pool. max_model_len: most tokens of one sequence.
    enable_prefix_caching: full blocks are shared by sequences that begin with the same tokens. max_wait_ms: how long
    the `dynamic` policy waits for a batch to fill. batch_invariant: the bits of a sequence's numbers do not depend on
    the batch around it on a GPU either: products and attention keep one order of sums, which costs time.

    Raises ConfigError where a value is not valid.
    """

    policy: str = "continuous"
    max_num_seqs: int = 8
    max_num_batched_tokens: int = 512
    num_blocks: int = 256
    block_size: int = 16
    max_model_len: int = 2048
    enable_prefix_caching: bool = False
    max_wait_ms: int = 100
    batch_invariant: bool = False

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if type(value) is not type(setting.default):
                kind = {"int": "a whole number", "bool": "true or false"}.get(type(setting.default).__name__, "a name")
                raise ConfigError(f"{setting.name}: {shown(value)} is not {kind}")
            if type(value) is int and value < 1:
                raise ConfigError(f"{setting.name}: {shown(value)} is less than 1")
            if type(value) is int and value > (most := _MOST.get(setting.name, _MOST_ELSE)):
                raise ConfigError(f"{setting.name}: {shown(value)} is more than {most}")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ConfigError(
                f"max_num_batched_tokens: {self.max_num_batched_tokens} is less than max_num_seqs"
                f" ({self.max_num_seqs}); a step could not give every sequence a token"
            )
