"""How the steps of transformers are read: of its batch processor, and of `generate` on a padded batch.

What runs on the generating thread takes copies of what is about to change; records are made on the recorder's thread.
Knows transformers' inside. Does not know where the trace goes (`transformers`).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from tracereel.engine.adapters import AdapterError
from tracereel.engine.adapters.in_flight import Beside, Counts, InFlightStep, InFlightSteps
from tracereel.engine.adapters.journal import Journal, Member, Moment
from tracereel.trace.format.events import Arrival, Finish, Step

Records = Iterator[Arrival | Step | Finish]
CONTINUOUS = (
    "cb_config.max_requests_per_batch",
    "cb_config.page_size",
    "cb_config.scheduler_type",
    "cb_config.cpu_offload_space",
    "max_batch_tokens",
    "use_async_batching",
    "cache.cache_allocators",
    "cache.use_prefix_sharing",
    "cache.num_sectors",
    "scheduler.active_requests",
    "scheduler.waiting_requests",
    "scheduler.schedule_batch",
    "scheduler.add_waiting_request",
    "scheduler.clear_cancelled_requests",
    "offloading_manager.offload_requests",
    "inputs_and_outputs.prepare_batch_tensors",
    "inputs_and_outputs.prepare_batch_update",
    "prepare_next_batch",
    "update_batch",
    "_handle_request_error",
)
"""What is relied on of a batch processor."""


class Desk(Protocol):
    """Where taps hand in what they saw."""

    journal: Journal
    zero_ns: int

    def key_of(self, id: str, prompt_ids: list[int], at_ns: int, max_tokens: int | None) -> str:
        """The journal's key of a request that came with these prompt tokens."""

    def tell(self, make: Callable[[], Records]) -> None:
        """Make records in their turn, on the recorder's thread."""


@dataclass(slots=True)
class _Planned:
    """A batch as it was prepared: (key, position, tokens, blocks) of each member, and who holds a slot."""

    members: list[tuple[str, int, int, list[int]]]
    seated: list[tuple[str, int]]
    preempted: set[str] = field(default_factory=set)


class ContinuousTap:
    """Follows one batch processor."""

    def __init__(self, desk: Desk, processor: Any):
        self._desk, self._processor = desk, processor
        scheduler, cache = processor.scheduler, processor.cache
        allocators = list(cache.cache_allocators.values())
        self._allocator = allocators[0] if len(allocators) == 1 else None
        self._tables = self._allocator is not None and not cache.use_prefix_sharing
        self._in_flight = InFlightSteps(ahead=processor.use_async_batching)
        self._keys: dict[str, str] = {}
        self._granted: dict[str, int] = {}
        self._preempted: set[str] = set()
        self._planned = _Planned([], [])
        self._results: tuple[list[tuple[Any, int]], list[int]] = ([], [])
        self._preparing = self._offloading = False
        self._scheduled_ns = 0
        for thing, name, wrapper in (
            (processor, "prepare_next_batch", self._prepare),
            (processor, "update_batch", self._update),
            (processor, "_handle_request_error", self._fail),
            (scheduler, "schedule_batch", self._schedule),
            (scheduler, "add_waiting_request", self._add),
            (scheduler, "clear_cancelled_requests", self._cancel),
            (processor.offloading_manager, "offload_requests", self._offload),
            (processor.inputs_and_outputs, "prepare_batch_tensors", self._tensors),
            (processor.inputs_and_outputs, "prepare_batch_update", self._tokens),
        ):
            setattr(thing, name, partial(wrapper, getattr(thing, name)))

    def _counts(self) -> Counts:
        scheduler = self._processor.scheduler
        return Counts(len(scheduler.active_requests), len(scheduler.waiting_requests), self._blocks_held())

    def _blocks_held(self) -> int | None:
        allocator = self._allocator
        if allocator is None:
            return None
        pool = allocator.pool
        free = pool.num_free_sectors * allocator.blocks_per_sector + pool.count_free_blocks(allocator.index)
        return int(num_blocks(self._processor.cache) - free - len(allocator.ledger.cached_blocks))

    def _prepare(self, prepare: Callable[[], bool]) -> bool:
        before, start_ns = self._counts(), time.monotonic_ns()
        self._preparing, self._scheduled_ns = True, start_ns
        try:
            there_is_work = prepare()
        finally:
            self._preparing = False
        if there_is_work:
            self._planned.preempted, self._preempted = self._preempted, set()
            self._in_flight.scheduled(self._planned, start_ns, self._scheduled_ns, before, self._counts())
        return there_is_work

    def _schedule(self, schedule: Callable[..., Any], *args: Any) -> Any:
        plan = schedule(*args)
        self._scheduled_ns = time.monotonic_ns()
        return plan

    def _tensors(self, prepare: Callable[..., None], *args: Any, requests_in_batch: list[Any], **kwargs: Any) -> None:
        if self._preparing:
            members = [
                (self._keys[state.request_id], state.position_offset, future.query_length, self._new_blocks(state))
                for future in requests_in_batch
                if (state := future.state)
            ]
            inside = {key for key, *_ in members}
            seated = [
                (key, state.position_offset)
                for id, state in self._processor.scheduler.active_requests.items()
                if (key := self._keys[id]) not in inside
            ]
            self._planned = _Planned(members, seated)
        prepare(*args, requests_in_batch=requests_in_batch, **kwargs)

    def _new_blocks(self, state: Any) -> list[int]:
        """What its block table has gained since this was last asked, numbered from 0."""
        if not self._tables or self._allocator is None:
            return []
        allocator = self._allocator
        table = allocator.block_table.get(state.request_id, [])
        known = self._granted.get(state.request_id, 0)
        self._granted[state.request_id] = len(table)
        first = allocator.pool.num_reserved_sectors * allocator.blocks_per_sector
        return [block - first for block in table[known:]]

    def _offload(self, offload: Callable[[], bool]) -> bool:
        active = self._processor.scheduler.active_requests
        before = set(active)
        self._offloading = True
        try:
            done = offload()
        finally:
            self._offloading = False
        for id in before - set(active):
            self._preempted.add(self._keys[id])
            self._granted.pop(id, None)
        return done

    def _add(self, add: Callable[[Any], None], state: Any) -> None:
        add(state)
        if self._offloading:
            return
        if state.num_children or state.request_id in self._keys:
            raise AdapterError("several sequences from one prompt (num_return_sequences) cannot be recorded")
        at_ns = round(state.created_time * 1e9)
        self._keys[state.request_id] = self._desk.key_of(
            state.request_id, state.initial_tokens, at_ns, state.max_new_tokens
        )

    def _cancel(self, clear: Callable[[], list[Any]]) -> list[Any]:
        cancelled = clear()
        for state in cancelled:
            self._leave(state.request_id, "abort")
        return cancelled

    def _fail(self, fail: Callable[..., None], error: Exception, state: Any) -> None:
        fail(error, state)
        self._leave(state.request_id, "error")

    def _leave(self, id: str, reason: str) -> None:
        key = self._keys.pop(id, None)
        self._granted.pop(id, None)
        if key is None:
            return
        make: Beside = partial(self._ending, key, time.monotonic_ns(), reason)
        oldest = self._in_flight.oldest
        if oldest is not None:
            oldest.after.append(make)
        else:
            self._desk.tell(make)  # type: ignore[arg-type]

    def _ending(self, key: str, at_ns: int, reason: str) -> Iterator[Finish]:
        finish = self._desk.journal.leave(key, at_ns - self._desk.zero_ns, reason)
        if finish is not None:
            yield finish

    def _tokens(self, get: Callable[[], Any]) -> Any:
        futures, tokens, logprobs = get()
        self._results = [(future, future.state.generated_len()) for future in futures], tokens
        return futures, tokens, logprobs

    def _update(self, update: Callable[[], None]) -> None:
        update()
        end_ns = time.monotonic_ns()
        if not self._in_flight:
            return
        came: dict[str, tuple[list[int], str | None]] = {}
        futures, tokens = self._results
        next_token = iter(tokens)
        for future, length in futures:
            state = future.state
            token = next(next_token) if future.has_new_token else None
            key = self._keys.get(state.request_id)
            if token is None or key is None or state.generated_len() == length:
                continue
            reason = None
            if state.status.name == "FINISHED":
                reason = "stop" if token in state._eos_token_ids else "length"
                del self._keys[state.request_id]
                self._granted.pop(state.request_id, None)
            came[key] = ([token], reason)
        self._desk.tell(partial(self._told, self._in_flight.completed(end_ns, self._counts()), came, end_ns))

    def _told(self, step: InFlightStep, came: dict[str, tuple[list[int], str | None]], end_ns: int) -> Records:
        planned: _Planned = step.plan
        # Requests wait from the moment they are submitted, before the scheduler takes them from its own queue.
        moment = replace(step.moment(end_ns, self._desk.zero_ns), waiting=None, running=None)
        members = []
        for key, position, width, blocks in planned.members:
            tokens, reason = came.get(key, ([], None))
            members.append(Member(key, position, width, tokens=tokens, reason=reason, blocks=blocks))
        yield self._desk.journal.step(moment, members, planned.preempted, seated=planned.seated)
        for make in step.after:
            yield from make()


class StaticTap:
    """Follows one call of `generate` on a padded batch: its stopping criteria are asked once after each token."""

    def __init__(self, desk: Desk, keys: list[str], prompt_tokens: list[int], start_ns: int):
        self._desk, self._keys, self._prompt_tokens = desk, keys, prompt_tokens
        self._running = [True] * len(keys)
        self._start_ns = start_ns
        self._step = 0

    def criteria(self, asked: Any, end_ids: frozenset[int]) -> Any:
        """The same criteria, overheard."""
        tap = self

        class Overheard(type(asked)):  # type: ignore[misc]
            """A list of stopping criteria whose verdicts are recorded."""

            def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
                verdict = super().__call__(input_ids, scores, **kwargs)
                tap.decided(input_ids[:, -1].tolist(), verdict.tolist(), input_ids.shape[1] - 1, end_ids)
                return verdict

        return Overheard(asked)

    def decided(self, tokens: list[int], done: list[bool], width: int, end_ids: frozenset[int]) -> None:
        """Every row has its next token on the host; `width` is how many tokens a row had before."""
        end_ns = time.monotonic_ns()
        if len(tokens) != len(self._keys):
            raise AdapterError(
                "rows that are not prompts (beams, several sequences from one prompt) cannot be recorded"
            )
        members, padding = [], 0
        for row, key in enumerate(self._keys):
            computed = width if self._step == 0 else 1
            if not self._running[row]:
                padding += computed
                continue
            own = self._prompt_tokens[row] if self._step == 0 else 1
            padding += computed - own
            position = 0 if self._step == 0 else self._prompt_tokens[row] + self._step - 1
            reason = None
            if done[row]:
                self._running[row] = False
                reason = "stop" if tokens[row] in end_ids else "length"
            members.append(Member(key, position, own, tokens=[tokens[row]], reason=reason))
        zero = self._desk.zero_ns
        moment = Moment(start_ns=self._start_ns - zero, end_ns=end_ns - zero)
        self._desk.tell(partial(self._told, moment, members, padding))
        self._start_ns = end_ns
        self._step += 1

    def _told(self, moment: Moment, members: list[Member], padding: int) -> Records:
        yield self._desk.journal.step(moment, members, padding=padding)


def num_blocks(cache: Any) -> int:
    """Blocks of a paged cache with one kind of attention."""
    (allocator,) = cache.cache_allocators.values()
    return int(cache.num_sectors * allocator.blocks_per_sector)
