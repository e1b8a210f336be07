"""The order of things: turns what an engine reports of its steps into the records of one serial trace.

Engines overlap: they schedule a step before they have seen the last one's tokens, and a request may be gone by the time
its step comes back. The journal is told of arrivals, steps and endings in the order in which they took effect, and
keeps what a trace needs besides: the request's number, the slot it sits in, how many tokens it has.

Knows no engine and no clock. Slots are the lowest that are free: an engine's own rows may be moved about while it runs,
these stay.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush

from tracereel.trace.format.bounds import as_name, as_prompt
from tracereel.trace.format.events import (
    DECODE,
    PREFILL,
    Admission,
    Arrival,
    BlockGrant,
    Ending,
    Finish,
    GraphPadding,
    GroupGrant,
    GroupRelease,
    Loading,
    Step,
    Transfer,
)

Key = str
"""An engine's own name for a request."""


@dataclass(eq=False, slots=True)
class Entry:
    """A request that has not ended. `text` gives the text that a new token completes, None where no text is known."""

    number: int
    prompt_tokens: int
    text: Callable[[int], str] | None
    output_tokens: int = 0
    slot: int | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A request in a step: `scheduled` tokens from `position` on, drafts included; then what came of it.

    `blocks` were appended to its block table for this step; or, where each group of layers has a table, `groups` are
    (group, place, blocks). Of its drafts `invalid` were placeholders. `cached_from` says, at an admission, where the KV
    that it has already came from.
    """

    key: Key
    position: int
    scheduled: int
    drafted: int = 0
    tokens: list[int] = field(default_factory=list)
    reason: str | None = None
    blocks: list[int] = field(default_factory=list)
    invalid: int = 0
    cached_from: dict[str, int] = field(default_factory=dict)
    groups: list[tuple[int, int, list[int]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When a step was, and how long the queues and how full the pool were as it began.

    Where the engine does not say how many wait and run, the journal counts them itself.
    """

    start_ns: int
    end_ns: int
    waiting: int | None = None
    running: int | None = None
    kv_used: int | None = None
    scheduled_ns: int | None = None
    latency_ns: int | None = None


@dataclass(slots=True)
class _Members:
    """The columns of a step in the making: an entry for each member; tokens, texts and events one after the other."""

    requests: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    computed: list[int] = field(default_factory=list)
    sampled: list[int] = field(default_factory=list)
    drafted: list[int] = field(default_factory=list)
    invalid: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    texts_known: bool = True
    admitted: list[Admission] = field(default_factory=list)
    finished: list[Ending] = field(default_factory=list)
    blocks: list[BlockGrant] = field(default_factory=list)
    group_blocks: list[GroupGrant] = field(default_factory=list)
    ended: list[Key] = field(default_factory=list)


class Journal:
    """Numbers requests, gives them slots, and makes records of what it is columns.

    `content` False leaves out what was said: prompts, token ids and texts. `drafts` says whether the engine guesses
    tokens ahead (speculative decoding).
    """

    def __init__(self, slots: int, *, content: bool = True, drafts: bool = False):
        self._entries: dict[Key, Entry] = {}
        self._free = list(range(slots))
        self._slots = slots
        self._seated = 0
        self._content = content
        self._drafts = drafts
        self._requests = self._steps = 0

    def knows(self, key: Key) -> bool:
        """Has this request arrived and not ended?"""
        return key in self._entries

    def arrive(
        self,
        key: Key,
        *,
        id: str,
        arrival_ns: int,
        submitted_ns: int,
        prompt_tokens: int,
        max_tokens: int | None = None,
        priority: int = 0,
        prompt: str | None = None,
        lora: str | None = None,
        text: Callable[[int], str] | None = None,
    ) -> Arrival:
        """A request came; raises ValueError where one of that key has not ended yet."""
        if key in self._entries:
            raise ValueError(f"request {key!r} arrives a second time")
        self._entries[key] = Entry(self._requests, prompt_tokens, text)
        self._requests += 1
        return Arrival(
            request=self._requests - 1,
            id=as_name(id),
            arrival_ns=max(0, min(arrival_ns, submitted_ns)),
            submitted_ns=submitted_ns,
            prompt_tokens=prompt_tokens,
            prompt=as_prompt(prompt) if self._content else None,
            lora=None if lora is None else as_name(lora),
            max_tokens=None if max_tokens is None else min(max_tokens, 2**31 - 1),
            priority=max(-(2**31), min(priority, 2**31 - 1)),
        )

    def step(
        self,
        moment: Moment,
        members: Iterable[Member],
        preempted: Iterable[Key] = (),
        *,
        seated: Iterable[tuple[Key, int]] = (),
        padding: int = 0,
        freed: Iterable[tuple[Key, int, list[int]]] = (),
        loading: Iterable[tuple[Key, str, list[int]]] = (),
        transfers: Iterable[tuple[int, int]] = (),
        graph: tuple[str, int] | None = None,
        experts: list[list[int]] | None = None,
    ) -> Step:
        """A step: the preempted lost their slots, new members took one, each computed, some ended.

        `seated` hold a slot without computing, with as many tokens cached; `freed` left tables of running requests,
        (request, group, blocks); `loading` wait for KV from elsewhere, (request, state, blocks); `transfers` of KV are
        done, (nanoseconds, bytes); `graph` is the mode and padding of a replayed graph; `experts` are, by layer, how
        often each expert was taken. Tokens of members that had ended, and drafts in a prefill, are padding.
        """
        entries = self._entries
        left = sorted(entry.number for key in preempted if (entry := entries.get(key)) and self._vacate(entry))
        releases = self._released(freed)
        columns = _Members()
        padding += sum(self._compute(columns, member) for member in members)
        columns.admitted.extend(self._seat_idle(seated))
        running, waiting = self._seated, len(entries) - self._seated
        self._end(columns.ended)
        return Step(
            index=self._steps - 1,
            start_ns=moment.start_ns,
            scheduled_ns=moment.scheduled_ns,
            end_ns=moment.end_ns,
            latency_ns=moment.latency_ns,
            requests=columns.requests,
            slots=columns.slots,
            phases="".join(columns.phases),
            positions=columns.positions,
            computed=columns.computed,
            sampled=columns.sampled,
            drafted=columns.drafted if self._drafts else None,
            invalid_drafts=columns.invalid if self._drafts and any(columns.invalid) else None,
            tokens=columns.tokens if self._content else None,
            texts=columns.texts if self._content and columns.texts_known else None,
            padding=padding,
            admitted=columns.admitted,
            preempted=left,
            finished=columns.finished,
            blocks=columns.blocks,
            freed=releases,
            group_blocks=columns.group_blocks,
            loading=self._loading(loading),
            transfers=[Transfer(duration_ns=duration_ns, bytes=size) for duration_ns, size in transfers],
            graph=None if graph is None else GraphPadding(mode=as_name(graph[0]), padding=graph[1]),
            experts=experts or [],
            waiting=waiting if moment.waiting is None else moment.waiting,
            running=running if moment.running is None else moment.running,
            kv_used=moment.kv_used,
        )

    def _seat_idle(self, seated: Iterable[tuple[Key, int]]) -> Iterator[Admission]:
        for key, cached in seated:
            if (entry := self._entries.get(key)) and entry.slot is None:
                yield self._seat(entry, cached)

    def _end(self, ended: Iterable[Key]) -> None:
        """The step is over, and so are these requests."""
        for key in ended:
            self._vacate(self._entries.pop(key))
        self._steps += 1

    def _released(self, freed: Iterable[tuple[Key, int, list[int]]]) -> list[GroupRelease]:
        """What left tables of requests that run; the others' tables are freed as a whole."""
        return [
            GroupRelease(request=entry.number, group=group, blocks=blocks)
            for key, group, blocks in freed
            if (entry := self._entries.get(key)) and entry.slot is not None
        ]

    def _loading(self, loading: Iterable[tuple[Key, str, list[int]]]) -> list[Loading]:
        return [
            Loading(request=entry.number, state=state, blocks=blocks)
            for key, state, blocks in loading
            if (entry := self._entries.get(key)) and entry.slot is None
        ]

    def _compute(self, columns: "_Members", member: Member) -> int:
        """Add a member to the columns of its step; returns how many of its tokens are padding."""
        entry = self._entries.get(member.key)
        if entry is None:
            return member.scheduled
        if entry.slot is None:
            columns.admitted.append(self._seat(entry, member.position, member.cached_from))
        assert entry.slot is not None
        known = entry.prompt_tokens + entry.output_tokens
        decodes = entry.output_tokens > 0 and member.position >= known - 1
        width = member.scheduled if decodes else min(member.scheduled, known - member.position)
        columns.requests.append(entry.number)
        columns.slots.append(entry.slot)
        columns.phases.append(DECODE if decodes else PREFILL)
        columns.positions.append(member.position)
        columns.computed.append(width)
        columns.sampled.append(len(member.tokens))
        columns.drafted.append(member.drafted if decodes else 0)
        columns.invalid.append(member.invalid if decodes else 0)
        columns.tokens.extend(member.tokens)
        if self._content and member.tokens:
            if entry.text is None:
                columns.texts_known = False
            elif columns.texts_known:
                columns.texts.extend(map(entry.text, member.tokens))
        entry.output_tokens += len(member.tokens)
        if member.blocks:
            columns.blocks.append(BlockGrant(request=entry.number, blocks=member.blocks))
        columns.group_blocks.extend(
            GroupGrant(request=entry.number, group=group, place=place, blocks=blocks)
            for group, place, blocks in member.groups
        )
        if member.reason is not None:
            columns.finished.append(Ending(request=entry.number, reason=member.reason))
            columns.ended.append(member.key)
        return member.scheduled - width

    def leave(self, key: Key, at_ns: int, reason: str) -> Finish | None:
        """A request ended outside a step; None where it is not there any more."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self._vacate(entry)
        return Finish(request=entry.number, at_ns=at_ns, reason=reason)

    def _seat(self, entry: Entry, cached: int, cached_from: dict[str, int] | None = None) -> Admission:
        """Give it the lowest free slot; more than there are is for `tracereel check` to tell, not for us to hide."""
        if not self._free:
            self._free.append(self._slots)
            self._slots += 1
        entry.slot = heappop(self._free)
        self._seated += 1
        return Admission(request=entry.number, slot=entry.slot, cached=cached, cached_from=cached_from or {})

    def _vacate(self, entry: Entry) -> bool:
        """Give its slot back; False where it sits in none."""
        if entry.slot is None:
            return False
        heappush(self._free, entry.slot)
        self._seated -= 1
        entry.slot = None
        return True
