"""The vLLM adapter as a whole, with a stand-in of vLLM's shapes; `make test-engines` records vLLM itself.

Each case is something that vLLM does and that a trace must say rightly, or a fault of the recording, which vLLM must
not notice.
"""

import json
import logging
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import vllm_stand_in as vllm
from tracereel.engine.adapters import AdapterError
from tracereel.trace.check.invariants import check
from tracereel.trace.state.columns import Trace
from vllm_stand_in import Engine, FinishReason, RequestStatus

STOP = FinishReason.STOP


@pytest.fixture(autouse=True)
def installed():
    with vllm.installed():
        yield


def closed(engine):
    """The records of a recording that is whole and in which everything holds."""
    engine.tap.close()
    report = check(engine.path)
    assert report.ok, (report.violations, report.cut)
    return [json.loads(line) for line in engine.path.read_text().splitlines()]


def steps(records):
    return [record for record in records if record["event"] == "step"]


def test_a_request_is_recorded_from_its_arrival_to_its_end(tmp_path):
    engine = Engine(tmp_path / "run.jsonl")
    engine.arrive("a-0123abcd", 6)
    engine.step({"a-0123abcd": (0, 4, [1])}, tokens={})
    engine.step({}, {"a-0123abcd": (4, 2, [2])}, tokens={"a-0123abcd": [104]})
    engine.step({}, {"a-0123abcd": (6, 1, [])}, tokens={"a-0123abcd": [105]}, ends={"a-0123abcd": STOP})
    header, arrival, *taken, end = closed(engine)
    assert (arrival["id"], arrival["prompt"], arrival["prompt_tokens"]) == ("a", "abcdef", 6)
    assert [step["phases"] for step in taken] == ["P", "P", "D"]
    assert [step.get("blocks") for step in taken] == [
        [{"request": 0, "blocks": [0]}],
        [{"request": 0, "blocks": [1]}],
        None,
    ]
    assert [step["texts"] for step in taken] == [[], ["h"], ["i"]]
    assert taken[2]["finished"] == [{"request": 0, "reason": "stop"}]
    assert [step["kv_used"] for step in taken] == [1, 2, 2]
    assert (header["model"]["weights"], header["token_budget"], end["output_tokens"]) == ("random", 64, 2)


def test_blocks_that_leave_a_window_leave_the_table_of_their_group(tmp_path):
    engine = Engine(tmp_path / "run.jsonl", spec=vllm.SlidingWindowSpec)
    engine.arrive("a", 8)
    engine.step({"a": (0, 8, [1, 2])}, tokens={"a": [104]})
    engine.lose("a", [1])
    engine.step({}, {"a": (8, 1, [3])}, tokens={"a": [105]}, ends={"a": STOP})
    header, _, one, two, _ = closed(engine)
    assert header["kv_groups"] == [{"kind": "sliding_window", "layers": 1, "block_tokens": 4, "window": 8}]
    assert one["group_blocks"] == [{"request": 0, "group": 0, "place": 0, "blocks": [0, 1]}]
    assert two["freed"] == [{"request": 0, "group": 0, "blocks": [0]}]
    assert two["group_blocks"] == [{"request": 0, "group": 0, "place": 2, "blocks": [2]}]
    assert [step["kv_used"] for step in (one, two)] == [2, 2]


def test_what_only_some_requests_have_is_there_for_them(tmp_path):
    engine = Engine(tmp_path / "run.jsonl", experts=3)
    cached = SimpleNamespace(num_local_cached_tokens=4, num_external_cached_tokens=0)
    engine.arrive("a", 6, prefill_stats=cached, lora_request=SimpleNamespace(lora_name="poet"))
    engine.arrive("b")
    plan = engine.schedule({"a": (4, 2, [1, 2]), "b": (0, 4, [3])})
    outputs = [vllm.EngineCoreOutput(key, [104], STOP) for key in "ab"]
    outputs[0].routed_experts = np.array([[[0, 2]], [[1, 2]]])  # of two tokens, in one layer
    engine.leave("a")
    engine.leave("b")
    engine.tap.updated(plan, {0: vllm.EngineCoreOutputs(outputs)}, SimpleNamespace(), time.monotonic_ns())
    _, first, second, step, _ = closed(engine)
    assert (first["lora"], second.get("lora")) == ("poet", None)
    assert step["admitted"] == [
        {"request": 0, "slot": 0, "cached": 4, "cached_from": {"local": 4}},
        {"request": 1, "slot": 1},
    ]
    assert step["experts"] == [[1, 1, 2]]


# Steps in flight.


def test_one_that_ends_while_its_next_step_is_in_flight_is_padding_there_and_leaves_nothing_behind(tmp_path):
    engine = Engine(tmp_path / "run.jsonl", depth=2)
    engine.arrive("a")
    engine.arrive("b")
    first = engine.schedule({"a": (0, 4, [1]), "b": (0, 4, [2])})
    second = engine.schedule({}, {"a": (4, 1, [3]), "b": (4, 1, [4])})
    engine.done(first, {"a": [104], "b": [104]}, {"a": STOP})
    engine.abort("b")
    third = engine.schedule()
    engine.done(second, {})
    engine.done(third, {})
    records = closed(engine)
    one, two = steps(records)
    assert (one["requests"], one["finished"]) == ([0, 1], [{"request": 0, "reason": "stop"}])
    # The second step was scheduled for both. One had ended before it began, one was aborted while it ran.
    assert (two["requests"], two["sampled"], two["padding"]) == ([1], [0], 1)
    assert [(record["request"], record["reason"]) for record in records if record["event"] == "finish"] == [
        (1, "abort")
    ]
    kept = (engine.tap._kv._lengths, engine.tap._members._reached, engine.tap._members._prefills)
    assert [*map(len, kept)] == [0, 0, 0]


def test_a_step_that_was_in_flight_when_the_recording_began_is_none_of_it(tmp_path):
    engine = Engine(tmp_path / "run.jsonl", depth=2, settings={"warmup": 1})
    engine.arrive("warm")
    first = engine.schedule({"warm": (0, 4, [1])})
    second = engine.schedule({}, {"warm": (4, 1, [2])})
    engine.done(first, {"warm": [104]}, {"warm": STOP})
    engine.arrive("a")
    own = engine.schedule({"a": (0, 4, [3])})
    engine.done(second, {})
    engine.done(own, {"a": [104]}, {"a": STOP})
    (step,) = steps(closed(engine))
    assert (step["requests"], step["sampled"]) == ([0], [1])


@pytest.mark.parametrize("ended", [True, False])
def test_requests_of_the_warm_up_that_still_run_are_named_in_the_log_in_one_line(tmp_path, caplog, ended):
    engine = Engine(tmp_path / "run.jsonl", settings={"warmup": 1})
    engine.arrive("warm")
    engine.step({"warm": (0, 4, [1])}, tokens={"warm": [104]}, ends={"warm": STOP} if ended else {})
    engine.arrive("a")
    assert [record.getMessage() for record in caplog.records if "1 earlier request(s)" in record.getMessage()] == (
        []
        if ended
        else [
            "tracereel: 1 earlier request(s) have not ended; the recording that begins here lacks them, and"
            " `tracereel check` will find it in contradiction with itself"
        ]
    )
    going = {} if ended else {"warm": (4, 1, [])}
    engine.step({"a": (0, 4, [3])}, going, tokens={"a": [104]}, ends={"a": STOP})
    engine.tap.close()
    assert check(engine.path).ok is ended


def test_steps_that_come_back_in_another_order_end_the_recording(tmp_path, caplog):
    engine = Engine(tmp_path / "run.jsonl", depth=2)
    engine.arrive("a")
    engine.step({"a": (0, 4, [1])}, tokens={"a": [104]})
    engine.schedule({}, {"a": (4, 1, [2])})
    other = engine.schedule({}, {"a": (5, 1, [])})
    engine.done(other, {"a": [105]})
    engine.tap.close()
    assert "in the order in which they were scheduled" in caplog.text
    # Nothing is made of what comes after a fault, so that nothing grows.
    assert len(engine.tap._in_flight) == 2
    assert not engine.path.exists()


def test_after_a_fault_nothing_is_kept_of_what_comes(tmp_path, caplog):
    engine = Engine(tmp_path / "run.jsonl", depth=2)
    engine.arrive("a")
    engine.step({"a": (0, 4, [1])}, tokens={"a": [104]})
    engine.schedule({}, {"a": (4, 1, [2])})
    engine.done(engine.schedule({}, {"a": (5, 1, [])}), {"a": [105]})
    for n in range(200):
        engine.done(engine.schedule({}, {"a": (6 + n, 1, [])}), {"a": [106]})
    engine.tap.close()
    assert len(engine.tap._in_flight) == 2
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) <= 2


# Drafts.


def test_ahead_a_member_stands_where_its_accepted_drafts_end(tmp_path):
    engine = Engine(tmp_path / "run.jsonl", depth=2, drafts=True)
    engine.arrive("a", max_tokens=20)
    # vLLM schedules as if all drafts were right: three of them, of which one, then none is accepted.
    first = engine.schedule({"a": (0, 4, [1, 2])})
    second = engine.schedule({}, {"a": (4, 4, [3])}, drafts={"a": [-1, -1, -1]})
    engine.done(first, {"a": [104]})
    third = engine.schedule({}, {"a": (8, 4, [])}, drafts={"a": [-1, -1, -1]})
    engine.done(second, {"a": [105, 106]})
    last = engine.schedule({}, {"a": (10, 1, [])})  # without drafts: its position is guessed all the same
    engine.done(third, {"a": [107]})
    engine.done(last, {"a": [108]}, {"a": STOP})
    taken = steps(closed(engine))
    assert [step["positions"] for step in taken] == [[0], [4], [6], [7]]
    assert [step["drafted"] for step in taken] == [[0], [3], [3], [0]]
    # What vLLM schedules ahead are placeholders of drafts that its workers have.
    assert all("invalid_drafts" not in step for step in taken)


def test_a_placeholder_of_a_schedule_that_is_not_ahead_is_an_invalid_draft(tmp_path):
    engine = Engine(tmp_path / "run.jsonl", drafts=True)
    engine.arrive("a", 5)
    engine.step({"a": (0, 5, [1, 2])}, tokens={"a": [104]})
    engine.step({}, {"a": (5, 4, [3])}, drafts={"a": [7, 8, -1]}, tokens={"a": [105]})
    engine.step({}, {"a": (6, 4, [])}, drafts={"a": [7, 8, 9]}, invalid={"a": 2}, tokens={"a": [106]})
    # Preempted, and back with all but its newest token: vLLM pads such a decode with placeholders.
    engine.done(engine.schedule(preempted=("a",)), {})
    plan = engine.schedule({}, {"a": (7, 4, [1, 2, 4])}, resumed=("a",), drafts={"a": [-1, -1, -1]})
    engine.done(plan, {"a": [107]}, {"a": STOP})
    taken = steps(closed(engine))
    assert [step.get("invalid_drafts") for step in taken] == [None, [1], [2], [3]]
    assert taken[3]["preempted"] == [0]


def test_tokens_are_those_of_the_step_though_vllms_front_end_cuts_its_lists(tmp_path):
    """In one process with it, where a stop string ends within the drafts that were accepted."""
    vllm.MODULES["vllm"]["envs"].VLLM_ENABLE_V1_MULTIPROCESSING = False
    try:
        engine = Engine(tmp_path / "run.jsonl", drafts=True)
    finally:
        vllm.MODULES["vllm"]["envs"].VLLM_ENABLE_V1_MULTIPROCESSING = True
    engine.arrive("a", stop=["i"])
    engine.step({"a": (0, 4, [1, 2])}, tokens={"a": [104]})
    engine.tap._recorder._look.clear()
    (output,) = engine.done(engine.schedule({}, {"a": (4, 4, [])}, drafts={"a": [1, 2, 3]}), {"a": [105, 106, 107]})
    del output.new_token_ids[1:]
    engine.abort("a")
    records = closed(engine)
    assert steps(records)[1]["tokens"] == [105, 106, 107]
    assert records[-2]["reason"] == "stop"


# KV from elsewhere.


def test_blocks_that_a_request_keeps_after_its_end_leave_kv_in_use_unknown(tmp_path):
    """As a prefill's, until the engine that decodes has fetched them."""
    engine = Engine(tmp_path / "run.jsonl", connector=SimpleNamespace())
    for key in "abc":
        engine.arrive(key)
    engine.step({"a": (0, 4, [1]), "b": (0, 4, [2])}, tokens={"a": [104], "b": [104]})
    engine.abort("a", keeps=True)
    engine.step({"c": (0, 4, [3])}, {"b": (4, 1, [4])}, tokens={"b": [105], "c": [104]})
    engine.held.clear()
    del engine.scheduler.requests["a"]
    engine.step({}, {"b": (5, 1, [])}, tokens={"b": [106]}, ends={"b": STOP})
    engine.abort("c")
    assert [step.get("kv_used") for step in steps(closed(engine))] == [2, None, 3]


@pytest.mark.parametrize("status", [RequestStatus.WAITING_FOR_REMOTE_KVS, RequestStatus.WAITING])
def test_a_request_waits_with_its_blocks_until_it_is_admitted_though_its_kv_has_come(tmp_path, status):
    engine = Engine(tmp_path / "run.jsonl", connector=SimpleNamespace())
    waits = engine.arrive("a", 8, num_computed_tokens=8, status=status)
    engine.arrive("b")
    engine.tables["a"] = [1, 2]
    engine.scheduler.kv_holding_waiting.append(waits)
    engine.step({"b": (0, 4, [3])}, tokens={"b": [104]})
    engine.scheduler.kv_holding_waiting.clear()
    del engine.tables["a"]
    engine.step({"a": (7, 1, [1, 2])}, {"b": (4, 1, [4])}, tokens={"b": [105], "a": [104]}, ends={"a": STOP, "b": STOP})
    one, two = steps(closed(engine))
    assert one["loading"] == [{"request": 0, "state": status.name.lower(), "blocks": [0, 1]}]
    assert (one["kv_used"], two["admitted"]) == (3, [{"request": 0, "slot": 1, "cached": 7}])


def test_kv_that_could_not_be_loaded_and_is_computed_again_ends_the_recording(tmp_path, caplog):
    engine = Engine(tmp_path / "run.jsonl", connector=SimpleNamespace())
    engine.arrive("a", 8)
    engine.step({"a": (4, 4, [1, 2])}, tokens={})
    engine.step({}, {"a": (0, 8, [])}, tokens={"a": [104]})
    engine.tap.close()
    assert "request a computes again from position 0, after 8" in caplog.text


# What costs memory, and what a client may send.


def test_without_a_recording_nothing_is_kept_for_one(tmp_path):
    connector = SimpleNamespace(get_external_cache_hit_sources=lambda request, tokens: {"host": tokens})
    engine = Engine(tmp_path / "run.jsonl", connector=connector, settings={"warmup": 100})
    kv, sources = engine.tap._kv, engine.tap._sources
    for n in range(20):
        came = engine.arrive(f"warm {n}")
        connector.get_external_cache_hit_sources(came, 4)
        kv._left({"request_id": came.request_id, "self": vllm.Manager()}, [SimpleNamespace(block_id=1, is_null=False)])
        engine.step({came.request_id: (0, 4, [1])}, tokens={came.request_id: [104]}, ends={came.request_id: STOP})
    assert (kv._freed, sources._tiers) == ([], {})
    engine.tap.close()


def test_what_a_client_sends_does_not_end_the_recording(tmp_path):
    engine = Engine(tmp_path / "run.jsonl")
    engine.arrive("a", max_tokens=2**60, priority=2**60, extra={"tracereel_prompt": ["no", "text"]})
    engine.arrive("b", extra={"tracereel_prompt": "its own words"})
    ends = {"a": STOP, "b": STOP}
    engine.step({"a": (0, 4, [1]), "b": (0, 4, [2])}, tokens={"a": [104], "b": [104]}, ends=ends)
    _, first, second, *_ = closed(engine)
    assert (first["prompt"], first["max_tokens"], first["priority"]) == ("abcd", 2**31 - 1, 2**31 - 1)
    assert second["prompt"] == "its own words"


def test_a_request_without_sampling_has_no_text_and_ends_without_a_token(tmp_path):
    """As pooling requests, which give vectors."""
    engine = Engine(tmp_path / "run.jsonl")
    engine.arrive("a", max_tokens=1, sampling_params=None)
    engine.step({"a": (0, 4, [1])}, tokens={"a": []}, ends={"a": STOP})
    _, arrival, step, _ = closed(engine)
    assert "prompt" not in arrival
    assert (step["sampled"], step["finished"]) == ([0], [{"request": 0, "reason": "stop"}])


def test_padding_of_graphs_is_recorded_where_vllm_is_asked_for_it(tmp_path):
    engine = Engine(tmp_path / "run.jsonl", observability_config=SimpleNamespace(cudagraph_metrics=True))
    engine.arrive("a")
    graph = SimpleNamespace(runtime_mode="FULL", num_paddings=4)
    engine.done(engine.schedule({"a": (0, 4, [1])}), {"a": [104]}, {"a": STOP}, cudagraph_stats=graph)
    assert steps(closed(engine))[0]["graph"] == {"mode": "FULL", "padding": 4}


def test_a_transfer_may_be_larger_than_two_gib(tmp_path):
    engine = Engine(tmp_path / "run.jsonl", connector=SimpleNamespace())
    engine.arrive("a")
    stats = SimpleNamespace(data={"transfer_duration": [0.5], "bytes_transferred": [2**33]})
    told = SimpleNamespace(kv_connector_stats=stats)
    engine.done(engine.schedule({"a": (0, 4, [1])}), {"a": [104]}, {"a": STOP}, kv_connector_output=told)
    assert steps(closed(engine))[0]["transfers"] == [{"duration_ns": 500_000_000, "bytes": 2**33}]


def test_a_request_that_goes_on_after_its_end_ends_the_recording_with_one_line(tmp_path, caplog):
    engine = Engine(tmp_path / "run.jsonl")
    engine.arrive("a", resumable=True)
    engine.step({"a": (0, 4, [1])}, tokens={"a": [104]}, ends={"a": STOP})
    assert "streaming input" in caplog.text
    assert not engine.tap._kv.watched
    assert not engine.tap._sources.watched
    assert not engine.path.exists()


def test_each_run_of_so_many_requests_is_a_recording(tmp_path):
    engine = Engine(tmp_path / "run.jsonl", settings={"requests_per_run": 1})
    for key in "ab":
        engine.arrive(key)
        engine.step({key: (0, 4, [1])}, tokens={key: [104]}, ends={key: STOP})
    engine.tap.close()
    runs = [tmp_path / "run-1.jsonl", tmp_path / "run-2.jsonl"]
    assert [[arrival.id for arrival in Trace.read(path).arrivals] for path in runs] == [["a"], ["b"]]


# vLLM's scheduler itself.


def traced(path, **options):
    from tracereel.engine.adapters.vllm import scheduler

    return scheduler(vllm.config(additional_config={"tracereel": {"path": str(path)}}, **options))


@pytest.mark.parametrize("depth", [1, 2])
def test_the_scheduler_is_vllms_own_whichever_it_chooses(tmp_path, depth):
    scheduler = traced(tmp_path / "run.jsonl", depth=depth)
    assert isinstance(scheduler, vllm.AsyncScheduler if depth > 1 else vllm.Scheduler)
    scheduler.add_request(vllm.request("a"))
    assert list(scheduler.requests) == ["a"]
    aborted = scheduler.answer = [scheduler.requests["a"]]
    assert scheduler.finish_requests(["a"], RequestStatus.FINISHED_ABORTED) is aborted
    scheduler.shutdown()
    assert scheduler.answer == "shut down"
    records = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert [(record["event"], record.get("reason")) for record in records[1:3]] == [
        ("arrival", None),
        ("finish", "abort"),
    ]


def test_requests_that_vllm_0_25_ended_are_known_by_their_ids(tmp_path):
    scheduler = traced(tmp_path / "run.jsonl")
    scheduler.add_request(vllm.request("a"))
    scheduler.answer = [("a", 0)]
    scheduler.finish_requests(["a"], RequestStatus.FINISHED_ERROR)
    scheduler.shutdown()
    assert json.loads((tmp_path / "run.jsonl").read_text().splitlines()[2])["reason"] == "error"


@pytest.mark.parametrize("call", ["add_request", "schedule", "update_from_output", "finish_requests"])
def test_a_fault_of_the_recording_does_not_reach_vllm(tmp_path, caplog, call):
    scheduler = traced(tmp_path / "run.jsonl")
    scheduler.answer = what = object()  # which is nothing that the adapter knows
    arguments = {
        "add_request": {"request": SimpleNamespace(request_id="a")},
        "schedule": {"throttle_prefills": True},
        "update_from_output": {"scheduler_output": what, "model_runner_output": what},
        "finish_requests": {"request_ids": None, "finished_status": RequestStatus.FINISHED_ABORTED},
    }[call]
    if call == "update_from_output":
        scheduler._tap._counts_after = True
        del scheduler._tap._queued
    answer = getattr(scheduler, call)(**arguments)
    assert answer is (None if call == "add_request" else what)
    assert len([record for record in caplog.records if "the recording ends here" in record.message]) == 1
    assert scheduler.schedule() is what  # and it goes on
    scheduler.shutdown()
    assert not (tmp_path / "run.jsonl").exists()


def test_a_recording_that_cannot_begin_is_one_line_and_vllm_goes_on(tmp_path, caplog):
    engine = Engine(tmp_path / "run.jsonl", settings={"warmup": 1})
    engine.arrive("warm")
    engine.scheduler.max_num_running_reqs = 2**20 + 1  # which no header holds
    with pytest.raises(Exception, match="slots") as raised:
        engine.tap.arrived(vllm.request("a"))
    engine.tap.give_up(raised.value)
    engine.tap.give_up(raised.value)
    assert caplog.text.count("the recording ends here") == 1
    engine.tap.arrived(vllm.request("b"))


def test_a_diffusion_model_whose_scheduler_is_another_is_refused(tmp_path):
    with pytest.raises(AdapterError, match="a diffusion model cannot be recorded"):
        traced(tmp_path / "run.jsonl", diffusion_config=SimpleNamespace())
    assert not list(tmp_path.iterdir())


def test_a_plugin_records_whichever_scheduler_vllm_chooses(tmp_path, monkeypatch):
    from tracereel.engine.adapters.vllm import plugin

    monkeypatch.setattr(vllm.SchedulerConfig, "get_scheduler_cls", vllm.SchedulerConfig.get_scheduler_cls)
    plugin.plugin()
    assert vllm.SchedulerConfig().get_scheduler_cls() is vllm.Scheduler
    monkeypatch.setenv("TRACEREEL_VLLM", str(tmp_path / "run"))
    plugin.plugin()
    plugin.plugin()
    chosen = vllm.SchedulerConfig().get_scheduler_cls()
    assert [kind.__name__ for kind in chosen.__mro__[:2]] == ["TracedScheduler", "Scheduler"]
    chosen(vllm.config()).shutdown()
    (path,) = (tmp_path / "run").iterdir()
    assert Trace.read(path).header.engine.version == "0.33.0"


def test_knobs_are_in_the_header_where_they_are_set(tmp_path):
    set_ones = {
        "prefill_schedule_interval": 4,
        "long_prefill_token_threshold": 0,
        "long_prefill_token_threshold_adaptive": True,
        "max_num_active_seqs": 2,
        "watermark": 0.1,
    }
    engine = Engine(tmp_path / "run.jsonl", scheduling=set_ones, drafts=True)
    engine.tap.close()
    settings = Trace.read(engine.path).header.config
    assert {name: settings.get(name) for name in set_ones} == set_ones | {"long_prefill_token_threshold": None}
    assert (settings["speculative_method"], settings["speculative_tokens"]) == ("ngram", 3)
    assert "max_loras" not in settings


def test_a_version_that_was_not_tried_is_warned_of_and_recorded(tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(vllm.MODULES["vllm"], "__version__", "0.33.1")
    with vllm.installed():
        Engine(tmp_path / "tried.jsonl").tap.close()
        assert "has not been tried" not in caplog.text
        sys.modules["vllm"].__version__ = "0.34.0"
        engine = Engine(tmp_path / "untried.jsonl")
        engine.tap.close()
    assert "vLLM 0.34.0 has not been tried (tried: 0.25, 0.32, 0.33)" in caplog.text
    assert Trace.read(engine.path).header.engine.version == "0.34.0"
