"""The scheduler: decides, step by step, which sequences compute how many tokens in which slot and which KV blocks.

`schedule()` returns a `StepPlan`, a plain value that says what the step will do; the runner executes exactly that and
the recorder writes exactly that. `update()` takes the new tokens and says which requests ended. No torch, no clock, no
text: token ids only; time comes in as a value, so that the same calls give the same steps.
"""

import heapq
from bisect import bisect_left, insort
from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from itertools import compress

from tracereel.engine.config import EngineConfig
from tracereel.engine.kv_cache import KVCacheManager, Prefix
from tracereel.engine.policies import Batch, policy_named
from tracereel.engine.request import Request, SampleSpec, SamplingParams, Sequence
from tracereel.trace.format.events import DECODE, PREFILL, Admission, BlockGrant, Ending

UNKNOWN = -1
"""Stands for a token that the device has, or will have when it is needed, and the host has not yet."""


class NeverFitsError(ValueError):
    """A request can never be served under this configuration; the message names the limit."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What one step will do. The lists up to `samples` have one entry for each member, those that decode first.

    `token_ids` of a member are computed at `positions` and following, and a member that `samples` gets one new token.
    `sample_specs` has an entry for each member that samples: None for the likeliest token. `padding` rows are computed
    for nothing. `blocks` are appended to the block tables, an admitted request's is empty before.
    """

    requests: list[int]
    slots: list[int]
    phases: str
    positions: list[int]
    token_ids: list[list[int]]
    samples: list[bool]
    sample_specs: list[SampleSpec | None]
    padding: int
    admitted: list[Admission]
    preempted: list[int]
    blocks: list[BlockGrant]
    waiting: int
    running: int
    kv_used: int


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What a step gave: how many new tokens each member got, all the tokens in order, and which requests ended."""

    sampled: list[int]
    tokens: list[int]
    finished: list[Ending]


@dataclass(slots=True)
class _Draft:
    """A plan that is being made: which sequences decode, which compute how many known tokens, and what changed."""

    decodes: list[Sequence] = field(default_factory=list)
    prefills: list[tuple[Sequence, int]] = field(default_factory=list)
    admitted: list[Admission] = field(default_factory=list)
    preempted: list[int] = field(default_factory=list)
    blocks: list[BlockGrant] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Does no sequence compute a token?"""
        return not (self.decodes or self.prefills)

    def preempt(self, sequence: Sequence) -> None:
        """Note a preemption, and remove from this step what it was to do for the sequence."""
        self.decodes = [other for other in self.decodes if other is not sequence]
        self.prefills = [(other, count) for other, count in self.prefills if other is not sequence]
        self.blocks = [grant for grant in self.blocks if grant.request != sequence.number]
        self.preempted.append(sequence.number)


class Scheduler:
    """Batches sequences under `max_num_seqs`, a token budget and a block pool.

    `waiting` and `running` are ordered by rank: the lowest `priority` number first, the oldest among equals. Running
    sequences are computed in that order. The policy says in which order waiting ones are admitted and, when blocks run
    out, which running one gives up its slot and its blocks; by default that is the order of ranks too. A preempted
    sequence goes back to its place in the queue and is recomputed from the tokens it has.
    """

    def __init__(self, config: EngineConfig, end_ids: frozenset[int] = frozenset()):
        self.config = config
        self.policy = policy_named(config.policy)
        self.end_ids = end_ids
        self.kv = KVCacheManager(config)
        self.pool = self.kv.pool
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.sequences: dict[int, Sequence] = {}
        self._free_slots = list(range(config.max_num_seqs))
        self._rows = 0
        """Rows of the batch since it was last empty: what a padded batch computes until it is empty again."""
        self._ending: dict[int, Sequence] = {}
        """Sequences that ended by their length in a step whose tokens the host does not have yet."""
        self._steps = 0
        self._just_admitted = False
        self._opened_ns = 0

    def require_fit(self, request: Request) -> None:
        """Raise NeverFitsError where the request could never be served."""
        config = self.config
        most = len(request.prompt_ids) + request.sampling.max_tokens
        if most > config.max_model_len:
            raise NeverFitsError(
                f"request {request.id!r}: prompt and max_tokens are {most} tokens, max_model_len is"
                f" {config.max_model_len}"
            )
        if (blocks := self.kv.blocks_for(most)) > config.num_blocks:
            raise NeverFitsError(
                f"request {request.id!r}: prompt and max_tokens need {blocks} KV blocks of"
                f" {config.block_size} tokens, num_blocks is {config.num_blocks}"
            )
        # After a preemption all tokens but the last one it may have are a prompt to it.
        if not self.policy.chunks and most - 1 > config.max_num_batched_tokens:
            raise NeverFitsError(
                f"request {request.id!r}: prompt and max_tokens may need {most - 1} tokens in one step under"
                f" {config.policy}, max_num_batched_tokens is {config.max_num_batched_tokens}"
            )

    def add(self, number: int, request: Request, arrival_ns: int = 0) -> None:
        """Put a request in the queue; it was due at `arrival_ns`. Raises NeverFitsError where it never fits."""
        self.require_fit(request)
        sequence = Sequence(number, request, list(request.prompt_ids), arrival_ns)
        self.sequences[number] = sequence
        self.policy.arrived(sequence, self.waiting)
        insort(self.waiting, sequence, key=_rank)

    def cancel(self, number: int) -> bool:
        """Remove a request between steps, whatever its state; False where it has already ended."""
        sequence = self.sequences.pop(number, None)
        if sequence is None:
            return False
        if sequence.slot is None:
            del self.waiting[bisect_left(self.waiting, sequence.rank, key=_rank)]
        else:
            self._leave(sequence)
        return True

    @property
    def has_work(self) -> bool:
        """Is a request waiting or running?"""
        return bool(self.sequences)

    def ready_ns(self, now_ns: int) -> int | None:
        """The engine time from which `schedule` has something to do if no request comes or goes; None: no work."""
        if self.running:
            return now_ns
        return self.policy.opens_ns(self._batch(now_ns)) if self.waiting else None

    def schedule(self, now_ns: int) -> StepPlan | None:
        """Decide the step that begins at engine time `now_ns`; None where there is nothing to do."""
        if not self.sequences:
            return None
        if not self.running:
            self._rows = 0
        batch = self._batch(now_ns)
        room = self.policy.admits(batch)
        draft = _Draft()
        self._advance(draft, self.policy.advances(batch))
        while self.running and draft.empty:  # the chosen ones were preempted: choose among the others
            self._advance(draft, self.policy.advances(self._batch(now_ns)))
        if room and not draft.preempted:
            self._admit(draft, batch, room)
        self._just_admitted = bool(draft.admitted)
        return None if draft.empty else self._plan(draft)

    def _batch(self, now_ns: int) -> Batch:
        return Batch(self.config, self.running, self.waiting, self._just_admitted, self._opened_ns, now_ns)

    def _advance(self, draft: _Draft, chosen: Many[Sequence]) -> None:
        """Give the chosen running sequences their tokens, in their order."""
        size = self.config.block_size
        prefills = [sequence for sequence in chosen if sequence.prefills]
        budget = self.config.max_num_batched_tokens - (len(chosen) - len(prefills))
        for sequence in list(chosen):
            if sequence.slot is None:
                continue  # preempted in this loop, for one of higher rank
            if sequence.prefills:
                count = min(sequence.num_uncomputed_tokens, budget)
                if count and self._reserve(draft, sequence, sequence.num_computed_tokens + count):
                    budget -= count
                    draft.prefills.append((sequence, count))
            elif sequence.num_computed_tokens < len(sequence.block_table) * size or self._reserve(
                draft, sequence, sequence.num_computed_tokens + 1
            ):
                draft.decodes.append(sequence)

    def _reserve(self, draft: _Draft, sequence: Sequence, tokens: int) -> bool:
        """Let the sequence's blocks hold `tokens` tokens, preempting later ones for it; False where it was preempted
        itself."""
        while (blocks := self.kv.grow(sequence, tokens)) is None:
            victim = self.policy.gives_way(self.running)
            self._preempt(draft, victim)
            if victim is sequence:
                return False
        if blocks:
            draft.blocks.append(BlockGrant(request=sequence.number, blocks=blocks))
        return True

    def _admit(self, draft: _Draft, batch: Batch, room: int) -> None:
        """Let up to `room` waiting requests take free slots while budget and blocks last."""
        budget = self.config.max_num_batched_tokens - len(draft.decodes) - sum(count for _, count in draft.prefills)
        queue = iter(self.policy.queue_order(batch))
        while self._free_slots and budget > 0 and room > len(draft.admitted):
            if self.policy.pads and self._rows == self.config.max_num_seqs:
                break  # a row whose sequence has ended is not used again in this batch
            sequence = next(queue, None)
            if sequence is None:
                break
            prefix = self.kv.find_prefix(sequence)
            count = len(sequence.token_ids) - prefix.tokens
            if (count > budget and not self.policy.chunks) or not self.kv.fits(sequence, prefix):
                break
            count = min(count, budget)
            budget -= count
            self._enter(draft, sequence, prefix, count, batch.now_ns)

    def _enter(self, draft: _Draft, sequence: Sequence, prefix: Prefix, count: int, now_ns: int) -> None:
        """Give a waiting sequence a slot, what the cache holds of it, and blocks for its first `count` tokens."""
        del self.waiting[bisect_left(self.waiting, sequence.rank, key=_rank)]
        if not self.running:
            self._opened_ns = now_ns
        self._rows += 1
        sequence.slot = slot = heapq.heappop(self._free_slots)
        insort(self.running, sequence, key=_rank)
        self.policy.admitted(sequence)
        self.kv.enter(sequence, prefix)
        new_blocks = self.kv.grow(sequence, prefix.tokens + count)
        assert new_blocks is not None
        draft.blocks.append(BlockGrant(request=sequence.number, blocks=prefix.blocks + new_blocks))
        draft.admitted.append(Admission(request=sequence.number, slot=slot, cached=prefix.tokens))
        draft.prefills.append((sequence, count))

    def _preempt(self, draft: _Draft, sequence: Sequence) -> None:
        self._leave(sequence)
        sequence.num_computed_tokens = 0
        sequence.prefills = True
        draft.preempt(sequence)
        insort(self.waiting, sequence, key=_rank)

    def _leave(self, sequence: Sequence) -> None:
        """Free the slot and the blocks of a running sequence."""
        assert sequence.slot is not None
        del self.running[bisect_left(self.running, sequence.rank, key=_rank)]
        heapq.heappush(self._free_slots, sequence.slot)
        sequence.slot = None
        self.kv.leave(sequence)

    def _plan(self, draft: _Draft) -> StepPlan:
        decodes, prefills = draft.decodes, draft.prefills
        members = decodes + [sequence for sequence, _ in prefills] if prefills else decodes
        for sequence in members:
            sequence.last_step = self._steps
        self._steps += 1
        token_ids = [sequence.token_ids[-1:] for sequence in decodes]
        samples = [True] * len(decodes)
        for sequence, count in prefills:
            end = sequence.num_computed_tokens + count
            token_ids.append(sequence.token_ids[sequence.num_computed_tokens : end])
            samples.append(end == len(sequence.token_ids))
        return StepPlan(
            requests=[sequence.number for sequence in members],
            slots=[sequence.slot for sequence in members],  # type: ignore[misc]  # a sequence that is computed holds one
            phases=DECODE * len(decodes) + PREFILL * len(prefills),
            positions=[sequence.num_computed_tokens for sequence in members],
            token_ids=token_ids,
            samples=samples,
            sample_specs=[None if seq.is_greedy else seq.sample_spec() for seq in compress(members, samples)],
            padding=self._rows - len(members) if self.policy.pads and not prefills else 0,
            admitted=draft.admitted,
            preempted=draft.preempted,
            blocks=draft.blocks,
            waiting=len(self.waiting),
            running=len(self.running),
            kv_used=self.pool.num_used,
        )

    def update(self, plan: StepPlan, tokens: list[int]) -> StepOutcome:
        """Take the step's new tokens, one for each member that samples, in the plan's order; say which ended."""
        self.advance(plan)
        return self.commit_tokens(plan, tokens)

    def advance(self, plan: StepPlan) -> None:
        """The half of `update` that needs no tokens: how far each has come, and which ended by their length.

        After it the next step may be scheduled where `can_schedule_ahead` allows it; `UNKNOWN` replaces a missing
        token.
        """
        sequences, kv, size = self.sequences, self.kv, self.config.block_size
        served = self.policy.served if self.policy.counts_service else None
        for number, ids, samples in zip(plan.requests, plan.token_ids, plan.samples, strict=True):
            sequence = sequences[number]
            sequence.num_computed_tokens += len(ids)
            if sequence.num_computed_tokens >= (sequence.num_full_blocks + 1) * size:
                kv.remember(sequence)
            if samples:
                sequence.token_ids.append(UNKNOWN)
                sequence.prefills = False
                if served is not None:
                    served(sequence)
                if sequence.num_output_tokens >= sequence.request.sampling.max_tokens:
                    self._ending[number] = sequences.pop(number)
                    self._leave(sequence)

    def commit_tokens(self, plan: StepPlan, tokens: list[int]) -> StepOutcome:
        """The other half of `update`, for the plan that advanced last but for one scheduled since: the tokens."""
        finished: list[Ending] = []
        sequences, ending = self.sequences, self._ending
        for number, token in zip(compress(plan.requests, plan.samples), tokens, strict=True):
            sequence = ending.pop(number) if number in ending else sequences[number]
            sequence.token_ids[-1] = token
            if reason := self._ended(sequence, token):
                if number in sequences:
                    finished.append(self.finish(number, reason))
                else:
                    finished.append(Ending(request=number, reason=reason))
        return StepOutcome(list(map(int, plan.samples)), tokens, finished)

    def can_schedule_ahead(self, plan: StepPlan) -> bool:
        """May the step after this plan's be scheduled before the host has the tokens that this one gives?

        Not where a token may end a request before its length does, or decides how the next one is chosen.
        """
        for number, samples in zip(plan.requests, plan.samples, strict=True):
            sequence = self.sequences[number]
            sampling = sequence.request.sampling
            if sampling.repetition_penalty != 1:
                return False
            count = sequence.num_output_tokens + 1
            if samples and sampling.min_tokens <= count < sampling.max_tokens and self._may_end(sampling):
                return False
        return True

    def _may_end(self, sampling: SamplingParams) -> bool:
        return bool(sampling.stop or sampling.stop_token_ids or (self.end_ids and not sampling.ignore_eos))

    def finish(self, number: int, reason: str) -> Ending:
        """End a running request with the step that was just updated, for a reason that its tokens do not show."""
        self._leave(self.sequences.pop(number))
        return Ending(request=number, reason=reason)

    def _ended(self, sequence: Sequence, token: int) -> str | None:
        sampling = sequence.request.sampling
        count = len(sequence.token_ids) - len(sequence.request.prompt_ids)
        ends = token in sampling.stop_token_ids or (token in self.end_ids and not sampling.ignore_eos)
        if ends and count >= sampling.min_tokens:
            return "stop"
        return "length" if count >= sampling.max_tokens else None


def _rank(sequence: Sequence) -> tuple[int, int]:
    return sequence.rank
