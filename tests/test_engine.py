"""The step loop and the online engine, with a fake model."""

import dataclasses
import statistics
import threading
import time

import fakes
import pytest
from tracereel.engine.config import EngineConfig
from tracereel.engine.engine import Engine
from tracereel.engine.online import EngineStoppedError, OnlineEngine, drive
from tracereel.engine.policies import POLICIES
from tracereel.engine.request import Request, SamplingParams
from tracereel.engine.scheduler import NeverFitsError
from tracereel.trace.check.invariants import check
from tracereel.trace.format.recorder import Recorder
from tracereel.trace.state.columns import Trace
from tracereel.trace.state.timeline import Timeline

SMALL = EngineConfig(max_num_seqs=4, max_num_batched_tokens=24, num_blocks=20, block_size=4, max_model_len=64)


@pytest.mark.parametrize("caching", [False, True])
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_policy_gives_the_same_tokens_and_a_valid_trace(tmp_path, policy, caching):
    path = tmp_path / "run.jsonl"
    requests = fakes.make_requests(15, seed=3)
    config = dataclasses.replace(
        SMALL, policy=policy, max_num_batched_tokens=64, enable_prefix_caching=caching, max_wait_ms=1
    )
    with Recorder(path, fakes.header(config)) as recorder:
        engine = fakes.make_engine(config, recorder)
        for request in requests:
            engine.add(request)
        while engine.has_work:
            engine.step()
    assert check(path).ok
    trace = Trace.read(path)
    for number, request in enumerate(requests):
        assert trace.steps.token_id[trace.tokens_of(number)].tolist() == fakes.answer(request)
        assert trace.arrivals[number].prompt == request.prompt


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_steps_launched_ahead_change_no_token_and_make_a_valid_trace(tmp_path, policy, pinned):
    path = tmp_path / "run.jsonl"
    requests = fakes.make_requests(15, seed=3, pinned=pinned)
    config = dataclasses.replace(SMALL, policy=policy, max_num_batched_tokens=64, max_wait_ms=1)
    runner = fakes.FakeAsyncRunner(config)
    with Recorder(path, fakes.header(config)) as recorder:
        engine = Engine(runner, config, new_stream=fakes.FakeText, end_ids=frozenset({0}), recorder=recorder)
        for request in requests[:10]:
            engine.add(request)
        late = iter(requests[10:])
        while engine.has_work:
            engine.step()
            if (request := next(late, None)) is not None:
                engine.add(request)
    report = check(path)
    assert report.ok, report.violations
    trace = Trace.read(path)
    for number, request in enumerate(requests):
        assert trace.steps.token_id[trace.tokens_of(number)].tolist() == fakes.answer(request)
    steps = len(trace.steps.start_ns)
    if pinned:
        assert runner.ahead == steps - 1
    else:
        assert 0 < runner.ahead < steps - 1


def test_drawn_tokens_and_prefills_keep_the_device_ahead_but_a_repetition_penalty_waits():
    drawn = [
        Request(
            str(i), (i + 1,) * 9, SamplingParams(6, 6, temperature=0.5 * (i % 2), top_p=0.9, logprobs=i % 3 or None)
        )
        for i in range(9)
    ]
    penalized = [Request(str(i), (1, 2), SamplingParams(6, 6, repetition_penalty=1.2)) for i in range(3)]
    for requests, waits in ((drawn, False), (penalized, True)):
        runner = fakes.FakeAsyncRunner(SMALL)
        engine = Engine(runner, SMALL, new_stream=fakes.FakeText)
        for request in requests:
            engine.add(request)
        while engine.has_work:
            engine.step()
        assert runner.ahead == (0 if waits else engine.metrics().steps - 1)


def test_with_a_step_on_its_way_a_request_can_be_cancelled(tmp_path):
    path = tmp_path / "run.jsonl"
    requests = [endless(), *fakes.make_requests(7, seed=4, pinned=True)]
    runner = fakes.FakeAsyncRunner(SMALL)
    tokens: dict[int, list[int]] = {number: [] for number in range(8)}
    with Recorder(path, fakes.header(SMALL)) as recorder:
        engine = Engine(runner, SMALL, new_stream=fakes.FakeText, recorder=recorder)
        for request in requests:
            engine.add(request)
        for step in range(10**6):
            if not engine.has_work:
                break
            for output in engine.step():
                tokens[output.request].append(output.token_id)
            if step == 3:
                assert len(runner.in_flight) == 1
                assert engine.cancel(0)
    report = check(path)
    assert report.ok, report.violations
    assert Trace.read(path).endings[0][1] == "abort"
    for number in range(1, 8):
        assert tokens[number] == fakes.answer(requests[number])


def test_outputs_are_what_was_recorded(tmp_path):
    path = tmp_path / "run.jsonl.zst"
    request = Request("only", (5, 6, 7), SamplingParams(max_tokens=9, min_tokens=9))
    with Recorder(path, fakes.header(SMALL)) as recorder:
        engine = fakes.make_engine(SMALL, recorder)
        engine.add(request)
        outputs = [output for _ in range(9) for output in engine.step()]
    assert engine.step() == []
    trace = Trace.read(path)
    assert [output.token_id for output in outputs] == fakes.answer(request)
    assert tuple(output.text for output in outputs) == trace.texts_of(0)
    assert [output.time_ns for output in outputs] == trace.token_times(0).tolist()
    assert [output.finish_reason for output in outputs] == [None] * 8 + ["length"]
    metrics = engine.metrics()
    assert (metrics.finished, metrics.output_tokens, metrics.steps, metrics.kv_used) == (1, 9, 9, 0)


def test_streams_from_many_threads_get_their_own_tokens():
    requests = fakes.make_requests(40, seed=5)
    answers: dict[str, list[int]] = {}

    def ask(engine: OnlineEngine, own: list[Request]) -> None:
        streams = [engine.submit(request) for request in own]
        for stream in streams:
            answers[stream.request.id] = [output.token_id for output in stream]

    with OnlineEngine(fakes.make_engine(SMALL)) as engine:
        threads = [threading.Thread(target=ask, args=(engine, requests[i::4])) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
    assert answers == {request.id: fakes.answer(request) for request in requests}
    assert engine.metrics().finished == 40


def endless(name: str = "endless") -> Request:
    return Request(name, (3,), SamplingParams(max_tokens=60, min_tokens=60))


class SlowRunner(fakes.FakeRunner):
    def execute(self, plan):
        time.sleep(0.005)
        return super().execute(plan)


def slow_engine(recorder: Recorder | None = None):
    return Engine(SlowRunner(SMALL), SMALL, new_stream=fakes.FakeText, recorder=recorder)


def test_cancelling_ends_one_stream_and_frees_its_blocks(tmp_path):
    path = tmp_path / "run.jsonl"
    with Recorder(path, fakes.header(SMALL)) as recorder, OnlineEngine(slow_engine(recorder)) as engine:
        doomed, other = engine.submit(endless("doomed")), engine.submit(endless("other"))
        iterator = iter(doomed)
        next(iterator)
        engine.cancel(doomed)
        rest = list(iterator)
        assert doomed.finish_reason == "abort"
        assert len(rest) < 59
        assert len(list(other)) == 60
        engine.cancel(other)  # has ended: nothing happens
    assert check(path).ok
    trace = Trace.read(path)
    assert trace.endings[0][1] == "abort"
    assert trace.endings[1][1] == "length"


def test_all_that_are_cancelled_before_their_end_are_aborted_and_the_others_get_their_tokens():
    release = threading.Event()

    class Held(fakes.FakeRunner):
        def execute(self, plan):
            assert release.wait(60)  # no request ends before all are submitted and half are cancelled
            return super().execute(plan)

    requests = [Request(str(i), (5, 6, 7), SamplingParams(max_tokens=2, min_tokens=2)) for i in range(2_000)]
    engine = Engine(Held(SMALL), SMALL, new_stream=fakes.FakeText)
    with OnlineEngine(engine) as online:
        streams = [online.submit(request) for request in requests]
        for stream in streams[::2]:
            online.cancel(stream)
        release.set()
        answers = [[output.token_id for output in stream] for stream in streams]
    assert {stream.finish_reason for stream in streams[::2]} == {"abort"}
    assert {stream.finish_reason for stream in streams[1::2]} == {"length"}
    assert answers[1::2] == [fakes.answer(request) for request in requests[1::2]]
    assert engine.metrics().kv_used == 0


def test_stop_drains_or_aborts():
    draining = OnlineEngine(slow_engine())
    draining.start()
    stream = draining.submit(endless())
    draining.stop(drain=True)
    assert len(list(stream)) == 60

    aborting = OnlineEngine(slow_engine())
    aborting.start()
    streams = [aborting.submit(endless(str(i))) for i in range(6)]
    aborting.stop(drain=False)
    assert all(len(list(stream)) < 60 and stream.finish_reason == "abort" for stream in streams)


def test_an_engine_that_does_not_run_takes_nothing():
    engine = OnlineEngine(fakes.make_engine(SMALL))
    with pytest.raises(EngineStoppedError):
        engine.submit(endless())
    engine.start()
    with pytest.raises(EngineStoppedError, match="started before"):
        engine.start()
    with pytest.raises(NeverFitsError):
        engine.submit(Request("huge", (1,) * 1000))
    engine.stop()
    with pytest.raises(EngineStoppedError):
        engine.submit(endless())


def test_a_failing_step_reaches_every_waiting_stream():
    class Broken(fakes.FakeRunner):
        def execute(self, plan):
            raise RuntimeError("the device is gone")

    engine = OnlineEngine(Engine(Broken(SMALL), SMALL, new_stream=fakes.FakeText))
    engine.start()
    stream = engine.submit(endless())
    with pytest.raises(EngineStoppedError, match="the device is gone"):
        list(stream)
    with pytest.raises(EngineStoppedError, match="the device is gone"):
        engine.stop()


def test_drive_submits_when_due_and_keeps_the_scheduled_arrival(tmp_path):
    path = tmp_path / "run.jsonl"
    with Recorder(path, fakes.header(SMALL)) as recorder:
        engine = OnlineEngine(fakes.make_engine(SMALL, recorder))
        with engine:
            base = engine.now_ns()
            due = [(base + i * 20_000_000, request) for i, request in enumerate(fakes.make_requests(4))]
            for stream in drive(engine, due):
                list(stream)
    trace = Trace.read(path)
    assert [arrival.arrival_ns for arrival in trace.arrivals] == [at for at, _ in due]
    late = [arrival.submitted_ns - arrival.arrival_ns for arrival in trace.arrivals]
    assert min(late) >= 0, "submitted before it was due"
    assert statistics.median(late) < 15_000_000, late  # a busy machine delays one or the other


def test_a_batch_that_waits_to_fill_is_waited_for_without_work_and_can_be_left():
    config = dataclasses.replace(SMALL, policy="dynamic", max_wait_ms=120)
    engine = fakes.make_engine(config)
    scheduled = 0
    schedule = engine.scheduler.schedule

    def counting(now_ns):
        nonlocal scheduled
        scheduled += 1
        return schedule(now_ns)

    engine.scheduler.schedule = counting
    with OnlineEngine(engine) as online:
        start_ns = online.now_ns()
        left, residencies = (
            online.submit(endless("left")),
            online.submit(Request("residencies", (5, 6), SamplingParams(5, 5))),
        )
        online.cancel(left)
        assert list(left) == []
        assert left.finish_reason == "abort"
        assert online.now_ns() - start_ns < 100_000_000, "a cancellation does not wait for the batch"
        outputs = list(residencies)
    assert outputs[0].time_ns - start_ns >= 119_000_000
    assert scheduled <= 5 + 4, "one schedule for each step, and one for each thing that happened while waiting"


def test_a_requests_priority_is_recorded(tmp_path):
    path = tmp_path / "run.jsonl"
    with Recorder(path, fakes.header(SMALL)) as recorder:
        engine = fakes.make_engine(SMALL, recorder)
        for number, priority in enumerate((3, 0, -2, 3)):
            engine.add(Request(str(number), (1, 2), SamplingParams(12, 12), priority=priority))
        while engine.has_work:
            engine.step()
    assert check(path).ok
    trace = Trace.read(path)
    assert [arrival.priority for arrival in trace.arrivals] == [3, 0, -2, 3]
    assert trace.residencies.request.tolist() == [2, 1, 0, 3]
    assert Timeline(trace).at(int(trace.steps.start_ns[0]) - 1).waiting == (2, 1, 0, 3)
