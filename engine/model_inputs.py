"""A step's plan as the arrays that a model computes from, for every device: one builder, one int32 buffer.

All that a step needs besides the model is in one buffer, so that a single copy takes it to a device. A step may be
padded to the shape that a CUDA graph was captured for. Knows plans and numpy; no torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tracereel.engine.request import SampleSpec
from tracereel.engine.sample_inputs import SAMPLE_FIELDS, fill_sample_fields
from tracereel.engine.scheduler import StepPlan
from tracereel.trace.format.events import DECODE

Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class StepShape:
    """How many of each there are in a step, padding included.

    decodes: rows of one token, which stand first. tokens: all, the decoding ones included. tiles: pieces of chunks that
    attention works on. samples: rows that get a token. writes: changes of block tables.
    """

    decodes: int
    tokens: int
    tiles: int
    samples: int
    writes: int

    @property
    def sizes(self) -> list[int]:
        """The lengths of `ModelInputs`' arrays."""
        rows, samples, writes = [self.tokens] * 3, [self.samples] * 2, [self.writes] * 2
        return [*rows, self.tiles + 1, *samples, *writes, len(SAMPLE_FIELDS) * self.samples]

    @property
    def length(self) -> int:
        """The length of a step's buffer."""
        return sum(self.sizes)

    def holds(self, other: "StepShape") -> bool:
        """Can a step of the other shape be padded to this one? Changes of block tables apart."""
        return (
            self.decodes >= other.decodes
            and self.tokens - self.decodes >= other.tokens - other.decodes
            and self.tiles >= other.tiles
            and self.samples >= other.samples
        )


class ModelInputs(NamedTuple):
    """The arrays of a step, int32, on the host (numpy) or on a device (torch): views of one buffer.

    Of each of the T tokens `slots`, `positions` and `ids`; the id of a decoding row is the newest token of its slot,
    which a device has itself. `tile_starts` [tiles + 1] says at which token each tile of the chunks begins and where
    the last one ends; a tile without tokens is idle. `sample_rows` are the tokens after which a new one is chosen, and
    `sample_slots` their slots. `table_index` and `table_blocks` are written into the flat block tables. `sampling`
    [fields x samples] says how tokens are drawn (`sample_inputs`).
    """

    slots: Any
    positions: Any
    ids: Any
    tile_starts: Any
    sample_rows: Any
    sample_slots: Any
    table_index: Any
    table_blocks: Any
    sampling: Any

    @classmethod
    def of(cls, buffer: Any, shape: StepShape) -> "ModelInputs":
        """The arrays of a step of this shape in its buffer, without a copy."""
        parts, at = [], 0
        for size in shape.sizes:
            parts.append(buffer[at : at + size])
            at += size
        return cls(*parts)


@dataclass(frozen=True, slots=True)
class TableShape:
    """The block tables of all slots: [slots + 1, width]. The last row is for padding, and leads to `spare_block`."""

    slots: int
    width: int
    spare_block: int


TableWrites = tuple[list[int], list[int]]
"""Places in the flat block tables, and the blocks that are written there."""


def table_writes(changes: Iterable[tuple[int, int, list[int]]], width: int) -> TableWrites:
    """Changes (slot, place in its table, blocks from there on) as writes into the flat tables."""
    index: list[int] = []
    blocks: list[int] = []
    for slot, at, new in changes:
        index.extend(range(slot * width + at, slot * width + at + len(new)))
        blocks.extend(new)
    return index, blocks


def shape_of(plan: StepPlan, writes: TableWrites, tile_tokens: int) -> StepShape:
    """The plan's own shape; chunks are cut into tiles of `tile_tokens` tokens."""
    decodes = plan.phases.count(DECODE)
    counts = [len(ids) for ids in plan.token_ids[decodes:]]
    rows = decodes + plan.padding
    tiles = sum(-(-count // tile_tokens) for count in counts)
    return StepShape(rows, rows + sum(counts), tiles, sum(plan.samples), len(writes[0]))


def fill_inputs(
    buffer: Int32Array,
    plan: StepPlan,
    writes: TableWrites,
    shape: StepShape,
    tables: TableShape,
    tile_tokens: int,
) -> ModelInputs:
    """Write a step into its buffer, padded to `shape`; returns the arrays.

    Padding rows and tokens stand at position 0 of the spare slot, padding tiles have no tokens, padding samples and
    writes go to the spare slot.
    """
    inputs = ModelInputs.of(buffer, shape)
    decodes = plan.phases.count(DECODE)
    inputs.slots[:decodes] = plan.slots[:decodes]
    inputs.positions[:decodes] = plan.positions[:decodes]
    inputs.ids[:decodes] = [ids[0] for ids in plan.token_ids[:decodes]]
    for array, blank in ((inputs.slots, tables.slots), (inputs.positions, 0), (inputs.ids, 0)):
        array[decodes : shape.decodes] = blank
    rows = list(range(decodes))
    tiles: list[int] = []
    at = shape.decodes
    for slot, start, ids in zip(plan.slots[decodes:], plan.positions[decodes:], plan.token_ids[decodes:], strict=True):
        end = at + len(ids)
        inputs.slots[at:end] = slot
        inputs.positions[at:end] = range(start, start + len(ids))
        inputs.ids[at:end] = ids
        tiles.extend(range(at, end, tile_tokens))
        rows.append(end - 1)
        at = end
    for array, blank in ((inputs.slots, tables.slots), (inputs.positions, 0), (inputs.ids, 0)):
        array[at:] = blank
    _fill(inputs.tile_starts, tiles, at)
    _fill(inputs.sample_rows, list(compress(rows, plan.samples)), 0)
    _fill(inputs.sample_slots, list(compress(plan.slots, plan.samples)), tables.slots)
    _fill(inputs.table_index, writes[0], tables.slots * tables.width)
    _fill(inputs.table_blocks, writes[1], tables.spare_block)
    fill_sample_fields(inputs.sampling.reshape(len(SAMPLE_FIELDS), shape.samples), plan.sample_specs)
    return inputs


def idle_inputs(buffer: Int32Array, shape: StepShape, tables: TableShape) -> ModelInputs:
    """A step of that shape in which everything is padding: it changes nothing."""
    return fill_inputs(buffer, _NOTHING, ([], []), shape, tables, 1)


def _fill(array: Int32Array, values: list[int], blank: int) -> None:
    array[: len(values)] = values
    array[len(values) :] = blank


_SPECS: list[SampleSpec | None] = []
_NOTHING = StepPlan([], [], "", [], [], [], _SPECS, 0, [], [], [], 0, 0, 0)
