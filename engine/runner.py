"""Runs a step's plan on a CPU: builds the batch, calls the model, chooses the new tokens.

Knows plans, tensors and block tables. Decides nothing: that is the scheduler's. `device_runner` is for devices that
compute in parallel with the host.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from tracereel.engine.attention import BatchLayout
from tracereel.engine.block_tables import BlockTables
from tracereel.engine.config import ConfigError, EngineConfig
from tracereel.engine.layer_ops import LayerOps, make_layer_ops
from tracereel.engine.model import LlamaModel
from tracereel.engine.model_inputs import TableShape, fill_inputs, shape_of, table_writes
from tracereel.engine.request import Samples
from tracereel.engine.sample_inputs import SAMPLE_FIELDS
from tracereel.engine.sampler import sample
from tracereel.engine.scheduler import StepPlan


class Runner(Protocol):
    """Executes plans; what an engine needs of a model."""

    def execute(self, plan: StepPlan) -> Samples:
        """Run one step; return the new token of each member that samples, in order, once they are on the host."""


@runtime_checkable
class AsyncRunner(Runner, Protocol):
    """A runner that can be given a step before the one it runs is done.

    A decoding member of the second may lack the token that the first will give it; `UNKNOWN` takes its place.
    """

    def launch(self, plan: StepPlan) -> Callable[[], Samples]:
        """Give the step to the device and come back at once; what is returned waits for its tokens.

        Up to two steps may be in flight, and are waited for in their order.
        """


def require_context(model: LlamaModel, config: EngineConfig) -> None:
    """Raise ConfigError where the configuration allows sequences longer than the model's context."""
    context = model.config.context
    if config.max_model_len > context:
        raise ConfigError(f"max_model_len: {config.max_model_len} is more than the model's context of {context} tokens")


def table_shape(config: EngineConfig) -> TableShape:
    """The block tables of a configuration's slots; the spare block follows those of the pool."""
    return TableShape(config.max_num_seqs, -(-config.max_model_len // config.block_size), config.num_blocks)


class ModelRunner:
    """Runs plans with a `LlamaModel` and a paged KV cache on a CPU.

    Raises ConfigError where the configuration allows sequences longer than the model's context.
    """

    def __init__(self, model: LlamaModel, config: EngineConfig, layer_ops: LayerOps | None = None):
        require_context(model, config)
        self._model = model
        self._layer_ops = layer_ops or make_layer_ops(model.shape, config.block_size)
        self._layer_ops.allocate(config.num_blocks + 1)
        self._shape = table_shape(config)
        size = (config.max_num_seqs + 1, self._shape.width)
        self._tables = torch.full(size, config.num_blocks, dtype=torch.int32)
        self._slots = BlockTables(config.max_num_seqs)

    def execute(self, plan: StepPlan) -> Samples:
        """Run one step; see the contract."""
        tile_tokens = self._layer_ops.tile_tokens
        writes = table_writes(self._slots.update(plan), self._shape.width)
        shape = shape_of(plan, writes, tile_tokens)
        buffer = np.empty(shape.length, dtype=np.int32)
        host = fill_inputs(buffer, plan, writes, shape, self._shape, tile_tokens)
        inputs = type(host)(*map(torch.from_numpy, host))
        self._tables.view(-1).index_copy_(0, inputs.table_index.long(), inputs.table_blocks)
        self._layer_ops.prepare(
            BatchLayout(shape.decodes, inputs.slots, inputs.positions, self._tables, inputs.tile_starts)
        )
        logits = self._model.forward(inputs.ids, self._layer_ops, inputs.sample_rows)
        return sample(logits, inputs.sampling.view(len(SAMPLE_FIELDS), -1), plan.sample_specs)
