"""Runs a step's plan: builds the batch, calls the model, brings the new tokens to the host.

Knows plans, tensors and the KV cache's places. Does not decide anything: that is the scheduler's. This one is for the
CPU and keeps its block tables there; `device_runner` is for what computes by itself.
"""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from tracereel.engine.attention import BatchLayout
from tracereel.engine.block_tables import BlockTables
from tracereel.engine.config import ConfigError, EngineConfig
from tracereel.engine.layer_ops import make_layer_ops
from tracereel.engine.model import LlamaModel
from tracereel.engine.request import Samples
from tracereel.engine.sampler import sample
from tracereel.engine.scheduler import StepPlan
from tracereel.trace.format.events import DECODE


class Runner(Protocol):
    """Executes plans; what an engine needs of a model."""

    def execute(self, plan: StepPlan) -> Samples:
        """Run one step; return the new token of each member that samples, in order, once they are on the host."""


class InFlightStep(Protocol):
    """A step that a device was given."""

    def wait(self) -> Samples:
        """Wait until its tokens are on the host."""


@runtime_checkable
class AsyncRunner(Runner, Protocol):
    """A runner that can be given a step before the one it runs is done.

    What decodes in the second may lack the token that the first will give it; `UNKNOWN` stands in its place.
    """

    def launch(self, plan: StepPlan) -> InFlightStep:
        """Give the step to the device and come back at once. Up to two may be on their way."""


def require_context(model: LlamaModel, config: EngineConfig) -> None:
    """Raise ConfigError where the configuration allows sequences longer than the model's context."""
    context = model.config.context
    if config.max_model_len > context:
        raise ConfigError(f"max_model_len: {config.max_model_len} is more than the model's context of {context} tokens")


class ModelRunner:
    """Runs plans with a `LlamaModel` and a paged KV cache.

    Raises ConfigError where the configuration allows sequences longer than the model's context.
    """

    def __init__(self, model: LlamaModel, config: EngineConfig):
        require_context(model, config)
        self._model = model
        self._block_size = config.block_size
        self._layer_ops = make_layer_ops(model.shape, config.num_blocks + 1, config.block_size)
        # A row a slot, and one of the block that is not the pool's, where padding rows write.
        width = -(-config.max_model_len // config.block_size)
        self._padding_row = config.max_num_seqs
        self._tables = np.full((config.max_num_seqs + 1, width), config.num_blocks, dtype=np.int64)
        self._seats = BlockTables(config.max_num_seqs)

    @property
    def attention_name(self) -> str:
        """What computes attention."""
        return self._layer_ops.name

    def execute(self, plan: StepPlan) -> Samples:
        """Run one step; see the contract."""
        for slot, at, blocks in self._seats.update(plan):
            self._tables[slot, at : at + len(blocks)] = blocks
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
        width = int((starts + counts).max() - 1) // self._block_size + 1
        self._layer_ops.prepare(
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
            self._layer_ops,
            torch.from_numpy((ends - 1)[samples]).to(device),
        )
        return sample(logits, plan.sample_specs)
