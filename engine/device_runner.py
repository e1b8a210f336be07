"""Runs plans; what lasts from step to step is kept on the device: block tables, newest tokens, the KV cache.

A step is one upload of a few integers and, where its shape was captured, one replay of a CUDA graph, prefills or not.
Its tokens come back in one small copy; the next step is launched without waiting for them. Knows plans, the model
and torch; decides nothing.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from tracereel.engine.accelerator import faults_named
from tracereel.engine.attention import BatchLayout
from tracereel.engine.block_tables import BlockTables
from tracereel.engine.config import EngineConfig
from tracereel.engine.graph_buckets import GraphBuckets, bucket_for
from tracereel.engine.layer_ops import LayerOps
from tracereel.engine.model import LlamaModel
from tracereel.engine.model_inputs import (
    Int32Array,
    ModelInputs,
    StepShape,
    TableWrites,
    fill_inputs,
    idle_inputs,
    shape_of,
    table_writes,
)
from tracereel.engine.request import Samples
from tracereel.engine.runner import require_context, table_shape
from tracereel.engine.sample_inputs import SAMPLE_FIELDS
from tracereel.engine.sampler import Logprobs, choose, logprobs_of
from tracereel.engine.scheduler import StepPlan
from tracereel.engine.step_graphs import IN_FLIGHT, StepGraphs, StepTimer


class DeviceRunner:
    """Runs plans with a `LlamaModel`; the next step can be launched before the host has the tokens of this one.

    The KV cache has room for one block more than the pool: padding reads and writes there. Up to two steps may be in
    flight; they are waited for in their order. Raises ConfigError where the configuration allows sequences longer than
    the model's context, DeviceError where the device has too little memory.
    """

    def __init__(self, model: LlamaModel, config: EngineConfig, layer_ops: LayerOps):
        require_context(model, config)
        self._model, self._layer_ops = model, layer_ops
        layer_ops.allocate(config.num_blocks + 1)
        device = model.device
        self._shape = table_shape(config)
        self._slots = BlockTables(config.max_num_seqs)
        size = (config.max_num_seqs + 1, self._shape.width)
        self._tables = torch.full(size, config.num_blocks, dtype=torch.int32, device=device)
        self._newest = torch.zeros(config.max_num_seqs + 1, dtype=torch.int64, device=device)
        self._logits = torch.empty((config.max_num_seqs, model.config.vocabulary), dtype=model.dtype, device=device)
        cuda = device.type == "cuda"
        self._timer = StepTimer() if cuda else None
        self._answers = [torch.zeros(config.max_num_seqs, dtype=torch.int64, pin_memory=cuda) for _ in range(IN_FLIGHT)]
        self._launched = 0
        buckets = GraphBuckets(config, layer_ops.tile_tokens)
        self._shapes = buckets.shapes() if layer_ops.captures else []
        self._graphs: StepGraphs | None = None
        if self._shapes:
            if cuda:
                print(f"capturing {len(self._shapes)} CUDA graphs: {buckets}", file=sys.stderr, flush=True)
            with faults_named("capturing steps", "lower num_blocks, max_num_seqs or max_num_batched_tokens"):
                self._graphs = StepGraphs(self._compute, self._shapes, partial(idle_inputs, tables=self._shape), device)

    def execute(self, plan: StepPlan) -> Samples:
        """Run one step; see the contract."""
        return self.launch(plan)()

    @torch.inference_mode()
    def launch(self, plan: StepPlan) -> Callable[[], Samples]:
        """Give the step to the device; see the contract."""
        with faults_named("a step was launched"):
            number = self._timer.begin() if self._timer else self._launched
            self._launched += 1
            buffer, shape, tokens, padding = self._run(plan)
            count = len(plan.sample_specs)
            logprobs = None
            if any(spec is not None for spec in plan.sample_specs):
                tokens, logprobs = self._choose(ModelInputs.of(buffer, shape), shape, plan)
            answer = self._answers[number % IN_FLIGHT][:count]
            answer.copy_(tokens[:count], non_blocking=True)
            if self._timer is not None:
                self._timer.end(number)
        return partial(self._collect, number, answer, logprobs, padding)

    def _collect(self, number: int, answer: torch.Tensor, logprobs: Logprobs | None, padding: int) -> Samples:
        """Wait for a step that was launched."""
        device_ns = gap_ns = None
        if self._timer is not None:
            with faults_named("a step ran"):
                device_ns, gap_ns = self._timer.wait(number)
        return Samples(answer.tolist(), logprobs.read() if logprobs else {}, device_ns, gap_ns, padding)

    def _run(self, plan: StepPlan) -> tuple[torch.Tensor, StepShape, torch.Tensor, int]:
        """Compute a step: its buffer, its shape, the likeliest tokens, and how many of its tokens a graph added."""
        tile_tokens = self._layer_ops.tile_tokens
        writes = table_writes(self._slots.update(plan), self._shape.width)
        own = shape_of(plan, writes, tile_tokens)
        shape = bucket_for(self._shapes, own)
        if shape is None or self._graphs is None:
            # A step without samples computes one all the same: a kernel cannot be launched for no rows.
            shape = replace(own, samples=max(own.samples, 1))
            host = np.empty(shape.length, dtype=np.int32)
            fill_inputs(host, plan, writes, shape, self._shape, tile_tokens)
            buffer = self._upload(host)
            return buffer, shape, self._compute(buffer, shape), 0
        if own.writes > shape.writes:
            writes = self._write_tables(writes, shape.writes)
        fill_inputs(self._graphs.staging(shape), plan, writes, shape, self._shape, tile_tokens)
        buffer, tokens = self._graphs.run(shape)
        return buffer, shape, tokens, shape.tokens - own.tokens

    @torch.inference_mode()
    def _compute(self, buffer: torch.Tensor, shape: StepShape) -> torch.Tensor:
        """A step's buffer on the device -> the likeliest tokens, and their logits in `_logits`; a graph captures it."""
        inputs = ModelInputs.of(buffer, shape)
        decodes = shape.decodes
        if shape.writes:
            self._tables.view(-1).index_put_((inputs.table_index,), inputs.table_blocks)
        if decodes:
            inputs.ids[:decodes] = self._newest.index_select(0, inputs.slots[:decodes])
        layout = BatchLayout(decodes, inputs.slots, inputs.positions, self._tables, inputs.tile_starts)
        self._layer_ops.prepare(layout)
        logits = self._model.forward(inputs.ids, self._layer_ops, inputs.sample_rows, self._logits[: shape.samples])
        tokens = logits.max(dim=-1).indices
        self._newest.index_put_((inputs.sample_slots,), tokens)
        return tokens

    def _choose(self, inputs: ModelInputs, shape: StepShape, plan: StepPlan) -> tuple[torch.Tensor, Logprobs | None]:
        """The step's tokens as its members want them chosen, which takes the place of the likeliest on the device."""
        logits, specs = self._logits[: shape.samples], plan.sample_specs
        tokens = choose(logits, inputs.sampling.view(len(SAMPLE_FIELDS), shape.samples), specs)
        self._newest.index_put_((inputs.sample_slots,), tokens)
        found = logprobs_of(logits, tokens, specs)
        if found is None:
            return tokens, None
        on_host = (self._to_host(tensor) for tensor in (found.chosen, found.values, found.ids))
        return tokens, Logprobs(found.asked, *on_host)

    def _to_host(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy on the host that is there once the step is done."""
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda")
        return host.copy_(tensor, non_blocking=True)

    def _write_tables(self, writes: TableWrites, room: int) -> TableWrites:
        """Write first the table changes that a graph has no room for (a cached prefix has many); returns the rest."""
        index, blocks = writes
        inputs = self._upload(np.array([index[room:], blocks[room:]], dtype=np.int32))
        self._tables.view(-1).index_put_((inputs[0],), inputs[1])
        return index[:room], blocks[:room]

    def _upload(self, array: Int32Array) -> torch.Tensor:
        # The host does not wait: CUDA stages what a copy from pageable memory has not read when it returns.
        return torch.from_numpy(array).to(self._model.device, non_blocking=True)
