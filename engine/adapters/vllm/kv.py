"""vLLM's block tables, of one group of layers or of several, and the blocks that leave them early.

On the engine's thread a freed block costs a look at the caller's frame, and only where a table loses a block while its
request runs; everything else happens on the recorder's thread.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from types import CodeType
from typing import Any

from tracereel.engine.adapters import AdapterError
from tracereel.trace.format.events import KvGroup

EARLY = ("_remove_blocks_in_range", "remove_skipped_blocks")
"""Methods of vLLM's KV managers in which a running request loses blocks; both know it as `request_id`."""
KINDS = {"RSWA": "rswa", "FullAttention": "full", "SlidingWindow": "sliding_window", "Mamba": "mamba"}
"""The trace's words for classes of specifications, and for those that are derived from them."""

Freed = list[tuple[str, int, list[int]]]
"""(request, group, blocks) of what left tables early."""
Tables = dict[str, tuple[list[int], ...]]
"""For a request its block table of each group, as vLLM numbers blocks."""
Loads = list[tuple[str, str, list[int]]]
"""(request, state, blocks) of the requests that wait and hold blocks already, for KV from elsewhere."""


class KvCache:
    """The pool and the tables of one scheduler. Blocks count from 0 here: vLLM's block 0 is never given to anybody."""

    def __init__(self, scheduler: Any):
        manager = scheduler.kv_cache_manager
        self.pool = manager.block_pool
        self.blocks = self.pool.num_gpu_blocks - 1
        self._manager = manager
        managers = [type(each) for each in getattr(manager.coordinator, "single_type_managers", ())]
        groups = scheduler.kv_cache_config.kv_cache_groups
        self.groups = [kv_group(group, scheduler.block_size) for group in groups]
        self.one_table = len(groups) == 1 and self.groups[0].kind == "full" and not any(map(frees_early, managers))
        """Has each request a single table, whose blocks stay until it ends?"""
        self.known = True
        """Can the tables be told?"""
        self._holding = _holding_blocks(scheduler)
        self.free: Callable[[], int] = self.pool.get_num_free_blocks
        """How many blocks nobody holds."""
        self.watched = False
        """Will anybody ask which blocks left early? They are kept until then."""
        self._freed: Freed = []
        self._fault: Exception | None = None
        self._lengths: dict[str, list[int]] = {}
        """For each request how long its table of each group is, on the recorder's thread."""
        if not self.one_table and groups:
            codes = {code for each in managers for code in early_codes(each)}
            self.known = bool(codes)
            if self.known:
                self.pool.free_blocks = watched(self.pool.free_blocks, codes, self._left)

    def _left(self, caller: Mapping[str, Any], blocks: list[Any]) -> None:
        """Blocks leave a running request's table; `caller` are the variables of the method that frees them.

        This runs in the middle of vLLM's schedule, which goes on whatever happens here.
        """
        if not self.watched:
            return
        try:
            held = [block.block_id - 1 for block in blocks if not block.is_null]
            self._freed.append((caller["request_id"], caller["self"].kv_cache_group_id, held))
        except Exception as error:
            self._fault = error

    # On the engine's thread.

    def take_freed(self) -> Freed:
        """What left tables early since the last call. Raises AdapterError where that could not be read."""
        if self._fault is not None:
            raise AdapterError(f"blocks that leave early cannot be told: {self._fault!r}")
        freed, self._freed = self._freed, []
        return freed

    def watch(self, watched: bool) -> None:
        """Keep from now on what leaves early, or no longer."""
        self.watched, self._freed = watched, []

    def loads(self) -> Loads:
        """The requests that wait and hold blocks, for KV from elsewhere; grows with their number alone.

        vLLM's queue of them holds others too: those whose KV has come but who were not admitted yet (they hold blocks
        as before), and, in 0.25, some who hold none.
        """
        if not self._holding:
            return []
        found = []
        for request in self._holding:
            state = request.status.name.lower()
            if state == "waiting_for_remote_kvs" or request.num_computed_tokens > 0:
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


def _holding_blocks(scheduler: Any) -> Any:
    """The queue of requests that may hold blocks while they wait; empty for good where no connector brings KV."""
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


def frees_early(manager: type) -> bool:
    """Has this class of managers a rule of its own for which blocks a running request loses?

    All inherit one from vLLM's base, by which full attention loses none; R-SWA is full attention with another one.
    """
    return any(sum(name in vars(base) for base in manager.__mro__) > 1 for name in EARLY)


def watched(
    free_blocks: Callable[[Any], None], early: set[CodeType], left: Callable[[Mapping[str, Any], list[Any]], None]
) -> Callable[[Any], None]:
    """The pool's `free_blocks`, which calls `left` for blocks that `early` code frees, with that code's variables."""

    def free(blocks: Any) -> None:
        caller = sys._getframe(1)
        if caller.f_code in early:
            blocks = list(blocks)  # which may come from an iterator
            left(caller.f_locals, blocks)
        free_blocks(blocks)

    return free


def kv_group(group: Any, block_tokens: int) -> KvGroup:
    """A group of layers by the class of its specification, such as `SlidingWindowSpec`."""
    spec = group.kv_cache_spec
    # Layers of one type that differ in size have a specification each, in one that says nothing of the type.
    each = next(iter(getattr(spec, "kv_cache_specs", {}).values()), spec)
    names = [base.__name__.removesuffix("Spec") for base in type(each).__mro__]
    kind = next((KINDS[name] for name in names if name in KINDS), "")
    kind = kind or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", names[0]).lower()
    return KvGroup(
        kind=kind,
        layers=len(group.layer_names),
        block_tokens=getattr(spec, "block_size", block_tokens),
        # Full attention may know a window too, and keeps all KV nevertheless.
        window=None if kind == "full" else getattr(each, "sliding_window", None),
    )
