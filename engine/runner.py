"""Runs a step's plan on a device: builds the batch, calls the model, brings the new tokens to the host.

Knows plans, tensors and the KV cache's places. Does not decide anything: that is the scheduler's.
"""

from typing import Protocol

import numpy as np
import torch
from tracereel.engine.attention import BatchLayout
from tracereel.engine.config import ConfigError, EngineConfig
from tracereel.engine.kernels import make_kernels
from tracereel.engine.model import LlamaModel
from tracereel.engine.request import Samples
from tracereel.engine.sampler import sample
from tracereel.engine.scheduler import StepPlan
from tracereel.trace.events import DECODE


class Runner(Protocol):
    """Executes plans; what an engine needs of a model."""

    def execute(self, plan: StepPlan) -> Samples:
        """Run one step; return the new token of each member that samples, in order, once they are on the host."""


class ModelRunner:
    """Runs plans with a `LlamaModel` and a paged KV cache.

    Raises ConfigError where the configuration allows sequences longer than the model's context.
    """

    def __init__(self, model: LlamaModel, config: EngineConfig):
        context = model.geometry.context
        if config.max_model_len > context:
            raise ConfigError(
                f"max_model_len: {config.max_model_len} is more than the model's context of {context} tokens"
            )
        self._model = model
        self._block_tokens = config.block_tokens
        self._kernels = make_kernels(model.shape, config.num_blocks + 1, config.block_tokens)
        # A row a slot, and one of the block that is not the pool's, where padding rows write.
        width = -(-config.max_model_len // config.block_tokens)
        self._padding_row = config.max_num_seqs
        self._tables = np.full((config.max_num_seqs + 1, width), config.num_blocks, dtype=np.int64)
        self._filled = [0] * config.max_num_seqs
        self._seated: list[int | None] = [None] * config.max_num_seqs
        self._slots: dict[int, int] = {}

    @property
    def attention_name(self) -> str:
        """What computes attention."""
        return self._kernels.name

    def execute(self, plan: StepPlan) -> Samples:
        """Run one step; see the contract."""
        self._update_tables(plan)
        # Padding rows stand behind the decoding ones and are like them, but for where they write.
        decodes, padding = plan.phases.count(DECODE), plan.padding
        slots = plan.slots[:decodes] + [self._padding_row] * padding + plan.slots[decodes:]
        starts = np.array(plan.positions[:decodes] + [0] * padding + plan.positions[decodes:])
        members = plan.token_ids[:decodes] + [[0]] * padding + plan.token_ids[decodes:]
        samples = plan.samples[:decodes] + [False] * padding + plan.samples[decodes:]
        counts = np.array([len(ids) for ids in members])
        ends = counts.cumsum()
        rows = np.arange(len(counts)).repeat(counts)
        positions = np.arange(len(rows)) + (starts - ends + counts)[rows]
        width = int((starts + counts).max() - 1) // self._block_tokens + 1
        self._kernels.prepare(
            BatchLayout(
                num_decodes=decodes + padding,
                starts=starts,
                counts=counts,
                tables=self._tables[slots, :width],
                rows=rows,
                positions=positions,
            )
        )
        device = self._model.device
        logits = self._model.forward(
            torch.tensor([token for ids in members for token in ids], device=device),
            self._kernels,
            torch.from_numpy((ends - 1)[samples]).to(device),
        )
        return sample(logits, plan.draws)

    def _update_tables(self, plan: StepPlan) -> None:
        for admission in plan.admitted:
            before = self._seated[admission.slot]
            if before is not None and self._slots.get(before) == admission.slot:
                del self._slots[before]
            self._seated[admission.slot] = admission.request
            self._slots[admission.request] = admission.slot
            self._filled[admission.slot] = 0
        for grant in plan.blocks:
            slot = self._slots[grant.request]
            at = self._filled[slot]
            self._tables[slot, at : at + len(grant.blocks)] = grant.blocks
            self._filled[slot] = at + len(grant.blocks)
