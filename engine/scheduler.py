"""The scheduler: decides, step by step, which sequences compute how many tokens in which slot and which KV blocks.

`schedule()` returns a `StepPlan`, a plain value that says what the step will do; the runner executes exactly that and
the recorder writes exactly that. `update()` takes the new tokens and says who ended. No torch, no clock, no text: token
ids only.
"""

import heapq
from collections import deque
from collections.abc import Sequence as Many
from dataclasses import dataclass, field

from tracereel.engine.block_pool import BlockPool
from tracereel.engine.config import EngineConfig
from tracereel.engine.policies import Batch, policy_named
from tracereel.engine.request import Request, Sequence
from tracereel.trace.events import DECODE, PREFILL, Admission, BlockGrant, Ending


class NeverFitsError(ValueError):
    """A request can never be served under this configuration; the message names the limit."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What one step will do. The lists up to `samples` have one entry for each member, those that decode first.

    `token_ids` of a member are computed at `positions` and following, and a member that `samples` gets one new token.
    `padding` rows are computed for nothing. `blocks` are appended to the block tables, an admitted request's is empty
    before.
    """

    requests: list[int]
    slots: list[int]
    phases: str
    positions: list[int]
    token_ids: list[list[int]]
    samples: list[bool]
    padding: int
    admitted: list[Admission]
    preempted: list[int]
    blocks: list[BlockGrant]
    waiting: int
    running: int
    kv_used: int


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What a step gave: how many new tokens each member got, the tokens one after the other, and who ended."""

    sampled: list[int]
    tokens: list[int]
    finished: list[Ending]


@dataclass(slots=True)
class _Draft:
    """A plan in the making."""

    members: list[tuple[Sequence, int]] = field(default_factory=list)
    admitted: list[Admission] = field(default_factory=list)
    preempted: list[int] = field(default_factory=list)
    blocks: list[BlockGrant] = field(default_factory=list)


class Scheduler:
    """Batches sequences under `max_num_seqs`, a token budget and a block pool.

    The oldest comes first everywhere: in the queue, for blocks, and against preemption. When blocks run out the
    youngest running sequence gives up its slot and its blocks, goes back to the head of the queue, and is recomputed
    from the tokens it has.
    """

    def __init__(self, config: EngineConfig, end_ids: frozenset[int] = frozenset()):
        self.config = config
        self.policy = policy_named(config.policy)
        self.end_ids = end_ids
        self.pool = BlockPool(config.num_blocks)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.sequences: dict[int, Sequence] = {}
        self._free_slots = list(range(config.max_num_seqs))
        self._rows = 0
        """Rows of the batch since it was last empty: what a padded batch computes until it is empty again."""
        self._steps = 0
        self._just_admitted = False

    def require_fit(self, request: Request) -> None:
        """Raise NeverFitsError where the request could never be served."""
        config = self.config
        most = len(request.prompt_ids) + request.sampling.max_tokens
        if most > config.max_model_len:
            raise NeverFitsError(
                f"request {request.id!r}: prompt and max_tokens are {most} tokens, max_model_len is"
                f" {config.max_model_len}"
            )
        if self._blocks_for(most) > config.num_blocks:
            raise NeverFitsError(
                f"request {request.id!r}: prompt and max_tokens need {self._blocks_for(most)} KV blocks of"
                f" {config.block_tokens} tokens, num_blocks is {config.num_blocks}"
            )

    def add(self, number: int, request: Request) -> None:
        """Put a request at the end of the queue. Raises NeverFitsError where it could never be served."""
        self.require_fit(request)
        sequence = Sequence(number, request, list(request.prompt_ids))
        self.sequences[number] = sequence
        self.waiting.append(sequence)

    def cancel(self, number: int) -> bool:
        """Take a request out between steps, wherever it is; False where it has already ended."""
        sequence = self.sequences.pop(number, None)
        if sequence is None:
            return False
        if sequence.slot is None:
            self.waiting.remove(sequence)
        else:
            self._leave(sequence)
        return True

    @property
    def has_work(self) -> bool:
        """Is anybody waiting or running?"""
        return bool(self.sequences)

    def schedule(self) -> StepPlan | None:
        """Decide the next step; None where there is nothing to do."""
        if not self.running:
            self._rows = 0
        batch = Batch(self.running, self._just_admitted)
        admits = self.policy.admits(batch)
        draft = _Draft()
        self._advance(draft, self.policy.advances(batch))
        while self.running and not draft.members:  # the chosen ones had to give way: choose among those that are left
            self._advance(draft, self.policy.advances(Batch(self.running, False)))
        if admits and not draft.preempted:
            self._admit(draft)
        self._just_admitted = bool(draft.admitted)
        return self._plan(draft) if draft.members else None

    def _advance(self, draft: _Draft, chosen: Many[Sequence]) -> None:
        """Give the chosen running sequences their tokens, the oldest first."""
        members = list(chosen)
        budget = self.config.max_num_batched_tokens - sum(sequence.decodes for sequence in members)
        for sequence in members:
            if sequence.slot is None:
                continue  # preempted a moment ago, for an older one
            count = 1
            if not sequence.decodes:
                count = min(sequence.num_uncomputed_tokens, budget)
                if not count:
                    continue
                budget -= count
            if self._reserve(draft, sequence, sequence.num_computed_tokens + count):
                draft.members.append((sequence, count))

    def _reserve(self, draft: _Draft, sequence: Sequence, tokens: int) -> bool:
        """Let the sequence's blocks hold `tokens` tokens, preempting younger ones for it; False where it had to go."""
        need = self._blocks_for(tokens) - len(sequence.block_table)
        while need > self.pool.num_free:
            victim = self.running[-1]
            self._preempt(draft, victim)
            if victim is sequence:
                return False
        self._grant(draft, sequence, need)
        return True

    def _admit(self, draft: _Draft) -> None:
        """Let waiting requests take free slots while budget and blocks last."""
        budget = self.config.max_num_batched_tokens - sum(count for _, count in draft.members)
        while self.waiting and self._free_slots and budget > 0:
            if self.policy.pads and self._rows == self.config.max_num_seqs:
                break  # a row of this batch that has ended is not to be had again
            sequence = self.waiting[0]
            # Room for all it has, not just this step's part: else it would be preempted before it gave a token.
            if self._blocks_for(len(sequence.token_ids)) > self.pool.num_free:
                break
            self.waiting.popleft()
            sequence.slot = heapq.heappop(self._free_slots)
            self._insert(sequence)
            count = min(sequence.num_uncomputed_tokens, budget)
            budget -= count
            self._grant(draft, sequence, self._blocks_for(count))
            draft.admitted.append(Admission(request=sequence.number, slot=sequence.slot))
            draft.members.append((sequence, count))

    def _insert(self, sequence: Sequence) -> None:
        """Add to the running ones, kept oldest first."""
        self._rows += 1
        at = len(self.running)
        while at and self.running[at - 1].number > sequence.number:
            at -= 1
        self.running.insert(at, sequence)

    def _grant(self, draft: _Draft, sequence: Sequence, count: int) -> None:
        if count > 0:
            blocks = self.pool.take(count)
            sequence.block_table.extend(blocks)
            draft.blocks.append(BlockGrant(request=sequence.number, blocks=blocks))

    def _preempt(self, draft: _Draft, sequence: Sequence) -> None:
        self._leave(sequence)
        sequence.num_computed_tokens = 0
        draft.preempted.append(sequence.number)
        self.waiting.appendleft(sequence)

    def _leave(self, sequence: Sequence) -> None:
        """Free the slot and the blocks of a running sequence."""
        assert sequence.slot is not None
        self.running.remove(sequence)
        heapq.heappush(self._free_slots, sequence.slot)
        sequence.slot = None
        self.pool.give_back(sequence.block_table)
        sequence.block_table = []

    def _plan(self, draft: _Draft) -> StepPlan:
        members = sorted(draft.members, key=lambda member: not member[0].decodes)
        decodes = sum(sequence.decodes for sequence, _ in members)
        step = self._steps
        self._steps += 1
        for sequence, _ in members:
            sequence.last_step = step
        padding = self._rows - len(members) if self.policy.pads and decodes == len(members) else 0
        spans = [(sequence, sequence.num_computed_tokens, count) for sequence, count in members]
        return StepPlan(
            requests=[sequence.number for sequence, _ in members],
            slots=[sequence.slot for sequence, _ in members if sequence.slot is not None],
            phases=DECODE * decodes + PREFILL * (len(members) - decodes),
            positions=[start for _, start, _ in spans],
            token_ids=[sequence.token_ids[start : start + count] for sequence, start, count in spans],
            samples=[start + count == len(sequence.token_ids) for sequence, start, count in spans],
            padding=padding,
            admitted=draft.admitted,
            preempted=draft.preempted,
            blocks=draft.blocks,
            waiting=len(self.waiting),
            running=len(self.running),
            kv_used=self.pool.num_used,
        )

    def update(self, plan: StepPlan, tokens: list[int]) -> StepOutcome:
        """Take the step's new tokens, one for each member that samples, in the plan's order; say who ended."""
        finished: list[Ending] = []
        sampled: list[int] = []
        new_tokens = iter(tokens)
        for number, ids, samples in zip(plan.requests, plan.token_ids, plan.samples, strict=True):
            sequence = self.sequences[number]
            sequence.num_computed_tokens += len(ids)
            sampled.append(int(samples))
            if samples:
                token = next(new_tokens)
                sequence.token_ids.append(token)
                if reason := self._ended(sequence, token):
                    finished.append(Ending(request=number, reason=reason))
                    del self.sequences[number]
                    self._leave(sequence)
        return StepOutcome(sampled, tokens, finished)

    def _ended(self, sequence: Sequence, token: int) -> str | None:
        sampling = sequence.request.sampling
        count = sequence.num_output_tokens
        if token in self.end_ids and count >= sampling.min_tokens:
            return "stop"
        return "length" if count >= sampling.max_tokens else None

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.config.block_tokens)
