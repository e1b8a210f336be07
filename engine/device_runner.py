"""Runs plans with all that lasts from step to step kept on the device: block tables, newest tokens, the KV cache.

A step in which all decode needs a few numbers a row, is a CUDA graph where there is CUDA, and gives its tokens back in
one small copy that nobody waits for before the next step is on its way. Knows plans, the model and torch; does not
decide anything.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from tracereel.engine.accelerator import faults_named
from tracereel.engine.attention import DeviceLayout
from tracereel.engine.block_tables import BlockTables
from tracereel.engine.config import EngineConfig
from tracereel.engine.decode_graphs import FLIGHTS, DecodeGraphs, StepTimer
from tracereel.engine.layer_ops import DeviceLayerOps
from tracereel.engine.model import LlamaModel
from tracereel.engine.request import Samples
from tracereel.engine.runner import require_context
from tracereel.engine.sampler import sample
from tracereel.engine.scheduler import StepPlan
from tracereel.engine.step_inputs import (
    Int32Array,
    TableChanges,
    Tables,
    bucket_of,
    bucket_sizes,
    decode_inputs,
    idle_inputs,
    mixed_inputs,
)
from tracereel.trace.format.events import PREFILL

Computed = tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]
"""Of those that get a token: logits [n, vocabulary], likeliest tokens [n], slots [n]; and rows besides the plan's."""

_NO_CHUNKS = np.zeros(1, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class InFlightStep:
    """A step of a DeviceRunner that was launched."""

    runner: "DeviceRunner"
    number: int
    count: int
    graph_padding: int
    samples: Samples | None
    """There already, where the host had to choose them."""

    def wait(self) -> Samples:
        """Wait until its tokens are on the host."""
        return self.runner.collect(self.number, self.count, self.graph_padding, self.samples)


class DeviceRunner:
    """Runs plans with a `LlamaModel`; the next step can be launched before the host has the tokens of this one.

    `layer_ops` has room for one block more than the pool: padding rows read and write there. Up to two steps may be in
    flight; they are waited for in their order. Raises ConfigError where the configuration allows sequences longer than
    the model's context, DeviceError where the device's memory does not suffice.
    """

    def __init__(self, model: LlamaModel, config: EngineConfig, layer_ops: DeviceLayerOps):
        require_context(model, config)
        self._model, self._layer_ops = model, layer_ops
        device = model.device
        self._tables = Tables(config.max_num_seqs, -(-config.max_model_len // config.block_size), config.num_blocks)
        self._seats = BlockTables(config.max_num_seqs)
        size = (config.max_num_seqs + 1, self._tables.width)
        self._device_tables = torch.full(size, config.num_blocks, dtype=torch.int32, device=device)
        self._newest = torch.zeros(config.max_num_seqs + 1, dtype=torch.int64, device=device)
        self._every_row = torch.arange(config.max_num_seqs, device=device)
        self._sizes = bucket_sizes(config.max_num_seqs)
        self._timer: StepTimer | None = None
        self._graphs: DecodeGraphs | None = None
        if device.type == "cuda":
            self._timer = StepTimer()
            self._answers = [
                torch.zeros(config.max_num_seqs, dtype=torch.int64, pin_memory=True) for _ in range(FLIGHTS)
            ]
            with faults_named("capturing decode steps", "lower num_blocks or max_num_seqs"):
                self._graphs = DecodeGraphs(
                    self._decode, self._sizes, lambda size: idle_inputs(self._tables, size), device
                )

    @property
    def attention_name(self) -> str:
        """What computes attention."""
        return self._layer_ops.name + (", decode in CUDA graphs" if self._graphs else "")

    def execute(self, plan: StepPlan) -> Samples:
        """Run one step; see the contract."""
        return self.launch(plan).wait()

    @torch.inference_mode()
    def launch(self, plan: StepPlan) -> InFlightStep:
        """Give the step to the device; see the contract."""
        with faults_named("a step was launched"):
            number = self._timer.begin() if self._timer else 0
            changes = self._seats.update(plan)
            compute = self._compute_mixed if PREFILL in plan.phases else self._compute_decodes
            logits, tokens, takers, graph_padding = compute(plan, changes)
            if any(spec is not None for spec in plan.sample_specs):
                # Their parameters live on the host, and so these tokens come by way of it.
                samples = replace(sample(logits, plan.sample_specs), graph_padding=graph_padding)
                self._newest.index_put_((takers,), torch.tensor(samples.tokens, device=self._newest.device))
            elif self._timer is None:
                samples = Samples(tokens.tolist(), graph_padding=graph_padding)
            else:
                samples = None
                self._answers[number % FLIGHTS][: len(tokens)].copy_(tokens, non_blocking=True)
            if self._timer is not None:
                self._timer.end(number)
        return InFlightStep(self, number, len(tokens), graph_padding, samples)

    def collect(self, number: int, count: int, graph_padding: int, samples: Samples | None) -> Samples:
        """Wait for a step that was launched."""
        if self._timer is None:
            assert samples is not None
            return samples
        with faults_named("a step ran"):
            device_ns, gap_ns = self._timer.wait(number)
        if samples is None:
            samples = Samples(self._answers[number % FLIGHTS][:count].tolist(), graph_padding=graph_padding)
        return replace(samples, device_ns=device_ns, device_gap_ns=gap_ns)

    def _compute_decodes(self, plan: StepPlan, changes: TableChanges) -> Computed:
        rows = len(plan.slots)
        if self._graphs is not None:
            size = bucket_of(self._sizes, rows + plan.padding)
            inputs, logits, tokens = self._graphs.replay(decode_inputs(plan, changes, self._tables, size))
        else:
            size = rows + plan.padding
            inputs = self._upload(decode_inputs(plan, changes, self._tables, size))
            logits, tokens = self._decode(inputs)
        return logits[:rows], tokens[:rows], inputs[0, :rows], size - rows - plan.padding

    @torch.inference_mode()
    def _decode(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`decode_inputs` on the device -> logits and tokens; what a graph is captured of."""
        slots, positions, places, blocks = inputs.unbind()
        self._device_tables.view(-1).index_put_((places,), blocks)
        self._layer_ops.use(DeviceLayout(len(slots), slots, positions, self._device_tables, _NO_CHUNKS + len(slots)))
        ids = self._newest.index_select(0, slots)
        logits = self._model.forward(ids, self._layer_ops, self._every_row[: len(slots)])
        tokens = logits.max(dim=-1).indices
        self._newest.index_put_((slots,), tokens)
        return logits, tokens

    def _compute_mixed(self, plan: StepPlan, changes: TableChanges) -> Computed:
        host = mixed_inputs(plan, changes, self._tables)
        slots, positions, ids, last, takers, places, blocks = torch.split(self._upload(host.packed), host.sizes)
        self._device_tables.view(-1).index_put_((places,), blocks)
        ids[: host.decodes] = self._newest.index_select(0, slots[: host.decodes])
        self._layer_ops.use(DeviceLayout(host.decodes, slots, positions, self._device_tables, host.chunks))
        # A step in which nobody gets a token computes one all the same: no kernel can be launched for no rows.
        rows = last if len(last) else torch.zeros_like(slots[:1])
        logits = self._model.forward(ids, self._layer_ops, rows)[: len(last)]
        tokens = logits.max(dim=-1).indices
        self._newest.index_put_((takers,), tokens)
        return logits, tokens, takers, 0

    def _upload(self, words: Int32Array) -> torch.Tensor:
        # Nobody waits: what a copy from ordinary memory has not yet read when it comes back, CUDA has put aside.
        return torch.from_numpy(words).to(self._model.device, non_blocking=True)
