"""The block tables of models whose layers keep different KV: a table for each group, with blocks that leave early."""

from collections.abc import Callable, Mapping

from tracereel.trace.check.block_tables import Replica, Request
from tracereel.trace.format.events import GroupGrant, GroupRelease, Header, Loading, Step


class GroupTables:
    """Follows grants, early releases and blocks of waiting requests; `say` gets what cannot be."""

    def __init__(self, say: Callable[[str, str], None], header: Header, requests: Mapping[int, Request]):
        self._say, self._groups, self._requests = say, header.kv_groups, requests
        self._block_tokens = [group.block_tokens or header.kv_block_tokens or 0 for group in header.kv_groups]
        self._holders: dict[int, tuple[int, int, int]] = {}
        """For each block that is held: its group, its place, and how many tables it is in."""

    def follow(self, step: Step, replica: Replica) -> None:
        """The releases and grants of a step, in their order; requests that were preempted in it have left already."""
        if (step.group_blocks or step.freed) and step.blocks:
            self._say("blocks", f"step {step.index} has blocks and group_blocks; a model has tables of one kind")
        for grant in step.group_blocks:
            self._grant(grant, replica)

    def free(self, step: Step, replica: Replica) -> None:
        """Blocks that leave tables in the middle of their requests."""
        for release in step.freed:
            self._free(release, replica)

    def _running(self, number: int, group: int, replica: Replica) -> Request | None:
        request = self._requests.get(number)
        if request is None or request.slot is None or request.replica is not replica:
            self._say("blocks", f"request {number} has blocks in group {group} but does not run")
            return None
        if group >= len(self._groups):
            self._say("blocks", f"group {group} of {len(self._groups)} in header.kv_groups (request {number})")
            return None
        return request

    def _grant(self, grant: GroupGrant, replica: Replica) -> None:
        request = self._running(grant.request, grant.group, replica)
        if request is None:
            return
        table = request.groups.setdefault(grant.group, {})
        tokens = self._block_tokens[grant.group]
        for place, block in enumerate(grant.blocks, grant.place):
            if replica.blocks is not None and block not in replica.blocks:
                self._say("blocks", f"block {block} of {len(replica.blocks)} (request {grant.request})")
            if place in table:
                self._say(
                    "blocks",
                    f"request {grant.request} has block {table[place]} at place {place} of group {grant.group} already",
                )
                continue
            held = self._holders.get(block)
            if held is None:
                replica.held += 1
                self._holders[block] = (grant.group, place, 1)
            else:
                shares = tokens > 0 and place * tokens < request.cached
                if not shares or held[:2] != (grant.group, place):
                    self._say("blocks", f"block {block} is given to request {grant.request} but held by another")
                self._holders[block] = (*held[:2], held[2] + 1)
            table[place] = block

    def _free(self, release: GroupRelease, replica: Replica) -> None:
        request = self._running(release.request, release.group, replica)
        if request is None:
            return
        table = request.groups.get(release.group, {})
        places = {block: place for place, block in table.items()}
        for block in release.blocks:
            if block not in places:
                self._say(
                    "blocks",
                    f"block {block} leaves request {release.request}, whose table of group {release.group} has it not",
                )
                continue
            del table[places.pop(block)]
            self._drop(block, replica)

    def release(self, request: Request) -> None:
        """Take every block out of all tables of a request."""
        for table in request.groups.values():
            for block in table.values():
                self._drop(block, request.replica)
        request.groups = {}

    def _drop(self, block: int, replica: Replica) -> None:
        group, place, tables = self._holders[block]
        if tables > 1:
            self._holders[block] = (group, place, tables - 1)
        else:
            del self._holders[block]
            replica.held -= 1

    def loading(self, loading: list[Loading], replica: Replica, held: Callable[[int], bool]) -> int:
        """Blocks that waiting requests hold in no table; `held` says of a block whether a table has it."""
        blocks: set[int] = set()
        for each in loading:
            request = self._requests.get(each.request)
            if request is None or request.slot is not None or request.replica is not replica:
                self._say("blocks", f"request {each.request} waits for KV but is not in the queue")
                continue
            blocks.update(each.blocks)
        for block in blocks:
            if replica.blocks is not None and block not in replica.blocks:
                self._say("blocks", f"block {block} of {len(replica.blocks)} (loading)")
        return sum(not held(block) and block not in self._holders for block in blocks)
