"""The scheduler under every policy, with a fake model and arbitrary orders of submit, step and cancel."""

import sys
import tempfile
from pathlib import Path

import fakes
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tracereel.engine.block_pool import START, BlockPool
from tracereel.engine.config import ConfigError, EngineConfig
from tracereel.engine.engine import Engine
from tracereel.engine.policies import POLICIES, Policy
from tracereel.engine.request import Request, RequestError, Samples, SamplingParams
from tracereel.engine.scheduler import NeverFitsError, Scheduler, StepPlan
from tracereel.trace.check.invariants import check
from tracereel.trace.format.recorder import Recorder

MAX_WAIT_MS = 3
STEMS = [(token,) * 24 for token in (7, 8)] + [(7,) * 9 + (8,) * 15]
"""Prompts begin with one of these, so that many begin alike."""


class CheckingRunner(fakes.FakeRunner):
    """Looks at every plan before it runs it."""

    def __init__(self, config: EngineConfig, look) -> None:
        super().__init__(config)
        self.look = look

    def execute(self, plan: StepPlan) -> Samples:
        self.look(plan)
        return super().execute(plan)


class ClockedEngine(Engine):
    """An engine whose time is what it is told."""

    time_ns = 0

    def now_ns(self) -> int:
        return self.time_ns


ORDERS = {
    "shortest-prompt-first": lambda number, request: (request.priority, len(request.prompt_ids), number),
    "fair": None,  # depends on what each client was served
}
"""In which order a policy with a `queue_order` of its own admits, by a request's number and the request."""
BY_AGE = {name for name, policy in POLICIES.items() if policy.queue_order is Policy.queue_order}


def order_of(policy):
    """The order in which a policy admits and, from its end, preempts; None where the machine does not know it."""
    return (lambda number, request: (request.priority, number)) if policy in BY_AGE else ORDERS.get(policy)


def test_every_policy_with_an_order_of_its_own_says_here_what_it_is():
    assert {*POLICIES} - BY_AGE == {*ORDERS}, "a line in ORDERS, from which the machine below asks it"


class SchedulerMachine(RuleBasedStateMachine):
    """Nothing leaks, nothing is lost, nobody shares what is not alike, limits are kept: whatever comes."""

    steps_made = 0
    """By all runs of the machine together."""

    @initialize(
        policy=st.sampled_from(sorted(POLICIES)),
        caching=st.booleans(),
        slots=st.integers(1, 6),
        extra_budget=st.integers(0, 20),
        blocks=st.integers(6, 30),
        block_size=st.integers(1, 8),
    )
    def start(self, policy, caching, slots, extra_budget, blocks, block_size):
        self.config = EngineConfig(
            policy=policy,
            max_num_seqs=slots,
            max_num_batched_tokens=slots + extra_budget,
            num_blocks=blocks,
            block_size=block_size,
            max_model_len=blocks * block_size,
            enable_prefix_caching=caching,
            max_wait_ms=MAX_WAIT_MS,
        )
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "run.jsonl"
        self.recorder = Recorder(self.path, fakes.header(self.config))
        self.engine = ClockedEngine(
            CheckingRunner(self.config, self.check_plan),
            self.config,
            new_stream=fakes.FakeText,
            end_ids=frozenset({fakes.END_ID}),
            recorder=self.recorder,
        )
        self.scheduler = self.engine.scheduler
        self.requests: dict[int, Request] = {}
        self.outputs: dict[int, list[int]] = {}
        self.ended: set[int] = set()
        self.cancelled: set[int] = set()
        self.queue: list[int] = []

    @rule(
        burst=st.lists(
            st.tuples(
                st.sampled_from(STEMS),
                st.integers(1, 20),
                st.integers(1, 15),
                st.sampled_from([0, 0, 0, -1, 5]),
                st.sampled_from([None, "a", "b"]),
            ),
            min_size=1,
            max_size=10,
        )
    )
    def submit(self, burst):
        for asked in burst:
            self.submit_one(*asked)

    def submit_one(self, stem, prompt, output, priority, client):
        number = len(self.requests)
        sampling = SamplingParams(max_tokens=output)
        request = Request(str(number), stem[:prompt], sampling, priority=priority, client=client)
        whole = prompt + output
        unchunked = self.config.policy == "continuous-unchunked"
        if whole > self.config.max_model_len or (unchunked and whole - 1 > self.config.max_num_batched_tokens):
            with pytest.raises(NeverFitsError):
                self.engine.add(request)
            return
        assert self.engine.add(request) == number
        self.requests[number] = request
        self.outputs[number] = []

    @precondition(lambda self: self.requests)
    @rule(pick=st.integers(0, 10**6))
    def cancel(self, pick):
        number = pick % len(self.requests)
        gone = number in self.ended or number in self.cancelled
        assert self.engine.cancel(number) is not gone
        if not gone:
            self.cancelled.add(number)

    @rule(ms=st.integers(1, 2 * MAX_WAIT_MS))
    def wait(self, ms):
        self.engine.time_ns += ms * 1_000_000

    @rule(count=st.integers(1, 40))
    def steps(self, count):
        for _ in range(count):
            self.step()

    def step(self):
        self.queue = [sequence.number for sequence in self.scheduler.waiting]
        ready_in = self.engine.ready_in_ns()
        assert (ready_in is None) is not self.engine.has_work
        before = self.engine.metrics().steps
        for output in self.engine.step():
            self.outputs[output.request].append(output.token_id)
            if output.finish_reason is not None:
                assert output.request not in self.ended | self.cancelled
                self.ended.add(output.request)
                assert self.outputs[output.request] == fakes.answer(self.requests[output.request])
        self.engine.time_ns += 1000
        # A step is made whenever the engine says it has one to make.
        made = self.engine.metrics().steps - before
        assert made == (ready_in == 0)
        SchedulerMachine.steps_made += made

    def check_plan(self, plan: StepPlan):
        config = self.config
        computed = sum(len(ids) for ids in plan.token_ids)
        assert 0 < len(plan.requests) == len(set(plan.requests)) <= config.max_num_seqs
        assert computed <= config.max_num_batched_tokens
        assert len(set(plan.slots)) == len(plan.slots)
        assert all(0 <= slot < config.max_num_seqs for slot in plan.slots)
        assert plan.running <= config.max_num_seqs
        assert 0 <= plan.padding <= config.max_num_seqs - len(plan.requests)
        # Those admitted stood at the head of the queue, and who is preempted comes after all that still run.
        admitted = [admission.request for admission in plan.admitted]
        if order := order_of(config.policy):

            def ranked(number):
                return order(number, self.requests[number])

            assert admitted == sorted(self.queue, key=ranked)[: len(admitted)]
            if plan.preempted:
                last = max(ranked(sequence.number) for sequence in self.scheduler.running)
                assert all(ranked(number) > last for number in plan.preempted)
        if config.policy == "same-position":
            decoding = {position for position, phase in zip(plan.positions, plan.phases, strict=True) if phase == "D"}
            assert len(decoding) <= 1
        if config.policy == "continuous-unchunked":
            assert all(plan.samples)
        if config.policy in ("static", "dynamic") and admitted and len(plan.requests) > len(admitted):
            assert "D" not in plan.phases, "a closed batch took somebody in"
        if not config.enable_prefix_caching:
            assert not any(admission.cached for admission in plan.admitted)

    @invariant()
    def nothing_leaks(self):
        if not hasattr(self, "scheduler"):
            return
        scheduler = self.scheduler
        pool = scheduler.pool
        assert pool.num_free + pool.num_used == self.config.num_blocks
        tables = [block for sequence in scheduler.running for block in sequence.block_table]
        assert len(set(tables)) == pool.num_used
        assert sum(pool.is_free(block) for block in range(self.config.num_blocks)) == pool.num_free
        assert all(not sequence.block_table for sequence in scheduler.waiting)
        if not self.config.enable_prefix_caching:
            assert len(tables) == len(set(tables))
        slots = [sequence.slot for sequence in scheduler.running]
        assert len(set(slots)) == len(slots)
        there = {sequence.number for sequence in [*scheduler.waiting, *scheduler.running]}
        assert there == set(self.requests) - self.ended - self.cancelled
        for order in (scheduler.waiting, scheduler.running):
            ranks = [sequence.rank for sequence in order]
            assert ranks == sorted(ranks)

    @invariant()
    def who_shares_a_block_has_the_same_tokens_up_to_its_end(self):
        if not hasattr(self, "scheduler"):
            return
        size = self.config.block_size
        seen: dict[int, tuple[int, list[int]]] = {}
        for sequence in self.scheduler.running:
            for place, block in enumerate(sequence.block_table):
                content = (place, sequence.token_ids[: (place + 1) * size])
                if block in seen:
                    assert seen[block] == content
                    assert sequence.num_computed_tokens >= (place + 1) * size
                seen[block] = content

    def teardown(self):
        if not hasattr(self, "scheduler"):
            return
        # Whatever was left over comes to its end, with the tokens it must have.
        for _ in range(5_000):
            if not self.engine.has_work:
                break
            self.engine.time_ns += self.engine.ready_in_ns()
            self.step()
        assert not self.engine.has_work
        assert self.ended | self.cancelled == set(self.requests)
        assert self.scheduler.pool.num_used == 0
        self.recorder.now_ns = self.engine.now_ns
        self.recorder.close()
        report = check(self.path)
        assert report.ok, (report.violations, report.cut)
        self.folder.cleanup()


@pytest.mark.slow
def test_nothing_is_lost_leaked_or_shared_wrongly_whatever_comes():
    many = settings(
        max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    SchedulerMachine.steps_made = 0
    while SchedulerMachine.steps_made < 10_000:
        run_state_machine_as_test(SchedulerMachine, settings=many)


def run_all(policy: str, requests: list[Request], **limits) -> list[StepPlan]:
    """Run requests to their end; returns the plans."""
    scheduler = Scheduler(EngineConfig(policy=policy, **limits), frozenset({fakes.END_ID}))
    runner = fakes.FakeRunner(scheduler.config)
    for number, request in enumerate(requests):
        scheduler.add(number, request)
    plans = []
    while (ready_ns := scheduler.ready_ns(0)) is not None:
        plan = scheduler.schedule(ready_ns)
        assert plan is not None
        plans.append(plan)
        scheduler.update(plan, runner.execute(plan).tokens)
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
        "continuous", fixed([20, 20], prompt=4), max_num_seqs=2, num_blocks=8, block_size=4, max_model_len=32
    )
    preempted = [number for plan in plans for number in plan.preempted]
    assert preempted
    assert set(preempted) == {1}
    again = next(plan for plan in plans if plan.admitted and plan is not plans[0])
    recomputed = again.token_ids[again.requests.index(1)]
    assert len(recomputed) > 4, "the tokens it had written are computed again with its prompt"


CACHING = {"block_size": 4, "num_blocks": 24, "max_model_len": 64, "enable_prefix_caching": True}


def asked(number: int, prompt: list[int], output: int = 3, priority: int = 0) -> Request:
    return Request(str(number), tuple(prompt), SamplingParams(max_tokens=output, min_tokens=output), priority=priority)


def cached_of(plans: list[StepPlan]) -> list[tuple[int, int]]:
    """(request, tokens found in the cache) of every admission."""
    return [(admission.request, admission.cached) for plan in plans for admission in plan.admitted]


def test_who_begins_alike_computes_the_beginning_once():
    stem = list(range(1, 11))
    requests = [asked(0, stem), asked(1, [*stem, 30, 31]), asked(2, [*stem[:5], 40, 41, 42])]
    plans = run_all("continuous", requests, max_num_seqs=1, **CACHING)
    assert cached_of(plans) == [(0, 0), (1, 8), (2, 4)]
    later = next(plan for plan in plans if plan.requests == [1])
    assert later.positions == [8]
    assert later.token_ids == [[9, 10, 30, 31]]


def test_blocks_are_shared_while_both_run_and_count_once():
    stem = list(range(1, 9))
    scheduler = Scheduler(EngineConfig(max_num_seqs=2, **CACHING))
    runner = fakes.FakeRunner(scheduler.config)
    scheduler.add(0, asked(0, [*stem, 20], output=6))
    plan = scheduler.schedule(0)
    scheduler.update(plan, runner.execute(plan).tokens)
    scheduler.add(1, asked(1, [*stem, 21], output=6))
    plan = scheduler.schedule(1)
    tables = [sequence.block_table for sequence in scheduler.running]
    assert tables[0][:2] == tables[1][:2]
    assert tables[0][2] != tables[1][2]
    assert plan.kv_used == scheduler.pool.num_used == 4
    assert plan.blocks[-1].blocks == tables[1]
    scheduler.update(plan, runner.execute(plan).tokens)
    scheduler.cancel(0)
    assert not any(scheduler.pool.is_free(block) for block in tables[1])
    assert scheduler.pool.num_used == 3


def test_the_last_token_of_a_prompt_is_always_computed():
    prompt = list(range(1, 9))
    plans = run_all("continuous", [asked(0, prompt), asked(1, prompt)], max_num_seqs=1, **CACHING)
    assert cached_of(plans) == [(0, 0), (1, 4)]


def test_what_was_written_before_a_preemption_is_found_after_it():
    plans = run_all(
        "continuous",
        [asked(0, [1] * 4, 20), asked(1, [2] * 4, 20)],
        max_num_seqs=2,
        **{**CACHING, "num_blocks": 8, "max_model_len": 32},
    )
    assert [number for plan in plans for number in plan.preempted]
    assert any(request == 1 and cached > 4 for request, cached in cached_of(plans)), "more than its prompt"


def test_same_hashes_do_not_share():
    contents = [(START, (token,) * 4) for token in (5, 5 + sys.hash_info.modulus)]
    assert hash(contents[0]) == hash(contents[1])
    pool = BlockPool(2)
    first, second = pool.take(2)
    pool.remember(first, contents[0])
    assert pool.find(contents[1]) is None
    pool.remember(second, contents[1])
    assert [pool.find(content)[0] for content in contents] == [first, second]


def test_a_lower_priority_number_goes_first_and_is_preempted_last():
    requests = [asked(0, [1] * 4, 20, priority=1), asked(1, [2] * 4, 20), asked(2, [3] * 4, 3, priority=-1)]
    plans = run_all("continuous", requests, max_num_seqs=2, num_blocks=8, block_size=4, max_model_len=32)
    assert [admission.request for plan in plans for admission in plan.admitted][:3] == [2, 1, 0]
    assert {number for plan in plans for number in plan.preempted} == {0}


def test_dynamic_waits_until_its_batch_is_full_or_its_oldest_has_waited():
    scheduler = Scheduler(EngineConfig(policy="dynamic", max_num_seqs=2, max_wait_ms=5))
    runner = fakes.FakeRunner(scheduler.config)
    assert scheduler.ready_ns(0) is None
    scheduler.add(0, asked(0, [1], 2), 1_000_000)
    assert scheduler.schedule(5_999_999) is None
    assert scheduler.ready_ns(5_999_999) == 6_000_000
    plan = scheduler.schedule(6_000_000)
    assert plan.requests == [0]
    scheduler.update(plan, runner.execute(plan).tokens)
    scheduler.add(1, asked(1, [1], 2), 6_500_000)
    scheduler.add(2, asked(2, [1], 2), 7_000_000)
    plan = scheduler.schedule(8_000_000)
    assert plan.requests == [0], "a closed batch takes nobody in"
    scheduler.update(plan, runner.execute(plan).tokens)
    assert scheduler.schedule(8_100_000).requests == [1, 2], "two fill the batch: nobody waits for longer"


def test_unchunked_computes_a_prompt_in_one_step_or_refuses_it():
    long = asked(1, [7] * 30, 2)
    limits = {"max_num_seqs": 2, "max_num_batched_tokens": 31}
    plans = run_all("continuous-unchunked", [asked(0, [7] * 3, 8), long], **limits)
    whole = [plan for plan in plans if 1 in plan.requests]
    assert len(whole[0].token_ids[whole[0].requests.index(1)]) == 30
    scheduler = Scheduler(EngineConfig(policy="continuous-unchunked", **limits))
    with pytest.raises(NeverFitsError, match="max_num_batched_tokens is 31"):
        scheduler.add(0, asked(0, [7] * 30, 3))


def client_requests(clients: str, prompt: int = 4, output: int = 4) -> list[Request]:
    """A request of each client, named by a letter."""
    sampling = SamplingParams(max_tokens=output, min_tokens=output)
    return [Request(str(i), (7,) * prompt, sampling, client=client) for i, client in enumerate(clients)]


def admissions(plans: list[StepPlan]) -> list[int]:
    return [admission.request for plan in plans for admission in plan.admitted]


def test_the_shortest_prompt_is_admitted_first_within_its_priority():
    prompts = [9, 2, 5, 2]
    requests = [asked(i, [7] * prompt) for i, prompt in enumerate(prompts)]
    urgent = asked(4, [7] * 20, priority=-1)
    plans = run_all("shortest-prompt-first", [*requests, urgent], max_num_seqs=1)
    assert admissions(plans) == [4, 1, 3, 2, 0]


def test_the_longest_prompt_gives_way_where_blocks_run_out():
    requests = [asked(0, [1] * 8, 20), asked(1, [2] * 4, 20)]
    limits = {"max_num_seqs": 2, "num_blocks": 8, "block_size": 4, "max_model_len": 32}
    assert {number for plan in run_all("shortest-prompt-first", requests, **limits) for number in plan.preempted} == {0}
    assert {number for plan in run_all("continuous", requests, **limits) for number in plan.preempted} == {1}


def test_a_client_that_sends_more_is_not_served_more():
    requests = client_requests("aaaaaaaabbb")
    assert admissions(run_all("continuous", requests, max_num_seqs=1)) == list(range(11))
    order = "".join(requests[number].client for number in admissions(run_all("fair", requests, max_num_seqs=1)))
    assert order == "abababaaaaa"


def test_tokens_are_what_is_shared_and_output_weighs_twice():
    # Each of a's requests costs 2 + 2 x 9 = 20 tokens, each of b's 2 + 2 x 4 = 10: two of b's to one of a's.
    long, short = client_requests("aaa", 2, 9), client_requests("bbbbbb", 2, 4)
    plans = run_all("fair", [*long, *short], max_num_seqs=1)
    clients = ["a"] * 3 + ["b"] * 6
    assert "".join(clients[number] for number in admissions(plans)) == "abbabbabb"


def test_a_client_that_was_away_saves_nothing_up():
    scheduler = Scheduler(EngineConfig(policy="fair", max_num_seqs=1))
    runner = fakes.FakeRunner(scheduler.config)
    order = []

    def steps(count):
        for _ in range(count):
            plan = scheduler.schedule(0)
            order.extend(admission.request for admission in plan.admitted)
            scheduler.update(plan, runner.execute(plan).tokens)

    for number, request in enumerate(client_requests("aaaaaa")):
        scheduler.add(number, request)
    steps(16)  # four of a's requests are served before b comes
    for number, request in enumerate(client_requests("bbbb"), 6):
        scheduler.add(number, request)
    steps(24)
    assert order == [0, 1, 2, 3, 4, 6, 5, 7, 8, 9], "a and b take turns from where b came"


def test_who_was_served_most_gives_way():
    requests = [*client_requests("a", 4, 20), *client_requests("b", 4, 20)]
    limits = {"max_num_seqs": 2, "num_blocks": 8, "block_size": 4, "max_model_len": 32}
    first = Request("0", (9,) * 4, SamplingParams(max_tokens=2, min_tokens=2), client="a")
    plans = run_all("fair", [first, *requests], **limits)
    assert {number for plan in plans for number in plan.preempted} == {1}, "the older one, whose client had one before"


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_after_a_step_that_failed_everybody_can_be_cancelled(policy):
    scheduler = Scheduler(EngineConfig(policy=policy, max_num_seqs=2, max_wait_ms=1, **CACHING))
    for number in range(4):
        scheduler.add(number, asked(number, [1, 2, 3, 4, 5]))
    assert scheduler.schedule(10**9) is not None  # and the device is out of memory: there is no update
    assert all(scheduler.cancel(number) for number in range(4))
    assert not scheduler.has_work
    assert scheduler.pool.num_used == 0


def test_requests_that_can_never_fit_are_refused_by_the_limits_name():
    scheduler = Scheduler(EngineConfig(num_blocks=4, block_size=4, max_model_len=100))
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
        ({"max_num_seqs": True}, "max_num_seqs: True is not a whole number"),
        ({"enable_prefix_caching": 1}, "enable_prefix_caching: 1 is not true or false"),
        ({"max_num_seqs": 64, "max_num_batched_tokens": 32}, "max_num_batched_tokens: 32"),
    ],
)
def test_a_wrong_setting_is_named(setting, message):
    with pytest.raises(ConfigError, match=message):
        Scheduler(EngineConfig(**setting))


@pytest.mark.parametrize("client", [3, "x" * 10**6])
def test_a_client_that_is_no_name_is_refused(client):
    with pytest.raises(RequestError, match="client: "):
        Request("r", (1,), client=client)
