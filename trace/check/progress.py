"""How far each request has come: the rules that hold for every member of every step, checked many steps at a time.

A request computes from where it stood, prefills no further than the tokens it has, decodes only once it has prefilled,
never beyond its KV blocks, and has no more output tokens than it may have. Knows requests by number, as columns. Does
not know slots, queues or files: that is `invariants`, which tells it what happened in the order in which it did.

After the members of some thousand steps were gathered they are sorted by request, so that each stands behind the one
it follows from; the rules are then comparisons of columns.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tracereel.trace.format.events import DECODE, Step

Ints = npt.NDArray[np.int64]
Fault = tuple[int, str, str]
"""A violation: line, rule, message."""

_MEMBERS, _STEPS = 2**14, 2**12
"""How many of them are looked at together."""
# What can happen to a request within a step, in this order.
_ADMITTED, _GRANTED, _COMPUTED, _ENDED = 0, 1, 2, 3
_UNLIMITED = 2**53


class Progress:
    """Gathers what requests do, then says where one of them did what it could not."""

    def __init__(self, block_tokens: int | None, max_model_len: int | None = None):
        self.block_tokens = block_tokens or 0
        self.max_model_len = max_model_len
        """Tokens that a sequence may have at most: a reason to end by `length` too."""
        self._requests = 0
        # What is known of each request at the end of the steps that were looked at.
        self._prompt = np.zeros(1024, dtype=np.int64)
        self._outputs = np.zeros(1024, dtype=np.int64)
        self._reached = np.zeros(1024, dtype=np.int64)
        self._room = np.zeros(1024, dtype=np.int64)
        self._limit = np.zeros(1024, dtype=np.int64)
        self._gave = np.zeros(1024, dtype=np.int64)
        self._clear()

    def _clear(self) -> None:
        self._lines: list[int] = []
        self._sizes: list[int] = []
        # Arrays: numpy takes them as they are, where it would look at every entry of a list.
        self._members, self._positions, self._computed, self._sampled = (array("q") for _ in range(4))
        self._drafted: dict[int, list[int]] = {}
        self._phases: list[str] = []
        self._marks: dict[tuple[int, int, int], int] = {}

    def arrive(self, prompt_tokens: int, max_tokens: int | None) -> None:
        """The next request arrives; it has so many tokens, and may have so many output tokens."""
        if self._requests == len(self._prompt):
            for name in ("_prompt", "_outputs", "_reached", "_room", "_limit", "_gave"):
                column = getattr(self, name)
                setattr(self, name, np.concatenate([column, np.zeros_like(column)]))
        self._prompt[self._requests] = prompt_tokens
        self._limit[self._requests] = _UNLIMITED if max_tokens is None else max_tokens
        self._requests += 1

    def admit(self, request: int, cached: int) -> None:
        """In the next step the request enters with the KV of `cached` tokens, and no blocks."""
        self._marks[request, len(self._lines), _ADMITTED] = cached

    def grow(self, request: int, blocks: int) -> None:
        """In the next step the request's block table is `blocks` long."""
        self._marks[request, len(self._lines), _GRANTED] = blocks * self.block_tokens

    def end(self, request: int) -> None:
        """With the step that was added last the request ends because it has as many tokens as it may have."""
        self._marks[request, len(self._lines) - 1, _ENDED] = 0

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
        rows = self._rows()
        sets = (rows.kind == _ADMITTED) | (rows.kind == _COMPUTED)
        grows = (rows.kind == _ADMITTED) | (rows.kind == _GRANTED)
        # An admission empties the block table; 0 says that it is not known.
        granted = np.where(rows.kind == _ADMITTED, 0, rows.value)
        reached = self._before(rows.request, rows.value, sets, self._reached)
        room = self._before(rows.request, granted, grows, self._room)
        gave = self._before(rows.request, rows.outputs, sets, self._gave)
        first = np.flatnonzero(np.diff(rows.request, prepend=-1))
        size = np.diff(first, append=len(rows.request))
        so_far = np.cumsum(rows.outputs) - rows.outputs
        so_far += np.repeat(self._outputs[rows.request[first]] - so_far[first], size)

        computed = rows.kind == _COMPUTED
        known = self._prompt[rows.request] + so_far
        faults = _compare(rows, computed, reached, known, so_far, room, gave, self._limit[rows.request])
        faults += self._marked(rows, known, so_far)
        # Where an index stands twice the last one counts, which is the newest.
        self._reached[rows.request[sets]] = rows.value[sets]
        self._gave[rows.request[sets]] = rows.outputs[sets]
        self._room[rows.request[grows]] = granted[grows]
        last = first + size - 1
        self._outputs[rows.request[last]] = so_far[last] + rows.outputs[last]
        self._clear()
        return faults

    def _rows(self) -> "_Rows":
        """Everything that happened since the last call, by request and in the order in which it did."""
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
        none = np.zeros(len(marks[0]), dtype=np.int64)
        request = np.concatenate([marks[0], member_request])
        step = np.concatenate([marks[1], steps])
        kind = np.concatenate([marks[2], np.full(len(steps), _COMPUTED)])
        order = np.argsort((request << 32) | (step << 2) | kind)
        lines = np.array([*self._lines, self._lines[-1] if self._lines else 0])

        def sorted_by_request(of_marks: Ints, of_members: Ints) -> Ints:
            column: Ints = np.concatenate([of_marks, of_members])[order]
            return column

        return _Rows(
            request=request[order],
            kind=kind[order],
            line=lines[step[order]],
            value=sorted_by_request(marks[3], position + advance),
            outputs=sorted_by_request(none, sampled),
            decodes=sorted_by_request(none, decodes).astype(bool),
            position=sorted_by_request(none, position),
            computed=sorted_by_request(none, computed),
            drafted=sorted_by_request(none, drafted),
        )

    def _marked(self, rows: "_Rows", known: Ints, so_far: Ints) -> list[Fault]:
        """The rules of admissions and ends."""
        faults = []
        for i in np.flatnonzero((rows.kind == _ADMITTED) & (rows.value >= known)).tolist():
            what = f"request {rows.request[i]} has no token left to compute: {rows.value[i]} cached"
            faults.append((int(rows.line[i]), "tokens", what))
        limit = self._limit[rows.request]
        short = (rows.kind == _ENDED) & (limit < _UNLIMITED) & (so_far < limit)
        if self.max_model_len is not None:
            short &= known + 1 < self.max_model_len
        for i in np.flatnonzero(short).tolist():
            what = f"request {rows.request[i]} ends by length with {so_far[i]} of {limit[i]} output tokens"
            faults.append((int(rows.line[i]), "tokens", what))
        return faults

    def _before(self, request: Ints, value: Ints, sets: npt.NDArray[np.bool_], carried: Ints) -> Ints:
        """For each row what the newest row before it that sets the value has set, or what was carried over."""
        places = np.where(sets, np.arange(len(request)), -1)
        newest = np.concatenate([[-1], np.maximum.accumulate(places)[:-1]])
        same = (newest >= 0) & (request[newest] == request)
        return np.where(same, value[newest], carried[request])


@dataclass(frozen=True)
class _Rows:
    """What happened to requests, a row each: what (`kind`), on which line, and what a member of a step computed."""

    request: Ints
    kind: Ints
    line: Ints
    value: Ints
    """Tokens with KV after an admission or a step; tokens that a block table has room for after a grant."""
    outputs: Ints
    decodes: npt.NDArray[np.bool_]
    position: Ints
    computed: Ints
    drafted: Ints


def _compare(
    rows: _Rows,
    is_member: npt.NDArray[np.bool_],
    reached: Ints,
    known: Ints,
    outputs: Ints,
    room: Ints,
    gave: Ints,
    limit: Ints,
) -> list[Fault]:
    """The rules of members: what each row computes against where its request stood."""
    decodes, prefills = is_member & rows.decodes, is_member & ~rows.decodes
    sampled, computed = rows.outputs, rows.computed
    reach = rows.position + computed
    rules: tuple[tuple[npt.NDArray[np.bool_], str, str], ...] = (
        (is_member & (rows.position != reached), "tokens", "request {r} computes from position {p}, expected {e}"),
        (is_member & (computed < 1), "tokens", "request {r} is in the batch but computes nothing"),
        (
            decodes & ((outputs == 0) | (reach < known)),
            "tokens",
            "request {r} decodes at position {p} before its prefill is done",
        ),
        (
            prefills & (gave > 0) & (outputs > 0),
            "tokens",
            "request {r} prefills at position {p}, where only its newest token is left: that is a decode",
        ),
        (decodes & (sampled > computed), "tokens", "request {r} has {s} new tokens from {c} computed"),
        (
            decodes & (sampled <= computed) & (sampled > rows.drafted + 1),
            "tokens",
            "request {r} has {s} new tokens from {d} drafts",
        ),
        (prefills & (reach > known), "tokens", "request {r} prefills to position {t} but has {k} tokens"),
        (prefills & (sampled > (reach == known)), "tokens", "request {r} has new tokens before its prefill is done"),
        (is_member & (outputs + sampled > limit), "tokens", "request {r} has {o} output tokens, its max_tokens is {l}"),
        (
            is_member & (room > 0) & (room < reach),
            "blocks",
            "request {r} computes to position {t} with room for {m} in its blocks",
        ),
    )
    columns = {"r": rows.request, "p": rows.position, "e": reached, "s": sampled, "c": computed, "d": rows.drafted}
    columns |= {"t": reach, "k": known, "m": room, "o": outputs + sampled, "l": limit}
    faults: list[tuple[int, Fault]] = []
    for broken, rule, message in rules:
        for i in np.flatnonzero(broken).tolist():
            text = message.format(**{name: column[i] for name, column in columns.items()})
            faults.append((i, (int(rows.line[i]), rule, text)))
    return [fault for _, fault in sorted(faults, key=lambda fault: (fault[1][0], fault[0]))]
