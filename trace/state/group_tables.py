"""The block tables of a model whose layers keep different KV: which block stands where in which group."""

from collections.abc import Iterator

import numpy as np
from tracereel.trace.state.columns import Trace, group_by

Table = dict[int, int]
"""The block at each place of a table that holds one; the places before a sliding window hold none."""


class GroupTables:
    """Answers for a request what its tables were after the schedule of some step."""

    def __init__(self, trace: Trace):
        self._trace = trace
        self._grants = group_by(trace.group_grants.request.astype(np.int32), len(trace.arrivals))
        self._releases = group_by(trace.group_releases.request.astype(np.int32), len(trace.arrivals))

    def at(self, request: int, residency: int | None, started: int) -> tuple[Table, ...]:
        """Its tables, one a group, from what the schedules of its residency's steps below `started` did; () of None."""
        if residency is None:
            return ()
        tables: tuple[Table, ...] = tuple({} for _ in self._trace.header.kv_groups)
        for group, place, block, left in self._granted(request, residency, started):
            if not left:
                tables[group][place] = block
        return tables

    def freed_at(self, request: int, residency: int | None, started: int) -> tuple[tuple[int, ...], ...]:
        """For each group the places of its table whose block has left it since, in the same steps as in `at`."""
        if residency is None:
            return ()
        held = self.at(request, residency, started)
        freed: tuple[set[int], ...] = tuple(set() for _ in held)
        for group, place, _, _ in self._granted(request, residency, started):
            if place not in held[group]:
                freed[group].add(place)
        return tuple(tuple(sorted(places)) for places in freed)

    def _granted(self, request: int, residency: int, started: int) -> Iterator[tuple[int, int, int, bool]]:
        """Each block that it was given: the group, the place, the block, and whether it has left since."""
        trace = self._trace
        first_step = int(trace.residencies.first_step[residency])
        order, bounds = self._releases
        rows = order[bounds[request] : bounds[request + 1]]
        releases = trace.group_releases
        rows = rows[(releases.step[rows] >= first_step) & (releases.step[rows] < started)]
        # A request may be given a block again that left its table: a release counts for grants of earlier steps.
        left = {
            (int(group), int(block)): int(step)
            for step, group, block in zip(releases.step[rows], releases.group[rows], releases.block[rows], strict=True)
        }
        order, bounds = self._grants
        rows = order[bounds[request] : bounds[request + 1]]
        grants = trace.group_grants
        rows = rows[(grants.step[rows] >= first_step) & (grants.step[rows] < started)]
        for step, group, place, block in zip(
            *(column[rows].tolist() for column in (grants.step, grants.group, grants.place, grants.block)), strict=True
        ):
            yield group, place, block, left.get((group, block), -1) > step
