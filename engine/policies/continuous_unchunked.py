"""Continuous batching without chunked prefill: a prompt is computed whole, in one step, as Orca did.

While a long prompt is computed, every decoding sequence waits for its next token; chunked prefill avoids that.
"""

from typing import ClassVar

from tracereel.engine.policies.base import Policy


class ContinuousUnchunked(Policy):
    """Admit where a step's token budget has room for the whole prompt; advance all."""

    name: ClassVar[str] = "continuous-unchunked"
    chunks: ClassVar[bool] = False
