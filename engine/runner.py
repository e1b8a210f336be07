"""Runs a step's plan on a device: builds the batch, calls the model, brings the new tokens to the host.

Knows plans, tensors and the KV cache's places. Does not decide anything: that is the scheduler's.
"""

from typing import Protocol

import numpy as np
import torch
from tracereel.engine.attention import BatchLayout, GatherAttention
from tracereel.engine.config import ConfigError, EngineConfig
from tracereel.engine.model import LlamaModel
from tracereel.engine.sampler import greedy
from tracereel.engine.scheduler import StepPlan


class Runner(Protocol):
    """Executes plans; what an engine needs of a model."""

    def execute(self, plan: StepPlan) -> list[int]:
        """Run one step; return the new token of each member that samples, in order, once they are on the host."""


class ModelRunner:
    """Runs plans with a `LlamaModel` and a paged KV cache.

    Raises ConfigError where the configuration allows sequences longer than the model's context.
    """

    def __init__(self, model: LlamaModel, config: EngineConfig):
        geometry = model.geometry
        if config.max_model_len > geometry.context:
            raise ConfigError(
                f"max_model_len: {config.max_model_len} is more than the model's context of {geometry.context} tokens"
            )
        self._model = model
        self._block_tokens = config.block_tokens
        self._scratch_block = config.num_blocks  # one more than the pool has: where padding rows write
        self._attention = GatherAttention(
            layers=geometry.layers,
            heads=geometry.heads,
            kv_heads=geometry.kv_heads,
            head_dim=geometry.head_dim,
            num_blocks=config.num_blocks + 1,
            block_tokens=config.block_tokens,
            dtype=model.dtype,
            device=model.device,
        )
        width = -(-config.max_model_len // config.block_tokens)
        self._tables = np.zeros((config.max_num_seqs, width), dtype=np.int64)
        self._filled = [0] * config.max_num_seqs
        self._seated: list[int | None] = [None] * config.max_num_seqs
        self._slots: dict[int, int] = {}

    @property
    def attention_name(self) -> str:
        """Which attention backend runs."""
        return self._attention.name

    def execute(self, plan: StepPlan) -> list[int]:
        """Run one step; see the contract."""
        self._update_tables(plan)
        decodes, padding = plan.phases.count("D"), plan.padding
        counts = [len(ids) for ids in plan.token_ids]
        # Padding rows stand behind the decoding ones and are like them, but for where they write.
        starts = plan.positions[:decodes] + [0] * padding + plan.positions[decodes:]
        lengths = counts[:decodes] + [1] * padding + counts[decodes:]
        ids = [token for member in plan.token_ids[:decodes] for token in member]
        ids += [0] * padding
        ids += [token for member in plan.token_ids[decodes:] for token in member]
        device = self._model.device
        tables = self._tables[plan.slots]
        longest = max(start + length for start, length in zip(starts, lengths, strict=True))
        tables = tables[:, : -(-longest // self._block_tokens)]
        pad_rows = np.full((padding, tables.shape[1]), self._scratch_block, dtype=np.int64)
        tables = np.concatenate([tables[:decodes], pad_rows, tables[decodes:]])
        counts_array = np.array(lengths)
        rows = np.repeat(np.arange(len(lengths)), counts_array)
        first = np.cumsum(counts_array) - counts_array
        positions = np.array(starts)[rows] + np.arange(len(rows)) - first[rows]
        blocks = tables[rows, positions // self._block_tokens]
        slot_mapping = blocks * self._block_tokens + positions % self._block_tokens
        ends = first + counts_array - 1
        samples = np.array(plan.samples[:decodes] + [False] * padding + plan.samples[decodes:])
        self._attention.prepare(
            BatchLayout(
                num_decodes=decodes + padding,
                starts=starts,
                counts=lengths,
                tables=torch.from_numpy(tables).to(device),
                slot_mapping=torch.from_numpy(slot_mapping).to(device),
            )
        )
        logits = self._model.forward(
            torch.tensor(ids, device=device),
            torch.from_numpy(positions).to(device),
            self._attention,
            torch.from_numpy(ends[samples]).to(device),
        )
        return greedy(logits) if len(logits) else []

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
