"""vLLM's block tables, of one group of layers or of several, and the blocks that leave them early.

On the engine's thread a freed block costs a look at the caller's frame, and only where a table loses a block while its
request runs; everything else happens on the recorder's thread.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from types import CodeType
from typing import Any

from tracereel.trace.format.events import KvGroup

EARLY = ("_remove_blocks_in_range", "remove_skipped_blocks")
"""Methods of vLLM's KV managers in which a running request loses blocks; both know it as `request_id`."""
KINDS = {"FullAttention": "full", "SlidingWindow": "sliding_window", "Mamba": "mamba"}

Freed = list[tuple[str, int, list[int]]]
"""(request, group, blocks) of what left tables early."""
Tables = dict[str, tuple[list[int], ...]]
"""For a request its block table of each group, as vLLM numbers blocks."""
Loads = list[tuple[str, str, list[int]]]
"""(request, state, blocks) of who waits for KV from elsewhere."""


class KvCache:
    """The pool and the tables of one scheduler. Blocks count from 0 here: vLLM's block 0 is never given to anybody."""

    def __init__(self, scheduler: Any):
        manager = scheduler.kv_cache_manager
        self.pool = manager.block_pool
        self.blocks = self.pool.num_gpu_blocks - 1
        self._manager = manager
        groups = scheduler.kv_cache_config.kv_cache_groups
        self.groups = [kv_group(group, scheduler.block_size) for group in groups]
        self.one_table = len(groups) == 1 and self.groups[0].kind == "full"
        """Has each request a single table, whose blocks stay until it ends?"""
        self.known = True
        """Can the tables be told?"""
        self._holding = _waiting_for_kv(scheduler)
        self.free: Callable[[], int] = self.pool.get_num_free_blocks
        """How many blocks nobody holds."""
        self._freed: Freed = []
        self._lengths: dict[str, list[int]] = {}
        """For each request how long its table of each group is, on the recorder's thread."""
        if not self.one_table and groups:
            self._watch(getattr(manager.coordinator, "single_type_managers", ()))

    def _watch(self, managers: Iterable[Any]) -> None:
        codes = {code for manager in managers for code in early_codes(type(manager))}
        if not codes:
            self.known = False
            return
        self.pool.free_blocks = watched(self.pool.free_blocks, codes, self._left)

    def _left(self, request: str, group: int, blocks: list[int]) -> None:
        self._freed.append((request, group, blocks))

    # On the engine's thread.

    def take_freed(self) -> Freed:
        """What left tables early since the last call."""
        freed, self._freed = self._freed, []
        return freed

    def loads(self) -> Loads:
        """Who waits for KV from elsewhere, and the blocks they hold; grows with their number alone."""
        if not self._holding:
            return []
        found = []
        for request in self._holding:
            state = request.status.name.lower()
            if state == "waiting_for_remote_kvs":
                tables = self._manager.get_block_ids(request.request_id)
                found.append((request.request_id, state, [block - 1 for table in tables for block in table if block]))
        return found

    # On the recorder's thread.

    def grants(
        self, key: str, tables: tuple[list[int], ...] | None, *, whole: bool
    ) -> Iterator[tuple[int, int, list[int]]]:
        """(group, place, blocks) that were put into a request's tables; `whole` where `tables` are all it holds."""
        if whole or key not in self._lengths:
            self._lengths[key] = [0] * len(self.groups)
        lengths = self._lengths[key]
        for group, ids in enumerate(tables or ()):
            for place, blocks in runs(ids, lengths[group]):
                yield group, place, blocks
            lengths[group] += len(ids)

    def forget(self, key: str) -> None:
        """A request is gone."""
        self._lengths.pop(key, None)


def _waiting_for_kv(scheduler: Any) -> Any:
    """The queue of those who may wait for KV from elsewhere; empty for good where no connector brings any."""
    if getattr(scheduler, "connector", None) is None:
        return ()
    # vLLM 0.25 keeps these requests among others that were skipped.
    queues = (getattr(scheduler, name, None) for name in ("kv_holding_waiting", "skipped_waiting"))
    return next((queue for queue in queues if queue is not None), ())


def whole_tables(plan: Any) -> Tables:
    """The tables of the requests that this schedule admitted, copied: vLLM's model runner extends its lists.

    Grows with the requests that were admitted, not with the batch.
    """
    cached = plan.scheduled_cached_reqs
    if not plan.scheduled_new_reqs and not cached.resumed_req_ids:
        return {}
    tables = {new.req_id: new.block_ids for new in plan.scheduled_new_reqs}
    if cached.resumed_req_ids:
        rows = zip(cached.req_ids, cached.new_block_ids, strict=True)
        tables.update((key, ids or ()) for key, ids in rows if key in cached.resumed_req_ids)
    return {key: tuple(map(list, ids)) for key, ids in tables.items()}


def runs(ids: list[int], place: int) -> Iterator[tuple[int, list[int]]]:
    """(place, blocks) of each run of blocks that are held; a place with vLLM's block 0 holds none."""
    run: list[int] = []
    for at, block in enumerate(ids, place):
        if block:
            run.append(block - 1)
        elif run:
            yield at - len(run), run
            run = []
    if run:
        yield place + len(ids) - len(run), run


def early_codes(manager: type) -> set[CodeType]:
    """The code in which a manager of this class frees blocks of a request that runs on."""
    functions = (vars(base).get(name) for base in manager.__mro__ for name in EARLY)
    codes = (getattr(function, "__code__", None) for function in functions)
    return {code for code in codes if code is not None and {"self", "request_id"} <= set(code.co_varnames)}


def watched(
    free_blocks: Callable[[Any], None], early: set[CodeType], left: Callable[[str, int, list[int]], None]
) -> Callable[[Any], None]:
    """The pool's `free_blocks`, which says of blocks that `early` code frees whose they were."""

    def free(blocks: Any) -> None:
        caller = sys._getframe(1)
        if caller.f_code in early:
            names = caller.f_locals
            held = [block.block_id - 1 for block in blocks if not block.is_null]
            left(names["request_id"], names["self"].kv_cache_group_id, held)
        free_blocks(blocks)

    return free


def kv_group(group: Any, block_tokens: int) -> KvGroup:
    """A group of layers by the class of its specification, such as `SlidingWindowSpec`."""
    spec = group.kv_cache_spec
    names = [base.__name__.removesuffix("Spec") for base in type(spec).__mro__]
    kind = next((KINDS[name] for name in names if name in KINDS), "")
    return KvGroup(
        kind=kind or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", names[0]).lower(),
        layers=len(group.layer_names),
        block_tokens=getattr(spec, "block_size", block_tokens),
        window=getattr(spec, "sliding_window", None),
    )
