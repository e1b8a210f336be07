"""Continuous batching: a free slot is retaken at the next step, and every running sequence advances in every step.

Iteration-level scheduling: Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models",
OSDI 2022. A prompt larger than what is left of the token budget is computed in chunks together with the decodes:
Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve", OSDI 2024.
"""

from typing import ClassVar

from tracereel.engine.policies.base import Policy


class Continuous(Policy):
    """Admit whenever there is room; advance all."""

    name: ClassVar[str] = "continuous"
