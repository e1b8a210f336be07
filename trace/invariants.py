"""What must hold in every trace: lifecycle, order of tokens, slots, KV blocks, queues and times.

`check(path)` reads a file line by line and gives every violation with its line. Knows what one engine run can and
cannot do; does not know which engine ran, nor any policy.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tracereel.trace.decoding import MalformedRecordError, decode_record
from tracereel.trace.events import DECODE, Arrival, End, Finish, Header, Step
from tracereel.trace.storage import LineReader, TraceError


@dataclass(frozen=True)
class Violation:
    """One thing that cannot be: the line it stands on (0: the file as a whole), the rule broken, and how."""

    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.rule}: {self.message}" if self.line else f"{self.rule}: {self.message}"


@dataclass
class Report:
    """The verdict on one file. `complete` is False where checking stopped at `limit` violations."""

    path: Path
    violations: list[Violation] = field(default_factory=list)
    cut: str | None = None
    complete: bool = True
    requests: int = 0
    steps: int = 0
    output_tokens: int = 0

    @property
    def ok(self) -> bool:
        """True where nothing is violated and the recording is whole."""
        return not self.violations and self.cut is None


def check(path: Path | str, limit: int | None = None) -> Report:
    """Check a trace file against every invariant.

    Stops after `limit` violations where that is given. Raises TraceError only where the file cannot be read at all.
    """
    report = Report(Path(path))
    reader = LineReader(path)
    checker = _Checker(report)
    number = 0
    for number, line in reader:
        for violation in checker.line(number, line):
            if limit is not None and len(report.violations) >= limit:
                report.complete = False
                return report
            report.violations.append(violation)
    if checker.header is None and not report.violations:
        raise TraceError(path, reader.cut or "the file holds no header record; is it a trace?")
    if checker.end is None:
        report.cut = f"cut off after line {number}: {reader.cut or 'there is no end record'}"
    else:
        report.cut = reader.cut
        report.violations.extend(checker.at_end(number, reader.digest))
    return report


@dataclass
class _Request:
    prompt_tokens: int
    submitted_ns: int
    output_tokens: int = 0
    computed: int = 0
    slot: int | None = None
    cached_blocks: int = 0
    blocks: list[int] = field(default_factory=list)
    ended: bool = False


class _Checker:
    """Follows one run, record by record, and says what cannot be."""

    def __init__(self, report: Report):
        self.report = report
        self.header: Header | None = None
        self.end: End | None = None
        self.requests: list[_Request] = []
        self.slot_of: dict[int, int] = {}
        self.holders: dict[int, int] = {}
        self.place_of: dict[int, int] = {}
        self.waiting = 0
        self.running = 0
        self.last_step: Step | None = None

    def line(self, number: int, line: bytes) -> Iterator[Violation]:
        try:
            event = decode_record(line)
        except MalformedRecordError as error:
            yield Violation(number, "format", str(error))
            return
        if self.end is not None:
            yield Violation(number, "lifecycle", "a record after the end record")
            return
        if isinstance(event, Header):
            if self.header is not None:
                yield Violation(number, "lifecycle", "a second header")
                return
            self.header = event
            return
        if self.header is None:
            if number == 1:
                yield Violation(number, "lifecycle", "the first record is not a header")
            return
        rules = {Arrival: self.arrival, Step: self.step, Finish: self.finish, End: self.last}[type(event)]
        for rule, message in rules(event):  # type: ignore[operator]
            yield Violation(number, rule, message)

    def arrival(self, event: Arrival) -> Iterator[tuple[str, str]]:
        if event.request != len(self.requests):
            yield "lifecycle", f"request {event.request} arrives where request {len(self.requests)} is next"
            return
        if event.submitted_ns < event.arrival_ns:
            yield "times", f"request {event.request} was submitted before its scheduled arrival"
        if event.prompt_tokens < 1:
            yield "tokens", f"request {event.request} has no prompt tokens"
        self.requests.append(_Request(event.prompt_tokens, event.submitted_ns))
        self.waiting += 1
        self.report.requests += 1

    def known(self, number: int) -> _Request | None:
        return self.requests[number] if number < len(self.requests) else None

    def finish(self, event: Finish) -> Iterator[tuple[str, str]]:
        request = self.known(event.request)
        if request is None:
            yield "lifecycle", f"request {event.request} ends but never arrived"
        elif request.ended:
            yield "lifecycle", f"request {event.request} ends twice"
        else:
            if event.at_ns < request.submitted_ns:
                yield "times", f"request {event.request} ends before it was submitted"
            self.leave(event.request, request, ended=True)

    def leave(self, number: int, request: _Request, *, ended: bool) -> None:
        """Take a request out of its slot (or out of the queue where it ends there) and free its blocks."""
        if request.slot is not None:
            self.slot_of.pop(request.slot, None)
            request.slot = None
            self.running -= 1
            if not ended:
                self.waiting += 1
        elif ended:
            self.waiting -= 1
        for block in request.blocks:
            left = self.holders[block] - 1
            if left:
                self.holders[block] = left
            else:
                del self.holders[block]
        request.blocks = []
        request.computed = 0
        request.ended = ended

    def step(self, step: Step) -> Iterator[tuple[str, str]]:
        self.report.steps += 1
        yield from self.step_times(step)
        members = len(step.requests)
        for name in ("slots", "phases", "positions", "computed", "sampled"):
            if len(getattr(step, name)) != members:
                yield "format", f"{name}: {len(getattr(step, name))} entries for {members} requests"
                return
        new_tokens = sum(step.sampled)
        for name in ("tokens", "texts"):
            values = getattr(step, name)
            if values is not None and len(values) != new_tokens:
                yield "format", f"{name}: {len(values)} entries for {new_tokens} sampled tokens"
        yield from self.leave_and_enter(step)
        yield from self.grant(step)
        yield from self.counts(step)
        yield from self.members(step)
        self.report.output_tokens += new_tokens
        for ending in step.finished:
            request = self.known(ending.request)
            if request is None or request.ended:
                yield "lifecycle", f"request {ending.request} ends but is not there"
            elif request.slot is None:
                yield "lifecycle", f"request {ending.request} ends in a step but holds no slot"
            else:
                self.leave(ending.request, request, ended=True)

    def step_times(self, step: Step) -> Iterator[tuple[str, str]]:
        if step.end_ns < step.start_ns:
            yield "times", f"step {step.index} ends before it starts"
        if step.scheduled_ns is not None and not step.start_ns <= step.scheduled_ns <= step.end_ns:
            yield "times", f"scheduled_ns of step {step.index} lies outside the step"
        if step.device_ns is not None and step.device_ns > step.end_ns - step.start_ns:
            yield "times", f"device_ns of step {step.index} is longer than the step"
        before = self.last_step
        expected = 0 if before is None else before.index + 1
        if step.index != expected:
            yield "lifecycle", f"step {step.index} follows where step {expected} is next"
        if before is not None and step.start_ns < before.end_ns:
            yield "times", f"step {step.index} starts before step {before.index} has ended"
        self.last_step = step

    def leave_and_enter(self, step: Step) -> Iterator[tuple[str, str]]:
        assert self.header is not None
        for number in step.preempted:
            request = self.known(number)
            if request is None or request.slot is None:
                yield "lifecycle", f"request {number} is preempted but does not run"
            else:
                self.leave(number, request, ended=False)
        for admission in step.admitted:
            request = self.known(admission.request)
            if request is None or request.ended:
                yield "lifecycle", f"request {admission.request} is admitted but does not wait"
            elif request.slot is not None:
                yield "lifecycle", f"request {admission.request} is admitted but runs already"
            elif admission.slot >= self.header.slots:
                yield "slots", f"slot {admission.slot} of {self.header.slots} (request {admission.request})"
            elif admission.slot in self.slot_of:
                yield "slots", f"slot {admission.slot} is given to request {admission.request} but taken"
            else:
                if step.start_ns < request.submitted_ns:
                    yield "times", f"request {admission.request} is admitted before it was submitted"
                self.slot_of[admission.slot] = admission.request
                request.slot = admission.slot
                request.computed = admission.cached
                block = self.header.kv_block_tokens
                request.cached_blocks = admission.cached // block if block else 0
                if admission.cached >= request.prompt_tokens + request.output_tokens:
                    yield (
                        "tokens",
                        f"request {admission.request} has no token left to compute: {admission.cached} cached",
                    )
                self.waiting -= 1
                self.running += 1

    def grant(self, step: Step) -> Iterator[tuple[str, str]]:
        assert self.header is not None
        total = self.header.kv_blocks
        for grant in step.blocks:
            request = self.known(grant.request)
            if request is None or request.slot is None:
                yield "blocks", f"request {grant.request} is given blocks but does not run"
                continue
            for block in grant.blocks:
                if total is not None and block >= total:
                    yield "blocks", f"block {block} of {total} (request {grant.request})"
                elif block in self.holders:
                    place = len(request.blocks)
                    if place >= request.cached_blocks:
                        yield "blocks", f"block {block} is given to request {grant.request} but held by another"
                    elif place != self.place_of[block]:
                        yield (
                            "blocks",
                            f"block {block} is shared at place {place} of request {grant.request}'s table, elsewhere it"
                            f" stands at {self.place_of[block]}",
                        )
                self.place_of[block] = len(request.blocks)
                self.holders[block] = self.holders.get(block, 0) + 1
                request.blocks.append(block)
        if step.kv_used is not None:
            if total is not None and step.kv_used > total:
                yield "blocks", f"{step.kv_used} blocks used of {total}"
            if self.holders and step.kv_used != len(self.holders):
                yield "blocks", f"kv_used is {step.kv_used}, the block tables hold {len(self.holders)}"

    def counts(self, step: Step) -> Iterator[tuple[str, str]]:
        assert self.header is not None
        if step.waiting != self.waiting:
            yield "queues", f"waiting is {step.waiting}, the records before say {self.waiting}"
        if step.running != self.running:
            yield "queues", f"running is {step.running}, the records before say {self.running}"
        budget = self.header.token_budget
        if budget is not None and sum(step.computed) > budget:
            yield "budget", f"{sum(step.computed)} tokens computed under a token budget of {budget}"

    def members(self, step: Step) -> Iterator[tuple[str, str]]:
        assert self.header is not None
        if len(set(step.requests)) != len(step.requests):
            yield "lifecycle", f"a request is twice in step {step.index}"
        columns = zip(step.requests, step.slots, step.phases, step.positions, step.computed, step.sampled, strict=True)
        block_tokens = self.header.kv_block_tokens
        for number, slot, phase, position, computed, sampled in columns:
            request = self.known(number)
            if request is None or request.slot is None:
                yield "lifecycle", f"request {number} is in the batch but does not run"
                continue
            if slot != request.slot:
                yield "slots", f"request {number} computes in slot {slot} but was given slot {request.slot}"
            if position != request.computed:
                yield "tokens", f"request {number} computes from position {position}, expected {request.computed}"
            if computed < 1:
                yield "tokens", f"request {number} is in the batch but computes nothing"
            known = request.prompt_tokens + request.output_tokens
            reach = position + computed
            if phase == DECODE:
                if not request.output_tokens or reach < known:
                    yield "tokens", f"request {number} decodes at position {position} before its prefill is done"
                if sampled > computed:
                    yield "tokens", f"request {number} has {sampled} new tokens from {computed} computed"
                request.computed = position + (sampled if sampled else computed)
            else:
                if reach > known:
                    yield "tokens", f"request {number} prefills to position {reach} but has {known} tokens"
                if sampled > (1 if reach == known else 0):
                    yield "tokens", f"request {number} has new tokens before its prefill is done"
                request.computed = reach
            if block_tokens and request.blocks and len(request.blocks) * block_tokens < reach:
                yield "blocks", f"request {number} computes to position {reach} with {len(request.blocks)} blocks"
            request.output_tokens += sampled

    def last(self, event: End) -> Iterator[tuple[str, str]]:
        self.end = event
        if self.last_step is not None and event.at_ns < self.last_step.end_ns:
            yield "times", "the end record lies before the last step's end"
        for name in ("requests", "steps", "output_tokens"):
            stated, counted = getattr(event, name), getattr(self.report, name)
            if stated != counted and not event.dropped:
                yield "counts", f"the end record says {stated} {name.replace('_', ' ')}, the file holds {counted}"

    def at_end(self, number: int, digest: str) -> Iterator[Violation]:
        assert self.end is not None
        if self.end.digest != digest:
            yield Violation(number, "digest", "the records are not those that were written (the digest differs)")
