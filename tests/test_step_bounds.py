"""What bound each step: by hand, and as the engine's own scheduler decided it."""

import dataclasses
import random
import re

import by_hand
import fakes
import msgspec
import pytest
from bounds_of_lines import bounds_of_lines
from tracereel.cli.main import main
from tracereel.engine.config import EngineConfig
from tracereel.engine.policies import POLICIES
from tracereel.engine.scheduler import Scheduler
from tracereel.trace.analysis.step_bounds import BOUNDS, bound_shares, step_bounds
from tracereel.trace.format.events import (
    Admission,
    Arrival,
    KvGroup,
    Loading,
    Step,
)
from tracereel.trace.format.recorder import Recorder
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS, traces_below
from tracereel.trace.state.columns import Trace

HEADER = by_hand.header(slots=3, token_budget=8, kv_blocks=6)
_QUICK = 400_000
"""Bytes of a recording whose lines are read in a moment."""
FIRST_RUNS = [
    path
    for path in traces_below(PACKAGE_RECORDINGS)
    if not re.search(r"-[2-9]\.jsonl", path.name) and path.stat().st_size < _QUICK
]
PROMPTS = (4, 5, 17)
"""Tokens of the three prompts: 1, 2 and 5 blocks."""


def a_step(index=0, requests=(0,), phases="P", computed=(4,), sampled=None, **fields):
    common = {
        "index": index,
        "start_ns": 10 * index + 1,
        "end_ns": 10 * index + 10,
        "requests": list(requests),
        "slots": list(requests),
        "phases": phases,
        "positions": [0 if phase == "P" else 4 for phase in phases],
        "computed": list(computed),
        "sampled": [1] * len(requests) if sampled is None else list(sampled),
        "waiting": 3 - len(requests),
        "running": len(requests),
        "kv_used": 0,
    }
    if not index:
        common["admitted"] = [Admission(request=request, slot=request) for request in requests]
    return Step(**{**common, **fields})


def bounds_of(path, steps, priorities=(0, 0, 0), **header):
    """The bound of each step by name."""
    with Recorder(path, msgspec.structs.replace(HEADER, **header)) as recorder:
        for request, (tokens, priority) in enumerate(zip(PROMPTS, priorities, strict=True)):
            recorder.record(
                Arrival(
                    request=request,
                    id=str(request),
                    arrival_ns=0,
                    submitted_ns=0,
                    prompt_tokens=tokens,
                    priority=priority,
                )
            )
        for step in steps:
            recorder.record(step)
    return [BOUNDS[bound] for bound in step_bounds(Trace.read(path))]


GROUPS = [KvGroup(kind="full", block_tokens=4), KvGroup(kind="sliding_window", block_tokens=4, window=4)]


@pytest.mark.parametrize(
    ("step", "header", "bound"),
    [
        pytest.param({"waiting": 0}, {}, "nobody_waiting", id="nobody waits"),
        pytest.param({"waiting": 0}, {"slots": 1}, "nobody_waiting", id="nobody waits, slots are full too"),
        pytest.param({}, {"slots": 1}, "slots", id="the only slot is held"),
        pytest.param({"computed": (8,)}, {}, "token_budget", id="all of the budget is computed"),
        pytest.param({"computed": (4,)}, {}, "token_budget", id="4 tokens are left, whole prompts, the next has 5"),
        pytest.param({"computed": (3,)}, {}, "policy", id="5 are left: the next would fit"),
        pytest.param({"computed": (4,), "sampled": (0,)}, {}, "policy", id="prompts are split: 4 tokens are enough"),
        pytest.param({"phases": "D", "computed": (4,)}, {}, "policy", id="only a step that prefills can lack a whole"),
        pytest.param({"computed": (1,), "kv_used": 5}, {}, "kv_blocks", id="1 block is free, 5 tokens take 2"),
        pytest.param({"computed": (1,), "kv_used": 4}, {}, "policy", id="2 blocks are free, which suffices"),
        pytest.param({"computed": (8,), "kv_used": 5}, {}, "token_budget", id="a full budget comes before the blocks"),
        pytest.param({"computed": (4,), "kv_used": 5}, {}, "kv_blocks", id="blocks come before whole prompts"),
        pytest.param({"computed": (1,), "kv_used": None}, {}, "unknown", id="it does not say the blocks used"),
        pytest.param({"computed": (1,)}, {"kv_blocks": None}, "unknown", id="it does not say the pool's size"),
        pytest.param({"computed": (1,)}, {"token_budget": None}, "unknown", id="it does not say the budget"),
        pytest.param({"kv_used": 5}, {"token_budget": None}, "kv_blocks", id="blocks lack whatever the budget"),
        pytest.param({"phases": "D", "kv_used": 6}, {"policy": "static"}, "policy", id="a static batch is closed"),
        pytest.param(
            {"phases": "D"}, {"policy": "static", "token_budget": None}, "policy", id="closed, whatever it does not say"
        ),
        pytest.param({"computed": (8,)}, {"policy": "static"}, "token_budget", id="a static batch while it fills"),
        # Two groups: 5 tokens take 2 blocks of each.
        pytest.param({"computed": (1,), "kv_used": 3}, {"kv_groups": GROUPS}, "kv_blocks", id="3 free, of groups 4"),
        pytest.param({"computed": (1,), "kv_used": 2}, {"kv_groups": GROUPS}, "policy", id="4 free, of groups 4"),
        pytest.param(
            {"computed": (1,), "kv_used": 2, "loading": [Loading(request=1, state="waiting_for_kv", blocks=[0])]},
            {},
            "kv_blocks",
            id="one loads: the next in line is the other, whose 17 tokens take 5 blocks, and 4 are free",
        ),
        pytest.param(
            {"loading": [Loading(request=i, state="waiting_for_kv", blocks=[i]) for i in (1, 2)], "computed": (1,)},
            {},
            "kv_loading",
            id="all that wait are loading",
        ),
    ],
)
def test_the_rule_line_by_line(tmp_path, step, header, bound):
    assert bounds_of(tmp_path / "t.jsonl", [a_step(**step)], **header) == [bound]


def test_a_window_takes_no_more_blocks_than_it_and_a_step_hold(tmp_path):
    """17 tokens take 5 blocks of the full group; of a window of 1 with 4 tokens a step, 1 block and one more."""
    groups = [GROUPS[0], KvGroup(kind="sliding_window", block_tokens=4, window=1)]
    step = {"requests": (0, 1), "phases": "PP", "computed": (1, 1), "sampled": (0, 0)}
    for used, bound in ((13, "policy"), (14, "kv_blocks")):
        said = bounds_of(
            tmp_path / "t.jsonl", [a_step(**step, kv_used=used)], kv_groups=groups, kv_blocks=20, token_budget=4
        )
        assert said == [bound]


def test_the_next_in_line_is_the_one_that_is_admitted_next(tmp_path):
    """An engine that takes the long prompt first waits for its 5 blocks, of which 4 are free."""
    wait = a_step(computed=(1,), sampled=(0,), kv_used=2)
    for request, bound in ((1, "policy"), (2, "kv_blocks")):
        enter = a_step(
            1, requests=(0, request), phases="DP", computed=(1, 4), admitted=[Admission(request=request, slot=request)]
        )
        assert bounds_of(tmp_path / "t.jsonl", [wait, enter])[0] == bound
    assert bounds_of(tmp_path / "t.jsonl", [wait], priorities=(0, 2, 1)) == ["kv_blocks"]  # the lower number is first


def test_a_step_that_preempts_lacks_blocks_whatever_it_computes(tmp_path):
    both = a_step(requests=(0, 1), phases="PP", computed=(4, 4))
    steps = [both, a_step(1, phases="D", computed=(8,), preempted=[1])]
    assert bounds_of(tmp_path / "t.jsonl", steps) == ["token_budget", "kv_blocks"]


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("seed", range(4))
def test_the_rule_says_what_stopped_the_scheduler(tmp_path, monkeypatch, name, seed):
    decided = []
    schedule = Scheduler.schedule

    def explained(self, now_ns):
        plan = schedule(self, now_ns)
        if plan is not None:
            decided.append(why(self, plan, now_ns))
        return plan

    monkeypatch.setattr(Scheduler, "schedule", explained)
    config = EngineConfig(
        policy=name, max_num_seqs=4, max_num_batched_tokens=64, num_blocks=18, block_size=4, max_model_len=64
    )
    priority = random.Random(seed)
    with Recorder(tmp_path / "t.jsonl", fakes.header(config)) as recorder:
        engine = fakes.make_engine(config, recorder)
        for request in fakes.make_requests(30, seed):
            engine.add(dataclasses.replace(request, priority=priority.choice((0, 0, 1))))
        while engine.has_work:
            engine.step()
    found = [BOUNDS[bound] for bound in step_bounds(Trace.read(tmp_path / "t.jsonl"))]
    assert found == decided
    assert {"slots", "nobody_waiting"} <= set(decided)
    assert ("policy" in decided) == (name in ("static", "dynamic"))


def why(scheduler, plan, now_ns):
    """Why the schedule that was just made admitted no further request, from the scheduler's own state."""
    if not scheduler.waiting:
        return "nobody_waiting"
    if not scheduler._free_slots:
        return "slots"
    if scheduler.policy.pads and "D" in plan.phases:
        return "policy"
    if plan.preempted:
        return "kv_blocks"
    left = scheduler.config.max_num_batched_tokens - sum(map(len, plan.token_ids))
    sequence = next(iter(scheduler.policy.queue_order(scheduler._batch(now_ns))))
    tokens = len(sequence.token_ids)
    if not left:
        return "token_budget"
    if scheduler.kv.blocks_for(tokens) > scheduler.pool.num_free:
        return "kv_blocks"
    return "token_budget" if tokens > left and not scheduler.policy.chunks else "policy"


@pytest.mark.parametrize("path", FIRST_RUNS, ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_the_rule_is_applied_to_every_recording_as_it_is_written(path):
    assert [BOUNDS[bound] for bound in step_bounds(Trace.read(path, tokens=False))] == bounds_of_lines(path)


@pytest.mark.parametrize(
    ("recording", "bound"),
    [
        # A queue before free slots and free budget: only blocks are lacking, 11 and more for a request of this suite.
        ("paging/cpu/no-prefix-caching-1", "kv_blocks"),
        # Six groups: the 35 tokens that wait take 12 blocks, and 6 are free.
        ("vllm-kinds/cpu/sliding-window", "kv_blocks"),
        # The only one that waits is waiting for its KV.
        ("vllm-kinds/cpu/loading", "kv_loading"),
        # A static batch of another engine, which says neither token budget nor KV blocks.
        ("film-engines/cpu/transformers-static-1", "policy"),
        # No token budget: 6 steps with free slots and enough free blocks.
        ("sglang/cpu/tiny-gpt2", "unknown"),
    ],
)
def test_steps_with_a_free_slot_of_other_engines(recording, bound):
    trace = Trace.read(PACKAGE_RECORDINGS / f"{recording}.jsonl.zst")
    steps = trace.steps
    found = {BOUNDS[i] for i in step_bounds(trace)[(steps.waiting > 0) & (steps.running < trace.step_slots)]}
    assert bound in found
    assert found <= {bound, "token_budget", "kv_blocks"}


def test_the_shares_are_of_the_steps_time(tmp_path):
    steps = [a_step(waiting=0), a_step(1, phases="D", computed=(8,), end_ns=41)]  # 9 ns and 30 ns
    bounds_of(tmp_path / "t.jsonl", steps)
    shares = bound_shares(Trace.read(tmp_path / "t.jsonl"))
    assert {name: share for name, share in shares.items() if share} == pytest.approx(
        {"nobody_waiting": 9 / 39, "token_budget": 30 / 39}
    )
    assert tuple(shares) == BOUNDS


def test_inspect_says_what_is_lacking_where_a_bound_is_not_known(capsys):
    assert main(("inspect", str(PACKAGE_RECORDINGS / "sglang/cpu/tiny-gpt2.jsonl.zst"))) == 0
    assert "not known: the trace does not say its token budget" in capsys.readouterr().out
    assert main(("inspect", str(PACKAGE_RECORDINGS / "film-engines/cpu/transformers-static-1.jsonl.zst"))) == 0
    assert "not known" not in capsys.readouterr().out
