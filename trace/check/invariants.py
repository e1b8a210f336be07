"""What must hold in every trace: lifecycle, order of tokens, slots, KV blocks, queues and times.

`check(path)` reads a file line by line and gives every violation with its line. Knows what one engine run can and
cannot do; does not know which engine ran, nor any policy.

What happens once in a while (arrivals, admissions, blocks, queues, times) is followed record by record; what every
member of every step must keep to is checked by `progress`, thousands of steps at a time.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tracereel.trace.check.block_tables import BlockTables, Replica, Request
from tracereel.trace.check.group_tables import GroupTables
from tracereel.trace.check.progress import Progress
from tracereel.trace.check.report import Report, Violation
from tracereel.trace.format.decoding import MalformedRecordError, decode_record
from tracereel.trace.format.events import Admission, Arrival, BlockGrant, End, Finish, Header, ReplicaInfo, Step
from tracereel.trace.format.storage import LineReader, TraceError

_MOST_SAID = 3
LENGTH = "length"
"""The reason of a request that ends because it has as many tokens as it may have."""


def check(path: Path | str, limit: int | None = None) -> Report:
    """Check a trace file against every invariant.

    Stops after `limit` violations where that is given. Raises TraceError only where the file cannot be read at all.
    """
    report = Report(Path(path))
    found = violations(report)
    report.violations = list(found if limit is None else islice(found, limit))
    report.complete = limit is None or next(found, None) is None
    return report


def contradictions(path: Path | str) -> list[str]:
    """A sentence for each of a trace file's first few violations, for pages that show the trace all the same.

    Raises TraceError only where the file cannot be read at all.
    """
    return [f"This recording contradicts itself: {found}." for found in check(path, limit=_MOST_SAID).violations]


def violations(report: Report) -> Iterator[Violation]:
    """Every violation of `report.path` in the order of its lines; the report's other fields are filled on the way.

    Raises TraceError where the file cannot be read at all.
    """
    reader = LineReader(report.path)
    checker = _Checker(report)
    number = 0
    any_found = False
    for number, line in reader:
        checker.line(number, line)
        if checker.due:
            for violation in checker.take():
                any_found = True
                yield violation
    for violation in checker.take():
        any_found = True
        yield violation
    if checker.header is None and not any_found:
        raise TraceError(report.path, reader.cut or "the file holds no header record; is it a trace?")
    report.cut = reader.cut
    if checker.end is None:
        report.cut = f"cut off after line {number}: {reader.cut or 'there is no end record'}"
    elif checker.end.digest != reader.digest:
        yield Violation(number, "digest", "the records are not those that were written (the digest differs)")


class _Checker:
    """Follows one run, record by record, and says what cannot be."""

    def __init__(self, report: Report):
        self.report = report
        self.header: Header | None = None
        self.end: End | None = None
        self.replicas: dict[int, Replica] = {}
        self.requests: dict[int, Request] = {}
        self.slots_of: dict[int, int] = {}
        self.taken: set[int] = set()
        self.tables = BlockTables(self.say)
        self.progress = Progress(None)
        self.last_step: Step | None = None
        self.found: list[Violation] = []
        self.number = 0
        self.batch: tuple[list[int], list[int]] = ([], [])
        """Requests and slots of a batch in which each was found to run, until a request takes or leaves a slot."""

    @property
    def due(self) -> bool:
        """Is there something to take: violations, or enough steps to look at together?"""
        return self.progress.full or len(self.found) >= 100

    def take(self) -> list[Violation]:
        """The violations since the last call, in the order of their lines."""
        late = (Violation(*fault) for fault in self.progress.check())
        found = sorted([*self.found, *late], key=lambda violation: violation.line)
        self.found = []
        return found

    def say(self, rule: str, message: str) -> None:
        self.found.append(Violation(self.number, rule, message))

    def line(self, number: int, line: bytes) -> None:
        self.number = number
        try:
            event = decode_record(line)
        except MalformedRecordError as error:
            self.say("format", str(error))
            return
        if self.end is not None:
            self.say("lifecycle", "a record after the end record")
        elif isinstance(event, Header):
            self.first(event)
        elif self.header is None:
            if number == 1:
                self.say("lifecycle", "the first record is not a header")
        elif isinstance(event, Step):
            self.step(event)
        elif isinstance(event, Arrival):
            self.arrival(event)
        elif isinstance(event, Finish):
            self.finish(event)
        else:
            self.last(event)

    def first(self, header: Header) -> None:
        if self.header is not None:
            self.say("lifecycle", "a second header")
            return
        self.header = header
        longest = header.config.get("max_model_len")
        self.progress = Progress(header.kv_block_tokens, longest if isinstance(longest, int) else None)
        if header.run is not None and header.run.repeat >= header.run.repeats:
            self.say("lifecycle", f"repeat {header.run.repeat} (from 0) of {header.run.repeats} repeats")
        self.groups = GroupTables(self.say, header, self.requests)
        parts = header.replicas or [
            ReplicaInfo(replica=0, slots=header.slots, kv_blocks=header.kv_blocks, digest="0" * 64)
        ]
        slot = block = 0
        for part in parts:
            if part.replica in self.replicas:
                self.say("lifecycle", f"replica {part.replica} stands twice in the header")
            blocks = None if part.kv_blocks is None else range(block, block + part.kv_blocks)
            self.replicas[part.replica] = Replica(range(slot, slot + part.slots), blocks)
            slot += part.slots
            block += part.kv_blocks or 0
        if slot != header.slots:
            self.say("slots", f"the header says {header.slots} slots, its replicas have {slot}")
        if header.kv_blocks is not None and block != header.kv_blocks:
            self.say("blocks", f"the header says {header.kv_blocks} blocks, its replicas have {block}")

    def arrival(self, event: Arrival) -> None:
        expected = self.report.requests
        replica = self.replicas.get(event.replica)
        if event.request != expected:
            self.say("lifecycle", f"request {event.request} arrives where request {expected} is next")
            return
        if replica is None:
            self.say("lifecycle", f"request {event.request} is sent to replica {event.replica}, which there is not")
            return
        if event.submitted_ns < event.arrival_ns:
            self.say("times", f"request {event.request} was submitted before its scheduled arrival")
        if event.prompt_tokens < 1:
            self.say("tokens", f"request {event.request} has no prompt tokens")
        self.requests[event.request] = Request(event.prompt_tokens, event.submitted_ns, replica)
        self.progress.arrive(event.prompt_tokens, event.max_tokens)
        replica.waiting += 1
        self.report.requests += 1

    def finish(self, event: Finish) -> None:
        request = self.requests.get(event.request)
        if request is None:
            how = "twice" if event.request < self.report.requests else "but never arrived"
            self.say("lifecycle", f"request {event.request} ends {how}")
            return
        if event.at_ns < request.submitted_ns:
            self.say("times", f"request {event.request} ends before it was submitted")
        self.leave(event.request, request, ended=True)

    def leave(self, number: int, request: Request, *, ended: bool) -> None:
        """Take a request out of its slot (or out of the queue where it ends there) and free its blocks."""
        replica = request.replica
        if request.slot is not None:
            self.batch = ([], [])
            self.taken.discard(request.slot)
            self.slots_of.pop(number, None)
            request.slot = None
            replica.running -= 1
            if not ended:
                replica.waiting += 1
        elif ended:
            replica.waiting -= 1
        self.tables.release(request)
        self.groups.release(request)
        if ended:
            del self.requests[number]

    def step(self, step: Step) -> None:
        self.report.steps += 1
        replica = self.replicas.get(step.replica)
        if replica is None:
            self.say("lifecycle", f"step {step.index} is of replica {step.replica}, which there is not")
            return
        self.order(step)
        self.times(step, replica)
        self.padding(step, replica)
        members = len(step.requests)
        if not (
            len(step.slots) == members
            and len(step.phases) == members
            and len(step.positions) == members
            and len(step.computed) == members
            and len(step.sampled) == members
            and (step.drafted is None or len(step.drafted) == members)
            and (step.invalid_drafts is None or len(step.invalid_drafts) == members)
        ):
            self.columns(step)
            return
        new_tokens = sum(step.sampled)
        if step.invalid_drafts is not None:
            drafted = step.drafted or [0] * members
            if any(invalid > all_ for invalid, all_ in zip(step.invalid_drafts, drafted, strict=True)):
                self.say("tokens", f"step {step.index} has more invalid drafts than drafts")
        if step.tokens is not None and len(step.tokens) != new_tokens:
            self.say("format", f"tokens: {len(step.tokens)} entries for {new_tokens} sampled tokens")
        if step.texts is not None and len(step.texts) != new_tokens:
            self.say("format", f"texts: {len(step.texts)} entries for {new_tokens} sampled tokens")
        self.report.output_tokens += new_tokens
        assert self.header is not None
        budget = self.header.token_budget
        if budget is not None and sum(step.computed) > budget:
            self.say("budget", f"{sum(step.computed)} tokens computed under a token budget of {budget}")
        if self.report.missing_steps:
            return  # which requests run, and from where, is not known any more: the rules below would all be broken
        for number in step.preempted:
            self.preempt(number, replica)
        self.groups.free(step, replica)
        for admission in step.admitted:
            self.admit(admission, step, replica)
        for grant in step.blocks:
            self.grant(grant, replica)
        self.groups.follow(step, replica)
        self.queues(step, replica)
        self.members(step, replica)
        for ending in step.finished:
            request = self.requests.get(ending.request)
            if request is None:
                self.say("lifecycle", f"request {ending.request} ends but is not there")
            elif request.slot is None or request.replica is not replica:
                self.say("lifecycle", f"request {ending.request} ends in a step but holds no slot")
            else:
                if ending.reason == LENGTH:
                    self.progress.end(ending.request)
                self.leave(ending.request, request, ended=True)

    def order(self, step: Step) -> None:
        """The row of step numbers; a gap says that steps are missing."""
        before = self.last_step
        expected = 0 if before is None else before.index + 1
        if step.index != expected:
            missing = step.index - expected
            what = f": {missing} missing, what follows is checked without its history" if missing > 0 else ""
            rule = "loss" if missing > 0 else "lifecycle"
            self.say(rule, f"step {step.index} follows where step {expected} is next{what}")
            self.report.missing_steps += max(missing, 0)
        if before is not None and before.replica != step.replica and step.start_ns < before.start_ns:
            self.say("times", f"step {step.index} starts before step {before.index}, which stands before it")
        self.last_step = step

    def times(self, step: Step, replica: Replica) -> None:
        for fault in replica.times.faults(step):
            self.say("times", fault)

    def padding(self, step: Step, replica: Replica) -> None:
        """A step that decodes has a row for each slot at most; a prefill or drafts may be padded by the token."""
        rows = len(step.requests) + step.padding
        if rows > len(replica.slots) and "P" not in step.phases and step.drafted is None:
            self.say("slots", f"step {step.index} has {rows} rows with its padding for {len(replica.slots)} slots")

    def columns(self, step: Step) -> None:
        members = len(step.requests)
        for name in ("slots", "phases", "positions", "computed", "sampled", "drafted", "invalid_drafts"):
            column = getattr(step, name)
            if column is not None and len(column) != members:
                self.say("format", f"{name}: {len(column)} entries for {members} requests")

    def preempt(self, number: int, replica: Replica) -> None:
        request = self.requests.get(number)
        if request is None or request.slot is None or request.replica is not replica:
            self.say("lifecycle", f"request {number} is preempted but does not run")
        else:
            self.leave(number, request, ended=False)

    def admit(self, admission: Admission, step: Step, replica: Replica) -> None:
        assert self.header is not None
        number, slot = admission.request, admission.slot
        request = self.requests.get(number)
        if request is None or request.replica is not replica:
            self.say("lifecycle", f"request {number} is admitted but does not wait")
        elif request.slot is not None:
            self.say("lifecycle", f"request {number} is admitted but runs already")
        elif slot not in replica.slots:
            self.say("slots", f"slot {slot} of {self.header.slots} (request {number})")
        elif slot in self.taken:
            self.say("slots", f"slot {slot} is given to request {number} but taken")
        else:
            schedule_ns = step.start_ns if step.latency_ns is None else step.end_ns - step.latency_ns
            if schedule_ns < request.submitted_ns:
                self.say("times", f"request {number} is admitted before it was submitted")
            self.batch = ([], [])
            self.taken.add(slot)
            self.slots_of[number] = request.slot = slot
            block = self.header.kv_block_tokens
            request.cached = admission.cached
            request.shared_blocks = admission.cached // block if block else 0
            if admission.cached_from and sum(admission.cached_from.values()) != admission.cached:
                self.say("tokens", f"cached_from of request {number} does not add up to the {admission.cached} cached")
            self.progress.admit(number, admission.cached)
            replica.waiting -= 1
            replica.running += 1

    def grant(self, grant: BlockGrant, replica: Replica) -> None:
        request = self.requests.get(grant.request)
        if request is None or request.slot is None or request.replica is not replica:
            self.say("blocks", f"request {grant.request} is given blocks but does not run")
            return
        assert self.header is not None
        self.tables.grant(grant, request, self.header.kv_blocks)
        self.progress.grow(grant.request, len(request.blocks))

    def queues(self, step: Step, replica: Replica) -> None:
        if step.waiting != replica.waiting:
            self.say("queues", f"waiting is {step.waiting}, the records before say {replica.waiting}")
        if step.running != replica.running:
            self.say("queues", f"running is {step.running}, the records before say {replica.running}")
        if step.kv_used is not None:
            if replica.blocks is not None and step.kv_used > len(replica.blocks):
                self.say("blocks", f"{step.kv_used} blocks used of {len(replica.blocks)}")
            held = replica.held + self.groups.loading(step.loading, replica, self.tables.holds)
            if replica.held and step.kv_used != held:
                self.say("blocks", f"kv_used is {step.kv_used}, the block tables hold {held}")

    def members(self, step: Step, replica: Replica) -> None:
        """Every member runs, in its slot, once; how far it has come is looked at later, many steps at a time."""
        slots_of, batch = self.slots_of, (step.requests, step.slots)
        if batch == self.batch:
            self.progress.add(self.number, step)
            return
        own = step.slots == list(map(slots_of.get, step.requests)) and len(set(step.slots)) == len(step.slots)
        if own and (len(self.replicas) == 1 or all(slot in replica.slots for slot in step.slots)):
            self.batch = batch
            self.progress.add(self.number, step)
            return
        if len(set(step.requests)) != len(step.requests):
            self.say("lifecycle", f"a request is twice in step {step.index}")
        there = []
        for i, (number, slot) in enumerate(zip(step.requests, step.slots, strict=True)):
            given = slots_of.get(number)
            if given is None or given not in replica.slots:
                self.say("lifecycle", f"request {number} is in the batch but does not run")
                continue
            if slot != given:
                self.say("slots", f"request {number} computes in slot {slot} but was given slot {given}")
            there.append(i)
        self.progress.add(self.number, step, there)

    def last(self, event: End) -> None:
        self.end = event
        last = [replica.times.last for replica in self.replicas.values()]
        if any(step is not None and event.at_ns < step.end_ns for step in last):
            self.say("times", "the end record is before the last step's end")
        for name in ("requests", "steps", "output_tokens"):
            stated, counted = getattr(event, name), getattr(self.report, name)
            if stated != counted:
                self.say("counts", f"the end record says {stated} {name.replace('_', ' ')}, the file holds {counted}")
        assert self.header is not None
        expected = self.header.workload.requests
        if expected is not None and expected != self.report.requests:
            self.say("counts", f"the header's workload has {expected} requests, the file holds {self.report.requests}")
        missing, dropped = self.report.missing_steps, event.dropped
        if dropped < missing:
            self.say("counts", f"the end record says {dropped} dropped, {missing} steps are missing")
        elif dropped > missing:
            self.say("loss", f"the last {dropped - missing} steps are missing")
            self.report.missing_steps = dropped
