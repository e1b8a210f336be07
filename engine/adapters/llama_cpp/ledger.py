"""Turns looks at a server's slots into the records of a trace. Knows neither HTTP nor a clock.

A step ends at a look that sees that slots have advanced, and begins at the look before that saw the same, or at the
last one that saw all of them idle; each of its tokens has the time at which it ends. A row can say a prefill with its
first token, or tokens decoded: where a slot did more than one of these in a step's time, or was handed over, further
steps of a microsecond at the end of that time say the rest.

What cannot be known from outside:
- when a pass began and ended within a step's time, and how many passes it was;
- of requests of other clients: when they arrived (the look before the first one that shows them is taken), their
  prompts, tokens, texts, why they ended, and the tokens since the last look at them;
- requests that came and went between two looks: such a request of one's own ends as `unseen`, others are not there;
- KV in use, drafts that were rejected, the device.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tracereel.engine.adapters import AdapterError
from tracereel.trace.format.bounds import as_name, as_prompt
from tracereel.trace.format.events import DECODE, PREFILL, Admission, Arrival, Ending, Finish, Step

ROUND_NS = 1_000
MOST_TOKENS = 1024
"""New tokens of a row, as many as a trace may say of one: more that were decoded between two looks are further rows."""
MOST_REMAIN = 2**30
"""A slot with more left has no limit that matters."""
MOST_KEPT = 2**22
"""Rows of looks that may wait for the answers to which they belong."""
ENDED, UNSEEN, ERROR = "ended", "unseen", "error"
_REASONS = {"limit": "length", "eos": "stop", "word": "stop"}


@dataclass(eq=False, slots=True)
class Sent:
    """A request of one's own; the thread that reads its answer adds to it, `ended` last."""

    id: str
    prompt: str
    prompt_tokens: int
    max_tokens: int
    seed: int
    due_ns: int
    submitted_ns: int
    pieces: dict[int, tuple[str, int | None]] = field(default_factory=dict)
    """By the number of a token (from 1) its text, and its id."""
    received: int = 0
    cached: int = 0
    stop_type: str | None = None
    ended: bool = False


@dataclass(eq=False, slots=True)
class Task:
    """A request as the slots show it."""

    slot: int
    sent: Sent | None
    since_ns: int
    name: str
    cached: int = 0
    processed: int = 0
    decoded: int = 0
    max_tokens: int | None = None
    gone: bool = False
    number: int | None = None
    in_slot: bool = False
    reported: int = 0
    outputs: int = 0

    @property
    def prompt_known(self) -> bool:
        """Is it known how long its prompt is?"""
        return self.sent is not None or self.decoded > 0 or self.gone

    @property
    def prompt_tokens(self) -> int:
        """Tokens of its prompt; of another client's request that left before it decoded, those that were seen."""
        return self.sent.prompt_tokens if self.sent is not None else max(self.cached + self.processed, 1)


@dataclass(frozen=True, slots=True)
class Seen:
    """A slot at a look: whose it is and how far that is."""

    slot: int
    task: int
    seed: int
    cached: int
    processed: int
    decoded: int
    remain: int


@dataclass(frozen=True, slots=True)
class _Interval:
    """A time at whose end slots had advanced: how far each task had come then, and which had left."""

    from_ns: int
    to_ns: int
    rows: list[tuple[Task, int, int]]
    gone: list[Task]

    @property
    def size(self) -> int:
        """Its rows, and the looks themselves."""
        return 1 + len(self.rows) + len(self.gone)

    @property
    def ready(self) -> bool:
        """Has everything been received that the looks have seen?"""
        reached = all(
            task.prompt_known and (task.sent is None or task.sent.ended or task.sent.received >= decoded)
            for task, _, decoded in self.rows
        )
        return reached and all(task.sent is None or task.sent.ended for task in self.gone)


@dataclass(slots=True)
class _Row:
    task: Task
    phase: str
    position: int
    computed: int
    sampled: int


class Ledger:
    """Takes looks in order and gives records in order, as soon as what they say is known."""

    def __init__(self) -> None:
        self._tasks: dict[int, Task] = {}
        self._sent: list[Sent] = []
        self._unseen: dict[int, Sent] = {}
        self._to_arrive: list[Sent] = []
        self._numbers: dict[Sent, int] = {}
        self._intervals: deque[_Interval] = deque()
        self._kept = 0
        """Their rows, together."""
        self._requests = self._steps = self._running = self._waiting = 0
        self._looked_ns: int | None = None
        self._since_ns = 0
        """When the next step begins."""
        self._last_ns = 0

    def send(self, sent: Sent) -> None:
        """A request of one's own is on its way."""
        self._sent.append(sent)
        self._to_arrive.append(sent)
        self._unseen[sent.seed] = sent

    @property
    def busy(self) -> bool:
        """Does a slot work, or a request of one's own wait for its answer?"""
        return bool(self._tasks) or any(not sent.ended for sent in self._sent)

    def look(self, slots: Sequence[Seen], at_ns: int) -> None:
        """The slots that work, as they were at this time; a task is known by its number.

        Raises AdapterError where the looks go on and on without the answers that they show.
        """
        before_ns = at_ns if self._looked_ns is None else self._looked_ns
        self._looked_ns = at_ns
        rows, advanced = [], False
        for seen in slots:
            task = self._tasks.get(seen.task)
            if task is None:
                sent = self._unseen.pop(seen.seed, None)
                task = self._tasks[seen.task] = Task(seen.slot, sent, before_ns, f"task {seen.task}")
            advanced = advanced or (seen.processed, seen.decoded) != (task.processed, task.decoded)
            task.cached, task.processed, task.decoded = seen.cached, seen.processed, seen.decoded
            if 0 <= seen.remain <= MOST_REMAIN:
                task.max_tokens = seen.decoded + seen.remain
            rows.append((task, seen.processed, seen.decoded))
        present = {seen.task for seen in slots}
        gone = [task for number, task in self._tasks.items() if number not in present]
        self._tasks = {number: task for number, task in self._tasks.items() if number in present}
        for task in gone:
            task.gone = True
        if advanced or gone:
            self._intervals.append(_Interval(self._since_ns, at_ns, rows, gone))
            self._kept += self._intervals[-1].size
            if self._kept > MOST_KEPT:
                raise AdapterError(f"{len(self._intervals)} looks show slots at work whose answers have not come")
        if advanced or not rows:
            self._since_ns = at_ns

    def records(self, *, all_of_it: bool = False) -> Iterator[Arrival | Step | Finish]:
        """What is known by now; `all_of_it`: the following ends, nothing more will be known."""
        while self._intervals and (all_of_it or self._intervals[0].ready):
            interval = self._intervals.popleft()
            self._kept -= interval.size
            yield from self._written(interval)
        if all_of_it:
            yield from self._left_over()

    def _left_over(self) -> Iterator[Arrival | Finish]:
        """The end: requests of one's own that no look saw, and those that still run."""
        at_ns = max(self._looked_ns or 0, self._last_ns)
        yield from self._arrivals(max([at_ns, *(sent.submitted_ns for sent in self._to_arrive)]), [])
        for sent in self._unseen.values():
            reason = UNSEEN if sent.stop_type is not None else ERROR
            yield Finish(request=self._numbers[sent], at_ns=max(at_ns, sent.submitted_ns), reason=reason)
        for task in self._tasks.values():
            if task.number is not None:
                yield self._finish(task, at_ns)

    # One interval.

    def _written(self, interval: _Interval) -> Iterator[Arrival | Step | Finish]:
        """An interval's records, in rounds: a slot's old request leaves before its new one enters."""
        for task in interval.gone:
            _complete(task)
        due = {task: (task.processed, task.decoded) for task in interval.gone}
        due |= {task: (processed, decoded) for task, processed, decoded in interval.rows}
        left = {task.slot for task in interval.gone}
        late = {task for task, _, _ in interval.rows if task.slot in left}
        rounds: list[list[_Row]] = []
        for turn in ([task for task in due if task not in late], [task for task in due if task in late]):
            rows = [list(_rows(task, *due[task])) for task in turn]
            rounds += [[own[i] for own in rows if i < len(own)] for i in range(max(map(len, rows), default=0))]
        last = {row.task: i for i, rows_of in enumerate(rounds) for row in rows_of}
        for task in interval.gone:
            if task not in last:
                yield from self._leave_without_a_row(task, interval.from_ns)
        for i, rows_of in enumerate(rounds):
            to_ns = interval.to_ns - (len(rounds) - 1 - i) * ROUND_NS
            leaving = [task for task in interval.gone if last.get(task) == i]
            yield from self._round(interval.from_ns, to_ns, rows_of, leaving)

    def _round(
        self, from_ns: int, to_ns: int, rows: list[_Row], leaving: list[Task]
    ) -> Iterator[Arrival | Step | Finish]:
        enter = [row.task for row in rows if not row.task.in_slot]
        from_ns = max([from_ns, self._last_ns, *map(_submitted_ns, enter)])
        to_ns = max(to_ns, from_ns)
        yield from self._arrivals(from_ns, enter)
        yield self._step(from_ns, to_ns, rows, enter, [task for task in leaving if _reason(task)])
        for task in leaving:
            if not _reason(task):
                yield self._finish(task, to_ns)

    def _leave_without_a_row(self, task: Task, at_ns: int) -> Iterator[Arrival | Finish]:
        """A request left, and nothing more is known of it than at the look before."""
        yield from self._arrivals(at_ns, [] if task.in_slot else [task])
        yield self._finish(task, max(at_ns, self._last_ns, _submitted_ns(task)))

    def _step(self, from_ns: int, to_ns: int, rows: list[_Row], enter: list[Task], finished: list[Task]) -> Step:
        admitted = []
        for task in enter:
            task.in_slot = True
            admitted.append(Admission(request=_number(task), slot=task.slot, cached=task.cached))
        self._running += len(enter)
        self._waiting -= len(enter)
        pieces = [_pieces(row) for row in rows]
        tokens = [token for own in pieces for _, token in own or []]
        known = all(own is not None for own in pieces)
        step = Step(
            index=self._steps,
            start_ns=from_ns,
            end_ns=to_ns,
            requests=[_number(row.task) for row in rows],
            slots=[row.task.slot for row in rows],
            phases="".join(row.phase for row in rows),
            positions=[row.position for row in rows],
            computed=[row.computed for row in rows],
            sampled=[row.sampled for row in rows],
            tokens=[token for token in tokens if token is not None] if known and None not in tokens else None,
            texts=[text for own in pieces for text, _ in own or []] if known else None,
            padding=0,
            admitted=admitted,
            preempted=[],
            finished=[Ending(request=_number(task), reason=_reason(task) or ENDED) for task in finished],
            blocks=[],
            waiting=self._waiting,
            running=self._running,
        )
        for row in rows:
            row.task.outputs += row.sampled
            row.task.reported += row.computed if row.phase == PREFILL else 0
        self._running -= len(finished)
        self._steps += 1
        self._last_ns = to_ns
        return step

    def _finish(self, task: Task, at_ns: int) -> Finish:
        if task.in_slot:
            self._running -= 1
        else:
            self._waiting -= 1
        reason = ENDED if task.sent is None else _reason(task) or ERROR
        return Finish(request=_number(task), at_ns=at_ns, reason=reason)

    def _arrivals(self, until_ns: int, enter: Sequence[Task]) -> Iterator[Arrival]:
        """Those of one's own that were sent by then, and those that enter, in the order in which they came."""
        mine = {task.sent for task in enter}
        sent = [each for each in self._to_arrive if each.submitted_ns <= until_ns or each in mine]
        self._to_arrive = [each for each in self._to_arrive if each not in sent]
        come: list[tuple[int, Sent | Task]] = [(each.submitted_ns, each) for each in sent]
        come += [(task.since_ns, task) for task in enter if task.sent is None]
        for _, each in sorted(come, key=lambda one: one[0]):
            yield self._arrival(each)
        for task in enter:
            if task.sent is not None:
                task.number = self._numbers[task.sent]

    def _arrival(self, each: Sent | Task) -> Arrival:
        number = self._requests
        self._requests += 1
        self._waiting += 1
        if isinstance(each, Task):
            each.number = number
            return Arrival(
                request=number,
                id=as_name(each.name),
                arrival_ns=each.since_ns,
                submitted_ns=each.since_ns,
                prompt_tokens=each.prompt_tokens,
                max_tokens=each.max_tokens,
            )
        self._numbers[each] = number
        return Arrival(
            request=number,
            id=as_name(each.id),
            arrival_ns=min(each.due_ns, each.submitted_ns),
            submitted_ns=each.submitted_ns,
            prompt_tokens=each.prompt_tokens,
            prompt=as_prompt(each.prompt),
            max_tokens=each.max_tokens,
        )


def _complete(task: Task) -> None:
    """What the end of its answer says of a request of one's own that has left its slot."""
    if task.sent is None or task.sent.stop_type is None:
        return
    if not task.in_slot:
        task.cached = task.sent.cached
    task.processed = task.prompt_tokens - task.cached
    task.decoded = max(task.sent.received, task.outputs)


def _submitted_ns(task: Task) -> int:
    """When it was sent; another client's at the earliest."""
    return task.since_ns if task.sent is None else task.sent.submitted_ns


def _number(task: Task) -> int:
    assert task.number is not None
    return task.number


def _reason(task: Task) -> str | None:
    """Why a request of one's own ended; None where its answer broke off."""
    return None if task.sent is None else _REASONS.get(task.sent.stop_type or "")


def _rows(task: Task, processed: int, decoded: int) -> Iterator[_Row]:
    """What a task did since it was last reported: a prefill with its first token, then tokens decoded."""
    outputs = task.outputs
    if processed > task.reported:
        first = int(decoded > 0 and not outputs)
        yield _Row(task, PREFILL, task.cached + task.reported, processed - task.reported, first)
        outputs += first
    while decoded > outputs and outputs:
        new = min(decoded - outputs, MOST_TOKENS)
        yield _Row(task, DECODE, task.prompt_tokens + outputs - 1, new, new)
        outputs += new


def _pieces(row: _Row) -> list[tuple[str, int | None]] | None:
    """Texts and ids of a row's new tokens; None where they are not known."""
    if not row.sampled:
        return []
    if row.task.sent is None:
        return None
    pieces, first = row.task.sent.pieces, row.task.outputs + 1
    return [pieces.get(number, ("", None)) for number in range(first, first + row.sampled)]
