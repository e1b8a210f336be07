"""The block tables of all requests: which KV block stands in which, and at which place where several share it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from tracereel.trace.check.step_times import StepTimes
from tracereel.trace.format.events import BlockGrant


@dataclass(slots=True)
class Replica:
    """What one engine holds: its part of the slots and blocks, its queues, and the times of its steps."""

    slots: range
    blocks: range | None
    waiting: int = 0
    running: int = 0
    held: int = 0
    times: StepTimes = field(default_factory=StepTimes)


@dataclass(slots=True)
class Request:
    """A request that has arrived and not ended."""

    prompt_tokens: int
    submitted_ns: int
    replica: Replica
    slot: int | None = None
    cached: int = 0
    shared_blocks: int = 0
    blocks: list[int] = field(default_factory=list)
    groups: dict[int, dict[int, int]] = field(default_factory=dict)
    """Its tables where each group of layers has one: for each group the block at each place."""


class BlockTables:
    """Follows grants and releases; `say` gets what cannot be."""

    def __init__(self, say: Callable[[str, str], None]):
        self._say = say
        self._holders: dict[int, tuple[int, int]] = {}
        """For each block that is held: how many tables it is in, and at which place of them."""

    def holds(self, block: int) -> bool:
        """Is this block in a table?"""
        return block in self._holders

    def grant(self, grant: BlockGrant, request: Request, pool: int | None) -> None:
        """Append blocks, of a pool of that many, to the table of a request."""
        table, holders, replica = request.blocks, self._holders, request.replica
        for block in grant.blocks:
            place = len(table)
            if replica.blocks is not None and block not in replica.blocks:
                self._say("blocks", f"block {block} of {pool} (request {grant.request})")
            held = holders.get(block)
            if held is None:
                replica.held += 1
                holders[block] = (1, place)
            else:
                self._share(grant.request, request, block, held)
            table.append(block)

    def _share(self, number: int, request: Request, block: int, held: tuple[int, int]) -> None:
        """A block that is in another's table already may be in this one too where they share a prefix."""
        place = len(request.blocks)
        tables, other_place = held
        if place >= request.shared_blocks:
            self._say("blocks", f"block {block} is given to request {number} but held by another")
        elif place != other_place:
            self._say(
                "blocks",
                f"block {block} is shared at place {place} of the table of request {number}, but holds place"
                f" {other_place} of another",
            )
        self._holders[block] = (tables + 1, other_place)

    def release(self, request: Request) -> None:
        """Take every block out of a request's table."""
        for block in request.blocks:
            tables, place = self._holders[block]
            if tables > 1:
                self._holders[block] = (tables - 1, place)
            else:
                del self._holders[block]
                request.replica.held -= 1
        request.blocks = []
