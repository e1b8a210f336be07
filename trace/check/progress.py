"""How far each request has come: the rules that hold for every member of every step, checked many steps at a time.

A request computes from where it stood, prefills no further than the tokens it has, decodes only once it has prefilled,
and never beyond its KV blocks. Knows requests by number, as columns. Does not know slots, queues or files: that is
`invariants`, which tells it what happened in the order in which it did.

After the members of some thousand steps were gathered they are sorted by request, so that each stands behind the one
it follows from; the rules are then comparisons of columns.
"""

from array import array
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from tracereel.trace.format.events import DECODE, Step

Ints = npt.NDArray[np.int64]
Fault = tuple[int, str, str]
"""A violation: line, rule, message."""

_MEMBERS, _STEPS = 2**14, 2**12
"""How many of them are looked at together."""
# What can happen to a request within a step, in this order.
_ADMITTED, _GRANTED, _COMPUTED = 0, 1, 2


class Progress:
    """Gathers what requests do, then says where one of them did what it could not."""

    def __init__(self, block_tokens: int | None):
        self.block_tokens = block_tokens or 0
        self._requests = 0
        # What is known of each request at the end of the steps that were looked at.
        self._prompt = np.zeros(1024, dtype=np.int64)
        self._outputs = np.zeros(1024, dtype=np.int64)
        self._reached = np.zeros(1024, dtype=np.int64)
        self._room = np.zeros(1024, dtype=np.int64)
        self._clear()

    def _clear(self) -> None:
        self._lines: list[int] = []
        self._sizes: list[int] = []
        # Arrays: numpy takes them as they are, where it would look at every entry of a list.
        self._members, self._positions, self._computed, self._sampled = (array("q") for _ in range(4))
        self._drafted: dict[int, list[int]] = {}
        self._phases: list[str] = []
        self._marks: dict[tuple[int, int, int], int] = {}

    def arrive(self, prompt_tokens: int) -> None:
        """The next request arrives; it has so many tokens."""
        if self._requests == len(self._prompt):
            for name in ("_prompt", "_outputs", "_reached", "_room"):
                column = getattr(self, name)
                setattr(self, name, np.concatenate([column, np.zeros_like(column)]))
        self._prompt[self._requests] = prompt_tokens
        self._requests += 1

    def admit(self, request: int, cached: int) -> None:
        """In the next step the request enters with the KV of `cached` tokens, and no blocks."""
        self._marks[request, len(self._lines), _ADMITTED] = cached

    def grow(self, request: int, blocks: int) -> None:
        """In the next step the request's block table is `blocks` long."""
        self._marks[request, len(self._lines), _GRANTED] = blocks * self.block_tokens

    def add(self, line: int, step: Step, members: Iterable[int] | None = None) -> None:
        """A step, on this line; `members` are the places in its columns that count, all where that is not given."""
        if members is not None:
            kept = list(members)
            columns = (step.requests, step.positions, step.computed, step.sampled)
            requests, positions, computed, sampled = ([column[i] for i in kept] for column in columns)
            phases = "".join(step.phases[i] for i in kept)
            drafted = [step.drafted[i] for i in kept] if step.drafted is not None else None
        else:
            requests, positions, computed, sampled = step.requests, step.positions, step.computed, step.sampled
            phases, drafted = step.phases, step.drafted
        if drafted is not None:
            self._drafted[len(self._members)] = drafted
        self._lines.append(line)
        self._sizes.append(len(requests))
        self._members.fromlist(requests)
        self._positions.fromlist(positions)
        self._computed.fromlist(computed)
        self._sampled.fromlist(sampled)
        self._phases.append(phases)

    @property
    def full(self) -> bool:
        """Is it time to look?"""
        return len(self._members) >= _MEMBERS or len(self._lines) >= _STEPS

    def check(self) -> list[Fault]:
        """What was violated in the steps added since the last call."""
        if not self._members and not self._marks:
            self._clear()
            return []
        marks = np.array([(*what, value) for what, value in self._marks.items()], dtype=np.int64).reshape(-1, 4).T
        steps = np.repeat(np.arange(len(self._lines)), self._sizes)
        decodes = np.frombuffer("".join(self._phases).encode(), dtype=np.uint8) == ord(DECODE)
        columns = (self._members, self._positions, self._computed, self._sampled)
        member_request, position, computed, sampled = (np.array(column, dtype=np.int64) for column in columns)
        # A step that says nothing of drafts may sample what it computes: all but one were drafts.
        drafted = computed - 1
        for at, drafts in self._drafted.items():
            drafted[at : at + len(drafts)] = drafts
        advance = np.where(decodes & (sampled > 0), sampled, computed)

        request = np.concatenate([marks[0], member_request])
        step = np.concatenate([marks[1], steps])
        kind = np.concatenate([marks[2], np.full(len(steps), _COMPUTED)])
        value = np.concatenate([marks[3], position + advance])
        order = np.argsort((request << 32) | (step << 2) | kind)
        request, kind, value = request[order], kind[order], value[order]
        outputs = np.concatenate([np.zeros(len(marks[0]), dtype=np.int64), sampled])[order]

        reached = self._before(request, value, kind != _GRANTED, self._reached)
        # An admission empties the block table; 0 says that it is not known.
        room = self._before(request, np.where(kind == _ADMITTED, 0, value), kind != _COMPUTED, self._room)
        so_far = np.cumsum(outputs) - outputs
        first = np.flatnonzero(np.diff(request, prepend=-1))
        size = np.diff(first, append=len(request))
        so_far += np.repeat(self._outputs[request[first]] - so_far[first], size)

        rows = np.flatnonzero(kind == _COMPUTED)
        member = order[rows] - len(marks[0])
        faults = self._compare(
            np.array(self._lines)[steps[member]],
            request[rows],
            decodes[member],
            position[member],
            computed[member],
            sampled[member],
            drafted[member],
            reached[rows],
            self._prompt[request[rows]] + so_far[rows],
            so_far[rows],
            room[rows],
        )
        entered = np.flatnonzero(kind == _ADMITTED)
        nothing_left = entered[value[entered] >= (self._prompt[request] + so_far)[entered]]
        faults += [
            (
                self._lines[step[order[i]]],
                "tokens",
                f"request {request[i]} has no token left to compute: {value[i]} cached",
            )
            for i in nothing_left.tolist()
        ]
        # Where an index stands twice the last one counts, which is the newest.
        setters = kind != _GRANTED
        self._reached[request[setters]] = value[setters]
        setters = kind != _COMPUTED
        self._room[request[setters]] = np.where(kind == _ADMITTED, 0, value)[setters]
        last = first + size - 1
        self._outputs[request[last]] = so_far[last] + outputs[last]
        self._clear()
        return faults

    def _before(self, request: Ints, value: Ints, sets: npt.NDArray[np.bool_], carried: Ints) -> Ints:
        """For each row what the newest row before it that sets the value has set, or what was carried over."""
        places = np.where(sets, np.arange(len(request)), -1)
        newest = np.concatenate([[-1], np.maximum.accumulate(places)[:-1]])
        same = (newest >= 0) & (request[newest] == request)
        return np.where(same, value[newest], carried[request])

    def _compare(
        self,
        line: Ints,
        request: Ints,
        decodes: npt.NDArray[np.bool_],
        position: Ints,
        computed: Ints,
        sampled: Ints,
        drafted: Ints,
        reached: Ints,
        known: Ints,
        outputs: Ints,
        room: Ints,
    ) -> list[Fault]:
        """The rules; each column has an entry a member of a step, requests one after the other."""
        reach = position + computed
        prefills = ~decodes
        rules: tuple[tuple[npt.NDArray[np.bool_], str, str], ...] = (
            (position != reached, "tokens", "request {r} computes from position {p}, expected {e}"),
            (computed < 1, "tokens", "request {r} is in the batch but computes nothing"),
            (
                decodes & ((outputs == 0) | (reach < known)),
                "tokens",
                "request {r} decodes at position {p} before its prefill is done",
            ),
            (decodes & (sampled > computed), "tokens", "request {r} has {s} new tokens from {c} computed"),
            (
                decodes & (sampled <= computed) & (sampled > drafted + 1),
                "tokens",
                "request {r} has {s} new tokens from {d} drafts",
            ),
            (prefills & (reach > known), "tokens", "request {r} prefills to position {t} but has {k} tokens"),
            (
                prefills & (sampled > (reach == known)),
                "tokens",
                "request {r} has new tokens before its prefill is done",
            ),
            (
                (room > 0) & (room < reach),
                "blocks",
                "request {r} computes to position {t} with room for {m} in its blocks",
            ),
        )
        faults: list[tuple[int, Fault]] = []
        for broken, rule, message in rules:
            for i in np.flatnonzero(broken).tolist():
                text = message.format(
                    r=request[i],
                    p=position[i],
                    e=reached[i],
                    s=sampled[i],
                    c=computed[i],
                    d=drafted[i],
                    t=reach[i],
                    k=known[i],
                    m=room[i],
                )
                faults.append((i, (int(line[i]), rule, text)))
        return [fault for _, fault in sorted(faults, key=lambda fault: (fault[1][0], fault[0]))]
