"""What a step needs on the device, as a few host arrays: rows, places, ids, changes of block tables.

Block tables [slots + 1, width] and the newest token of each slot [slots + 1] stay on the device from step to step; the
last row of both is nobody's, and its table leads to a block that is not the pool's: rows that are computed for nothing
read and write there. Knows plans and numpy; no torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tracereel.engine.scheduler import StepPlan
from tracereel.trace.format.events import DECODE

Int32Array = npt.NDArray[np.int32]
TableChanges = Iterable[tuple[int, int, list[int]]]
"""(slot, place in its table, blocks from there on)."""


def bucket_sizes(most: int) -> list[int]:
    """The batch sizes for which a decode step is captured, up to `most`: close together where a row weighs much."""
    sizes = [1, 2, 4, 8, *range(16, 128, 16), *range(128, 256, 32), *range(256, most, 64)]
    return [size for size in sizes if size < most] + [most]


def bucket_of(sizes: list[int], rows: int) -> int:
    """The smallest size that holds so many rows."""
    return next(size for size in sizes if size >= rows)


@dataclass(frozen=True, slots=True)
class Tables:
    """The shape of the tables on the device: rows that slots have, blocks of a row, the block that is nobody's."""

    slots: int
    width: int
    spare_block: int


def table_writes(changes: TableChanges, width: int) -> tuple[list[int], list[int]]:
    """The changes as places in the flat tables and what is written there."""
    places: list[int] = []
    blocks: list[int] = []
    for slot, at, new in changes:
        places.extend(range(slot * width + at, slot * width + at + len(new)))
        blocks.extend(new)
    return places, blocks


def decode_inputs(plan: StepPlan, changes: TableChanges, tables: Tables, size: int) -> Int32Array:
    """A step in which all decode, as [4, size]: each row's slot and position; places in the tables, their new blocks.

    A row takes at most one new block, so that there are never more changes than rows.
    """
    inputs = idle_inputs(tables, size)
    rows = len(plan.slots)
    inputs[0, :rows] = plan.slots
    inputs[1, :rows] = plan.positions
    places, blocks = table_writes(changes, tables.width)
    inputs[2, : len(places)] = places
    inputs[3, : len(blocks)] = blocks
    return inputs


def idle_inputs(tables: Tables, size: int) -> Int32Array:
    """`decode_inputs` of a step in which nobody decodes."""
    row = [tables.slots, 0, tables.slots * tables.width, tables.spare_block]
    return np.array(row, dtype=np.int32).repeat(size).reshape(4, size)


@dataclass(frozen=True, slots=True)
class MixedInputs:
    """A step in which some prefill.

    Of each of the T tokens `slots`, `positions` and `ids` (0 where a decoding row's newest token is to be taken from
    the device); `chunks` says at which token each chunk begins and the last one ends; `last` and `takers` are the rows
    that give a token and their slots; `places` and `blocks` change the tables.
    """

    decodes: int
    slots: Int32Array
    positions: Int32Array
    ids: Int32Array
    last: Int32Array
    takers: Int32Array
    places: Int32Array
    blocks: Int32Array
    chunks: npt.NDArray[np.int64]

    @property
    def packed(self) -> Int32Array:
        """All that goes to the device, one after the other, for a single copy."""
        return np.concatenate([self.slots, self.positions, self.ids, self.last, self.takers, self.places, self.blocks])

    @property
    def sizes(self) -> list[int]:
        """The lengths of the parts of `packed`."""
        parts = (self.slots, self.positions, self.ids, self.last, self.takers, self.places, self.blocks)
        return [len(part) for part in parts]


def mixed_inputs(plan: StepPlan, changes: TableChanges, tables: Tables) -> MixedInputs:
    """The arrays of a step in which some prefill."""
    decodes, padding = plan.phases.count(DECODE), plan.padding
    slots = np.array(plan.slots[:decodes] + [tables.slots] * padding + plan.slots[decodes:], dtype=np.int32)
    starts = np.array(plan.positions[:decodes] + [0] * padding + plan.positions[decodes:], dtype=np.int32)
    chunks = plan.token_ids[decodes:]
    counts = np.array([1] * (decodes + padding) + [len(ids) for ids in chunks])
    samples = np.array(plan.samples[:decodes] + [False] * padding + plan.samples[decodes:], dtype=bool)
    ends = counts.cumsum()
    rows = np.arange(len(counts)).repeat(counts)
    places, blocks = table_writes(changes, tables.width)
    return MixedInputs(
        decodes=decodes + padding,
        slots=slots[rows],
        positions=(np.arange(len(rows)) + (starts - ends + counts)[rows]).astype(np.int32),
        ids=np.array([0] * (decodes + padding) + [token for ids in chunks for token in ids], dtype=np.int32),
        last=(ends - 1)[samples].astype(np.int32),
        takers=slots[samples],
        places=np.array(places, dtype=np.int32),
        blocks=np.array(blocks, dtype=np.int32),
        chunks=np.concatenate([[decodes + padding], ends[decodes + padding :]]).astype(np.int64),
    )
