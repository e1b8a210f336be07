"""Requests and streams: a wrong value is refused by its field where it is made, and every stream ends with a reason."""

import dataclasses
import math
import os
import random
import threading
import time

import fakes
import msgspec
import pytest
from tracereel.engine.config import ConfigError, EngineConfig
from tracereel.engine.engine import Engine
from tracereel.engine.online import EngineStoppedError, OnlineEngine
from tracereel.engine.request import Request, RequestError, SamplingParams
from tracereel.trace.check.invariants import check
from tracereel.trace.format.events import Arrival, WorkloadInfo
from tracereel.trace.format.recorder import Recorder, RecordingError

CONFIG = EngineConfig(max_num_seqs=2, max_num_batched_tokens=32, num_blocks=40, block_size=4, max_model_len=64)
IDS = (1, 2, 3)


class Text(str):
    __slots__ = ()


class Unprintable:
    def __repr__(self):
        raise RuntimeError("nothing to show")


ODD = [
    *(
        None,
        True,
        "high",
        "",
        b"x",
        [],
        (),
        {},
        set(),
        object(),
        Text("high"),
        Unprintable(),
        1.5,
        -1.5,
        math.nan,
        math.inf,
        -math.inf,
    ),
    *(-1, -(2**31) - 1, 2**31, 2**40, 2**63, 2**70, 10**400, -(10**400), 10**5000, 1e-300, 1e300),
    *("x" * 600, "hi \ud83d", "\udfff", ("",), ("a\ud800",), (1.0, 2.0), (True,), (-1,), (2**31,), ("1",), [1, 2]),
]
BOUNDS = {
    "id": lambda v: type(v) is str and len(v) <= 512 and not has_half(v),
    "prompt_ids": lambda v: type(v) is tuple and v and all(type(i) is int and 0 <= i < 2**31 for i in v),
    "prompt": lambda v: v is None or (type(v) is str and not has_half(v)),
    "priority": lambda v: type(v) is int and -(2**31) <= v < 2**31,
    "client": lambda v: v is None or (type(v) is str and len(v) <= 512 and not has_half(v)),
    "sampling": lambda v: False,
}
SAMPLING = {
    "max_tokens": lambda v: whole(v, 1),
    "min_tokens": lambda v: whole(v, 0, 128),
    "ignore_eos": lambda v: type(v) is bool,
    "stop": lambda v: type(v) is tuple and all(type(t) is str and t and not has_half(t) for t in v),
    "stop_token_ids": lambda v: type(v) is tuple and all(whole(i, 0) for i in v),
    "temperature": lambda v: number(v) and (v == 0 or 1e-10 <= v <= 1e10),
    "top_k": lambda v: whole(v, 0),
    "top_p": lambda v: number(v) and 0 < v <= 1,
    "min_p": lambda v: number(v) and 0 <= v <= 1,
    "repetition_penalty": lambda v: number(v) and 1e-10 <= v <= 1e10,
    "seed": lambda v: v is None or whole(v, 0, 2**63 - 1),
    "logprobs": lambda v: v is None or whole(v, 0, 64),
}


def has_half(text):
    return any(0xD800 <= ord(char) < 0xE000 for char in text)


def repr_of(value):
    return f"{type(value).__name__} {value:.3g}" if isinstance(value, float) else type(value).__name__


def whole(value, least, most=2**31 - 1):
    return type(value) is int and least <= value <= most


def number(value):
    return type(value) in (int, float) and -math.inf < value < math.inf


SETTINGS = {
    "policy": lambda v: type(v) is str,  # which names there are the policies know
    "max_num_seqs": lambda v: whole(v, 1, 512),
    "max_num_batched_tokens": lambda v: whole(v, 8),
    "num_blocks": lambda v: whole(v, 1),
    "block_size": lambda v: whole(v, 1, 2**20),
    "max_model_len": lambda v: whole(v, 1),
    "enable_prefix_caching": lambda v: type(v) is bool,
    "max_wait_ms": lambda v: whole(v, 1, 86_400_000),
    "batch_invariant": lambda v: type(v) is bool,
}


def test_every_field_of_a_request_has_a_bound_here():
    assert set(BOUNDS) == {field.name for field in dataclasses.fields(Request)}
    assert set(SAMPLING) == {field.name for field in dataclasses.fields(SamplingParams)}
    assert set(SETTINGS) == {field.name for field in dataclasses.fields(EngineConfig)}


@pytest.mark.parametrize("field", SETTINGS)
def test_a_setting_that_cannot_be_is_refused_by_its_name(field):
    for value in ODD:
        if SETTINGS[field](value):
            EngineConfig(**{field: value})
            continue
        with pytest.raises(ConfigError, match=rf"^(max_num_batched_tokens: 512 is less than )?{field}") as caught:
            EngineConfig(**{field: value})
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("field", [*BOUNDS, *SAMPLING])
def test_a_value_that_cannot_be_is_refused_by_the_fields_name(field):
    for value in ODD:
        if field in BOUNDS:
            fits, make = BOUNDS[field], lambda own=value: Request(**{"id": "r", "prompt_ids": IDS, field: own})
        else:
            fits, make = SAMPLING[field], lambda own=value: SamplingParams(**{field: own})
        if fits(value):
            make()
            continue
        with pytest.raises(RequestError, match=rf"(^|: ){field}: ") as caught:
            make()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300


def test_what_a_request_may_hold_a_trace_may_hold(tmp_path):
    # The bounds themselves, recorded and read again.
    path = tmp_path / "run.jsonl"
    with Recorder(path, fakes.header(CONFIG)) as recorder:
        engine = fakes.make_engine(CONFIG, recorder)
        own = SamplingParams(max_tokens=3, min_tokens=3, seed=2**63 - 1)
        for request_id, priority in (("x" * 512, -(2**31)), ("", 2**31 - 1), ("\x00é🎬\n", 0)):
            engine.add(Request(request_id, IDS, own, "é" * 1000, priority))
        while engine.has_work:
            engine.step()
    assert check(path).ok
    assert '"id":"xxx' in path.read_text()


@pytest.mark.parametrize("due", [-5, 10**30, 2**62, 1.0, "now", True, math.nan, -(10**5000)], ids=repr_of)
def test_a_due_time_that_cannot_be_is_refused_by_name(due):
    with OnlineEngine(fakes.make_engine(CONFIG)) as engine:
        good = engine.submit(Request("good", IDS, SamplingParams(5, 5)))
        with pytest.raises(RequestError, match="'bad': arrival_ns: "):
            engine.submit(Request("bad", IDS, SamplingParams(5, 5)), due)
        assert len(list(good)) == 5
    with pytest.raises(RequestError, match="'bad': arrival_ns: "):
        fakes.make_engine(CONFIG).add(Request("bad", IDS, SamplingParams(5, 5)), due)


@pytest.mark.parametrize("thing", [None, "request", 7, IDS])
def test_what_is_no_request_and_no_stream_is_refused_where_it_is_given(thing):
    with OnlineEngine(fakes.make_engine(CONFIG)) as engine:
        good = engine.submit(Request("good", IDS, SamplingParams(5, 5)))
        with pytest.raises(RequestError, match=r"request: .* is not a Request"):
            engine.submit(thing)
        with pytest.raises(RequestError, match=r"stream: .* is not a Stream"):
            engine.cancel([thing])
        assert len(list(good)) == 5


class Unchecked(Request):
    def __post_init__(self):
        pass


def test_a_request_that_was_not_checked_when_it_was_made_is_checked_when_it_is_submitted():
    changed = Request("changed", IDS, SamplingParams(5, 5))
    object.__setattr__(changed, "priority", None)
    longer = Request("longer", IDS, SamplingParams(5, 5))
    object.__setattr__(longer.sampling, "max_tokens", "5")
    with OnlineEngine(fakes.make_engine(CONFIG)) as engine:
        good = engine.submit(Request("good", IDS, SamplingParams(5, 5)))
        for wrong, field in ((Unchecked("own", IDS, priority="high"), "priority"), (changed, "priority")):
            with pytest.raises(RequestError, match=f": {field}: "):
                engine.submit(wrong)
        with pytest.raises(RequestError, match=r"^max_tokens: "):
            engine.submit(longer)
        assert len(list(good)) == 5


def test_wrong_requests_among_right_ones_disturb_nobody(tmp_path):
    rng = random.Random(16)
    path = tmp_path / "run.jsonl"
    refused, streams = 0, []
    recorder = Recorder(path, fakes.header(CONFIG))
    with recorder, OnlineEngine(fakes.make_engine(CONFIG, recorder)) as engine:
        for number in range(150):
            field = rng.choice([*BOUNDS, *SAMPLING, "arrival_ns"]) if number % 3 else "nothing"
            value = rng.choice(ODD)
            own = {field: value} if field in SAMPLING else {}
            try:
                sampling = SamplingParams(**{"max_tokens": 4, **own})
                fields = {"id": str(number), "prompt_ids": (1, number + 1), "sampling": sampling}
                request = Request(**{**fields, **({field: value} if field in BOUNDS else {})})
                due = value if field == "arrival_ns" else None
                streams.append((request, engine.submit(request, due)))
            except (RequestError, ValueError):  # one that never fits is a ValueError too
                refused += 1
        answers = [(request, list(stream), stream.finish_reason) for request, stream in streams]
    assert refused > 50
    assert len(answers) >= 50
    for request, outputs, reason in answers:
        assert reason in ("stop", "length")
        if request.sampling.stop == () and not request.sampling.ignore_eos and not request.sampling.stop_token_ids:
            assert [output.token_id for output in outputs] == fakes.answer(request)
    assert check(path).ok


# Whatever ends the engine's thread


def read(stream, said):
    try:
        said.append(f"{len(list(stream))} tokens, {stream.finish_reason}")
    except Exception as error:
        said.append(f"{type(error).__name__}: {error}")


def ends_of(streams):
    """What each stream's reader was told; fails where one is left waiting."""
    said = [[] for _ in streams]
    threads = [
        threading.Thread(target=read, args=(stream, own), daemon=True)
        for stream, own in zip(streams, said, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert all(said), f"{sum(not own for own in said)} of {len(said)} readers wait for good"
    return [own[0] for own in said]


class Gate(fakes.FakeRunner):
    """Holds a step until it is let through, so that requests pile up in the inbox meanwhile."""

    def __init__(self, config):
        super().__init__(config)
        self.open = threading.Event()
        self.entered = threading.Event()
        self.broken: BaseException | None = None

    def execute(self, plan):
        self.entered.set()
        self.open.wait(10)
        if self.broken is not None:
            raise self.broken
        return super().execute(plan)


def piled_up(break_it, recorder=None):
    """Streams of requests of which some are with the engine and some still in the inbox when `break_it` is called."""
    runner = Gate(CONFIG)
    engine = Engine(runner, CONFIG, new_stream=fakes.FakeText, recorder=recorder)
    online = OnlineEngine(engine)
    online.start()
    streams = [online.submit(Request("first", IDS, SamplingParams(9, 9)))]
    assert runner.entered.wait(10)
    streams += [online.submit(Request(str(number), IDS, SamplingParams(9, 9))) for number in range(5)]
    break_it(engine, runner)
    runner.open.set()
    return online, streams


def broken_step(error):
    def break_it(engine, runner):
        runner.broken = error

    return break_it


def broken_order(engine, runner):
    engine.scheduler.add = lambda *_: 1 < "2"


def broken_text(engine, runner):
    def no_text():
        raise MemoryError

    engine._new_stream = no_text


def broken_policy(engine, runner):
    engine.scheduler.ready_ns = lambda now_ns: {}["nothing"]


@pytest.mark.parametrize(
    ("break_it", "what"),
    [
        (broken_step(RuntimeError("the device\nis gone")), "the device"),
        (broken_step(SystemExit(3)), "3"),
        (broken_step(KeyboardInterrupt()), "KeyboardInterrupt"),
        (broken_order, "not supported between"),
        (broken_text, "MemoryError"),
        (broken_policy, "nothing"),
    ],
    ids=["step", "exit", "interrupt", "order", "text", "policy"],
)
def test_whatever_ends_the_thread_every_stream_is_told(break_it, what):
    online, streams = piled_up(break_it)
    for said in ends_of(streams):
        assert said.startswith("EngineStoppedError: the engine failed: ")
        assert what in said
    assert ends_of(streams) == ends_of(streams), "and whoever asks again"
    with pytest.raises(EngineStoppedError):
        online.submit(Request("late", IDS))
    with pytest.raises(EngineStoppedError, match="the engine failed"):
        online.stop()


def test_a_recorder_that_stops_between_two_arrivals_leaves_nobody_waiting(tmp_path):
    recorder = Recorder(tmp_path / "run.jsonl", fakes.header(CONFIG))

    def full_disk(engine, runner):
        recorder._fail("the recording was cut off (No space left on device)")

    online, streams = piled_up(full_disk, recorder)
    assert all("No space left on device" in said for said in ends_of(streams))
    with pytest.raises(EngineStoppedError, match="No space left"):
        online.stop()
    recorder.abandon()


def test_an_engine_whose_recorder_failed_has_not_half_added_the_request(tmp_path):
    recorder = Recorder(tmp_path / "run.jsonl", fakes.header(CONFIG))
    engine = fakes.make_engine(CONFIG, recorder)
    recorder._fail("the recording was cut off (No space left on device)")
    with pytest.raises(RecordingError):
        engine.add(Request("r", IDS, SamplingParams(5, 5)))
    assert not engine.has_work
    recorder.abandon()


def test_a_request_that_the_engine_refuses_after_all_ends_alone():
    engine = fakes.make_engine(CONFIG)
    add = engine.add

    def refusing(request, arrival_ns=None):
        if request.id == "bad":
            raise RequestError("request 'bad': id: is not wanted")
        return add(request, arrival_ns)

    engine.add = refusing
    with OnlineEngine(engine) as online:
        streams = [online.submit(Request(name, IDS, SamplingParams(4, 4))) for name in ("a", "bad", "b")]
        first, bad, last = ends_of(streams)
        assert (first, last) == ("4 tokens, length", "4 tokens, length")
        assert bad == "RequestError: request 'bad': id: is not wanted"
        assert streams[1].finish_reason == "error"


def test_cancelling_twice_at_once_is_cancelling():
    def cancel_twice(engine, runner):
        pass

    online, streams = piled_up(cancel_twice)
    for stream in (streams[2], streams[2], streams[0], streams[0]):
        online.cancel(stream)
    said = ends_of(streams)
    assert said[2].endswith("abort")
    assert [own for own in said if own == "9 tokens, length"] == ["9 tokens, length"] * 4
    online.stop()


@pytest.mark.slow
def test_all_that_are_cancelled_before_they_run_end_as_cancelled_and_the_others_in_full():
    runner = Gate(CONFIG)
    online = OnlineEngine(Engine(runner, CONFIG, new_stream=fakes.FakeText))
    online.start()
    first = online.submit(Request("first", IDS, SamplingParams(9, 9)))
    assert runner.entered.wait(10)  # its step does not end before the gate is opened
    streams = [online.submit(Request(str(number), IDS, SamplingParams(9, 9))) for number in range(200)]
    for stream in streams[::2]:
        online.cancel(stream)
    runner.open.set()
    said = ends_of([first, *streams])
    online.stop()
    assert said == ["9 tokens, length", *["0 tokens, abort", "9 tokens, length"] * 100]


def test_a_stream_with_several_readers_ends_for_each():
    with OnlineEngine(fakes.make_engine(CONFIG)) as online:
        stream = online.submit(Request("r", IDS, SamplingParams(9, 9)))
        said = ends_of([stream] * 4)
        assert sum(int(own.split()[0]) for own in said) == 9
        assert list(stream) == []
        assert stream.finish_reason == "length"


def test_an_engine_that_was_stopped_before_it_began_takes_nothing():
    online = OnlineEngine(fakes.make_engine(CONFIG))
    online.stop()
    with pytest.raises(EngineStoppedError, match="stopped before"):
        online.start()
    with pytest.raises(EngineStoppedError):
        online.submit(Request("r", IDS))


def test_an_engine_without_a_thread_to_be_had_takes_nothing(monkeypatch):
    online = OnlineEngine(fakes.make_engine(CONFIG))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("can't start")))
        with pytest.raises(RuntimeError):
            online.start()
    with pytest.raises(EngineStoppedError):
        online.submit(Request("r", IDS))
    online.start()
    assert len(list(online.submit(Request("r", IDS, SamplingParams(2, 2))))) == 2
    online.stop()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_is_told_that_nothing_runs_there():
    with OnlineEngine(fakes.make_engine(CONFIG)) as online:
        time.sleep(0.02)
        child = os.fork()
        if child == 0:
            try:
                online.submit(Request("r", IDS))
            except EngineStoppedError:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert len(list(online.submit(Request("r", IDS, SamplingParams(2, 2))))) == 2


# The writer


def test_a_header_that_no_reader_takes_is_refused_before_anything_is_written(tmp_path):
    for header in (
        msgspec.structs.replace(fakes.header(CONFIG), workload=WorkloadInfo(name="x" * 600)),
        msgspec.structs.replace(fakes.header(CONFIG), workload=WorkloadInfo(name="w", seed=2**63)),
        msgspec.structs.replace(fakes.header(CONFIG), policy="half \ud83d"),
        msgspec.structs.replace(fakes.header(CONFIG), slots=0),
    ):
        with pytest.raises(RecordingError, match="header record: "):
            Recorder(tmp_path / "run.jsonl", header)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "x" * 600),
        ("id", "\ud83d"),
        ("priority", 2**40),
        ("arrival_ns", -5),
        ("arrival_ns", 2**70),
        ("id", 7),
        ("prompt", object()),
    ],
)
def test_a_record_that_no_reader_takes_stops_the_recording_where_it_stands(tmp_path, field, value):
    good = Arrival(request=0, id="a", arrival_ns=0, submitted_ns=1, prompt_tokens=1)
    recorder = Recorder(tmp_path / "run.jsonl", fakes.header(CONFIG))
    recorder.record(good)
    recorder.record(msgspec.structs.replace(good, request=1, **{field: value}))
    with pytest.raises(RecordingError, match="arrival record: "):
        recorder.close()
    (left,) = tmp_path.iterdir()
    assert left.read_text().count("\n") == 2, "what came before it is kept"
