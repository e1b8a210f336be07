"""The scheduler under every policy, with a fake model and arbitrary orders of submit, step and cancel."""

import fakes
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tracereel.engine.config import ConfigError, EngineConfig
from tracereel.engine.policies import POLICIES
from tracereel.engine.request import Request, SamplingParams
from tracereel.engine.scheduler import NeverFitsError, Scheduler, StepPlan


class SchedulerMachine(RuleBasedStateMachine):
    """Nothing leaks, nothing is lost, limits are kept, whatever comes."""

    @initialize(
        policy=st.sampled_from(sorted(POLICIES)),
        slots=st.integers(1, 6),
        extra_budget=st.integers(0, 20),
        blocks=st.integers(6, 30),
        block_tokens=st.integers(1, 8),
    )
    def start(self, policy, slots, extra_budget, blocks, block_tokens):
        self.config = EngineConfig(
            policy=policy,
            max_num_seqs=slots,
            max_num_batched_tokens=slots + extra_budget,
            num_blocks=blocks,
            block_tokens=block_tokens,
            max_model_len=blocks * block_tokens,
        )
        self.scheduler = Scheduler(self.config, frozenset({fakes.END_ID}))
        self.runner = fakes.FakeRunner()
        self.requests: dict[int, Request] = {}
        self.outputs: dict[int, list[int]] = {}
        self.ended: set[int] = set()
        self.cancelled: set[int] = set()

    @rule(prompt=st.integers(1, 20), output=st.integers(1, 15), content=st.integers(1, 49))
    def submit(self, prompt, output, content):
        number = len(self.requests)
        request = Request(str(number), (content,) * prompt, SamplingParams(max_tokens=output))
        capacity = self.config.num_blocks * self.config.block_tokens
        if prompt + output > min(capacity, self.config.max_model_len):
            with pytest.raises(NeverFitsError):
                self.scheduler.add(number, request)
            return
        self.scheduler.add(number, request)
        self.requests[number] = request
        self.outputs[number] = []

    @precondition(lambda self: self.requests)
    @rule(pick=st.integers(0, 10**6))
    def cancel(self, pick):
        number = pick % len(self.requests)
        gone = number in self.ended or number in self.cancelled
        assert self.scheduler.cancel(number) is not gone
        if not gone:
            self.cancelled.add(number)

    @rule(count=st.integers(1, 12))
    def steps(self, count):
        for _ in range(count):
            self.step()

    def step(self):
        waiting = [sequence.number for sequence in self.scheduler.waiting]
        plan = self.scheduler.schedule()
        if plan is None:
            assert not self.scheduler.has_work, "work is left but nothing is scheduled"
            return
        self.check_plan(plan, waiting)
        tokens = self.runner.execute(plan)
        outcome = self.scheduler.update(plan, tokens)
        new_tokens = iter(outcome.tokens)
        for number, count in zip(plan.requests, outcome.sampled, strict=True):
            self.outputs[number].extend(next(new_tokens) for _ in range(count))
        for ending in outcome.finished:
            assert ending.request not in self.ended
            self.ended.add(ending.request)
            assert self.outputs[ending.request] == fakes.answer(self.requests[ending.request])

    def check_plan(self, plan: StepPlan, waiting: list[int]):
        config = self.config
        computed = sum(len(ids) for ids in plan.token_ids)
        assert 0 < len(plan.requests) == len(set(plan.requests)) <= config.max_num_seqs
        assert computed <= config.max_num_batched_tokens
        assert len(set(plan.slots)) == len(plan.slots)
        assert all(0 <= slot < config.max_num_seqs for slot in plan.slots)
        assert plan.running <= config.max_num_seqs
        assert 0 <= plan.padding <= config.max_num_seqs - len(plan.requests)
        # First come, first served: those admitted stood at the head of the queue.
        admitted = [admission.request for admission in plan.admitted]
        assert admitted == waiting[: len(admitted)]
        if config.policy == "same-position":
            decoding = {position for position, phase in zip(plan.positions, plan.phases, strict=True) if phase == "D"}
            assert len(decoding) <= 1

    @invariant()
    def nothing_leaks(self):
        if not hasattr(self, "scheduler"):
            return
        scheduler = self.scheduler
        pool = scheduler.pool
        assert pool.num_free + pool.num_used == self.config.num_blocks
        tables = [block for sequence in scheduler.running for block in sequence.block_table]
        assert len(tables) == len(set(tables)) == pool.num_used
        assert all(not sequence.block_table for sequence in scheduler.waiting)
        slots = [sequence.slot for sequence in scheduler.running]
        assert len(set(slots)) == len(slots)
        there = {sequence.number for sequence in [*scheduler.waiting, *scheduler.running]}
        assert there == set(self.requests) - self.ended - self.cancelled
        ages = [sequence.number for sequence in scheduler.waiting]
        assert ages == sorted(ages)

    def teardown(self):
        if not hasattr(self, "scheduler"):
            return
        # Whatever was left over comes to its end, with the tokens it must have.
        for _ in range(5_000):
            if not self.scheduler.has_work:
                break
            self.step()
        assert not self.scheduler.has_work
        assert self.ended | self.cancelled == set(self.requests)
        assert self.scheduler.pool.num_used == 0


SchedulerMachine.TestCase.settings = settings(
    max_examples=300, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestSchedulerMachine = SchedulerMachine.TestCase


def run_all(policy: str, requests: list[Request], **limits: int) -> list[StepPlan]:
    """Run requests to their end; returns the plans."""
    scheduler = Scheduler(EngineConfig(policy=policy, **limits), frozenset({fakes.END_ID}))
    runner = fakes.FakeRunner()
    for number, request in enumerate(requests):
        scheduler.add(number, request)
    plans = []
    while (plan := scheduler.schedule()) is not None:
        plans.append(plan)
        scheduler.update(plan, runner.execute(plan))
    return plans


def fixed(lengths: list[int], prompt: int = 3) -> list[Request]:
    """Requests with exactly these numbers of output tokens."""
    return [
        Request(str(i), (7,) * prompt, SamplingParams(max_tokens=length, min_tokens=length))
        for i, length in enumerate(lengths)
    ]


def test_continuous_retakes_a_freed_slot_at_the_next_step():
    plans = run_all("continuous", fixed([2, 6, 3]), max_num_seqs=2)
    assert [plan.requests for plan in plans] == [[0, 1], [0, 1], [1, 2], [1, 2], [1, 2], [1]]
    assert plans[2].admitted[0].slot == plans[0].slots[0]
    assert plans[2].phases == "DP"


def test_static_keeps_the_batch_closed_and_counts_padding():
    plans = run_all("static", fixed([2, 5, 3]), max_num_seqs=2)
    assert [plan.requests for plan in plans] == [[0, 1], [0, 1], [1], [1], [1], [2], [2], [2]]
    assert [plan.padding for plan in plans] == [0, 0, 1, 1, 1, 0, 0, 0]


def test_static_fills_its_batch_over_several_steps_where_the_budget_is_small():
    plans = run_all("static", fixed([3, 3, 3], prompt=8), max_num_seqs=3, max_num_batched_tokens=10)
    first_decode = next(i for i, plan in enumerate(plans) if "D" in plan.phases)
    assert first_decode == 3
    assert plans[first_decode].phases == "DDD"
    assert len(plans) == 3 + 2


def test_same_position_takes_turns():
    requests = [
        Request("a", (7,) * 3, SamplingParams(max_tokens=4, min_tokens=4)),
        Request("b", (7,) * 3, SamplingParams(max_tokens=4, min_tokens=4)),
        Request("c", (7,) * 5, SamplingParams(max_tokens=4, min_tokens=4)),
    ]
    plans = run_all("same-position", requests, max_num_seqs=3)
    assert [plan.requests for plan in plans] == [[0, 1, 2], [0, 1], [2], [0, 1], [2], [0, 1], [2]]


def test_a_long_prompt_is_cut_into_chunks_beside_decodes():
    long = Request("long", (7,) * 30, SamplingParams(max_tokens=2, min_tokens=2))
    plans = run_all("continuous", [*fixed([8]), long], max_num_seqs=2, max_num_batched_tokens=10)
    assert all(sum(len(ids) for ids in plan.token_ids) <= 10 for plan in plans)
    mixed = [plan for plan in plans if "D" in plan.phases and "P" in plan.phases]
    assert len(mixed) >= 3
    assert plans[0].samples == [True, False]


def test_the_youngest_is_preempted_and_recomputed():
    plans = run_all(
        "continuous", fixed([20, 20], prompt=4), max_num_seqs=2, num_blocks=8, block_tokens=4, max_model_len=32
    )
    preempted = [number for plan in plans for number in plan.preempted]
    assert preempted
    assert set(preempted) == {1}
    again = next(plan for plan in plans if plan.admitted and plan is not plans[0])
    recomputed = again.token_ids[again.requests.index(1)]
    assert len(recomputed) > 4, "the tokens it had written are computed again with its prompt"


def test_requests_that_can_never_fit_are_refused_by_the_limits_name():
    scheduler = Scheduler(EngineConfig(num_blocks=4, block_tokens=4, max_model_len=100))
    with pytest.raises(NeverFitsError, match="num_blocks"):
        scheduler.add(0, Request("r", (1,) * 10, SamplingParams(max_tokens=10)))
    with pytest.raises(NeverFitsError, match="max_model_len"):
        scheduler.add(0, Request("r", (1,) * 90, SamplingParams(max_tokens=20)))
    assert not scheduler.has_work


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"policy": "magic"}, "policy: 'magic'"),
        ({"max_num_seqs": 0}, "max_num_seqs: 0"),
        ({"max_num_seqs": 64, "max_num_batched_tokens": 32}, "max_num_batched_tokens: 32"),
    ],
)
def test_a_wrong_setting_is_named(setting, message):
    with pytest.raises(ConfigError, match=message):
        Scheduler(EngineConfig(**setting))
