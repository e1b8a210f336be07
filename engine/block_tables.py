"""Which slot holds which request's block table, and what a plan appends to it. No torch."""

from collections.abc import Iterator

from tracereel.engine.scheduler import StepPlan


class BlockTables:
    """The block tables of the sequences that hold a slot, by how far each is filled."""

    def __init__(self, slots: int):
        self._filled = [0] * slots
        self._holders: list[int | None] = [None] * slots
        self._slots: dict[int, int] = {}

    def update(self, plan: StepPlan) -> Iterator[tuple[int, int, list[int]]]:
        """Give the plan's admissions their slots; gives (slot, place in its table, blocks) of all that is appended."""
        for admission in plan.admitted:
            before = self._holders[admission.slot]
            if before is not None and self._slots.get(before) == admission.slot:
                del self._slots[before]
            self._holders[admission.slot] = admission.request
            self._slots[admission.request] = admission.slot
            self._filled[admission.slot] = 0
        for grant in plan.blocks:
            slot = self._slots[grant.request]
            at = self._filled[slot]
            self._filled[slot] = at + len(grant.blocks)
            yield slot, at, grant.blocks
