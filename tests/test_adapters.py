"""What the adapters share: steps put in order, requests numbered and seated. The engines themselves: tests/engines."""

import ast
import hashlib
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import tracereel.engine.adapters.vllm
from hypothesis import given, settings
from hypothesis import strategies as st
from tracereel.engine.adapters.export import Note, read_note
from tracereel.engine.adapters.in_flight import Counts, InFlightSteps
from tracereel.engine.adapters.journal import Journal, Member, Moment
from tracereel.trace.check.invariants import check
from tracereel.trace.format.events import (
    SCHEMA_VERSION,
    Admission,
    DeviceInfo,
    Ending,
    EngineInfo,
    Header,
    ModelInfo,
    WorkloadInfo,
    decoder,
    encoder,
)
from tracereel.trace.format.recorder import Recorder, start_clock


def arrive(journal: Journal, key: str, prompt_tokens: int = 4, at_ns: int = 0):
    return journal.arrive(key, id=key, arrival_ns=at_ns, submitted_ns=at_ns, prompt_tokens=prompt_tokens, text=str)


def moment(n: int = 0) -> Moment:
    return Moment(start_ns=10 * n, end_ns=10 * n + 10)


def test_slots_are_stable_and_the_lowest_free_one_is_taken():
    journal = Journal(3)
    for key in "abcd":
        arrive(journal, key)
    first = journal.step(moment(), [Member(key, 0, 4, tokens=[7]) for key in "abc"])
    assert first.slots == [0, 1, 2]
    assert (first.waiting, first.running) == (1, 3)
    second = journal.step(moment(1), [Member("c", 4, 1, tokens=[8], reason="stop"), Member("a", 4, 1, tokens=[8])])
    assert second.slots == [2, 0]
    assert second.finished == [Ending(request=2, reason="stop")]
    third = journal.step(moment(2), [Member("d", 0, 4, tokens=[9])], preempted={"a"})
    assert third.preempted == [0]
    assert third.admitted == [Admission(request=3, slot=0)]
    assert journal.step(moment(3), [Member("a", 2, 3)]).admitted == [Admission(request=0, slot=2, cached=2)]


def test_a_member_that_had_ended_is_padding_and_none_twice():
    journal = Journal(2)
    arrive(journal, "a")
    arrive(journal, "b")
    journal.step(moment(), [Member("a", 0, 4, tokens=[1]), Member("b", 0, 4, tokens=[1], reason="length")])
    step = journal.step(moment(1), [Member("a", 4, 1, tokens=[2]), Member("b", 4, 1)])
    assert step.requests == [0]
    assert step.padding == 1
    assert journal.leave("b", 30, "abort") is None
    finish = journal.leave("a", 30, "abort")
    assert finish is not None
    assert finish.reason == "abort"
    assert journal.step(moment(2), [Member("a", 5, 1)]).padding == 1


def test_drafts_belong_to_decodes_and_are_padding_where_a_prompt_still_fills():
    journal = Journal(1, drafts=True)
    arrive(journal, "a")
    # All but one token of the prompt are cached; the engine pads the step to the width of its drafts.
    step = journal.step(moment(), [Member("a", 3, 4, drafted=3, tokens=[5])])
    assert (step.phases, step.computed, step.drafted, step.padding) == ("P", [1], [0], 3)
    step = journal.step(moment(1), [Member("a", 4, 4, drafted=3, tokens=[6, 7])])
    assert (step.phases, step.computed, step.drafted, step.sampled) == ("D", [4], [3], [2])


def test_content_can_be_left_out():
    journal = Journal(1, content=False)
    arrival = journal.arrive(
        "a", id="a", arrival_ns=0, submitted_ns=0, prompt_tokens=2, prompt="secret", text=lambda token: "secret"
    )
    step = journal.step(moment(), [Member("a", 0, 2, tokens=[5])])
    assert arrival.prompt is None
    assert step.tokens is None
    assert step.texts is None
    assert step.sampled == [1]


def test_arrivals_are_put_right_where_two_clocks_disagree():
    arrival = Journal(1).arrive("a", id="a", arrival_ns=-5, submitted_ns=3, prompt_tokens=1)
    assert arrival.arrival_ns == 0
    late = Journal(1).arrive("a", id="a", arrival_ns=9, submitted_ns=3, prompt_tokens=1)
    assert late.arrival_ns == 3


def test_steps_that_overlap_are_put_one_after_the_other():
    in_flight = InFlightSteps(ahead=True)
    nothing = Counts(0, 5, 0)
    in_flight.scheduled("one", 0, 10, nothing, Counts(3, 2, 6))
    in_flight.scheduled("two", 12, 20, Counts(3, 2, 6), Counts(4, 1, 8))
    in_flight.scheduled("three", 22, 30, Counts(4, 1, 8), Counts(5, 0, 11))
    # The first step ends: two of its requests end and give back three blocks.
    one = in_flight.completed(100, Counts(3, 0, 8))
    two = in_flight.completed(150, Counts(3, 0, 8))
    moments = [one.moment(100, 0), two.moment(150, 0), in_flight.completed(160, Counts(0, 0, 0)).moment(160, 0)]
    assert [(at.start_ns, at.end_ns, at.latency_ns) for at in moments] == [
        (10, 100, 100),
        (100, 150, 138),
        (150, 160, 138),
    ]
    # The second began with what its own schedule had changed, but not yet with what the third's had.
    assert [(at.running, at.waiting, at.kv_used) for at in moments] == [(3, 2, 6), (2, 1, 5), (3, 0, 8)]


def test_a_step_without_overlap_begins_with_its_schedule():
    in_flight = InFlightSteps(ahead=False)
    in_flight.scheduled("one", 5, 10, Counts(0, 1, 0), Counts(1, 0, 2))
    at = in_flight.completed(100, None).moment(100, 5)
    assert (at.start_ns, at.scheduled_ns, at.end_ns, at.latency_ns) == (0, 5, 95, None)
    assert (at.running, at.waiting, at.kv_used) == (1, 0, 2)


def test_counts_that_steps_in_flight_need_are_not_made_up():
    in_flight = InFlightSteps(ahead=True)
    for plan in ("one", "two", "three"):
        in_flight.scheduled(plan, 0, 10, None, Counts(1, 0, 2))
    with pytest.raises(ValueError, match="more steps are in flight"):
        in_flight.completed(100, Counts(1, 0, 2))
    assert in_flight.completed(110, Counts(1, 0, 1)).counts == Counts(1, 0, 2)
    in_flight.scheduled("four", 20, 30, None, Counts(1, 0, 2))
    with pytest.raises(ValueError, match="does not schedule ahead"):
        in_flight.completed(120, None)


def header(slots: int) -> Header:
    return Header(
        schema=SCHEMA_VERSION,
        engine=EngineInfo(name="test", version="0"),
        policy="continuous",
        slots=slots,
        model=ModelInfo(name="none", weights="random", dtype="fp32"),
        device=DeviceInfo(kind="cpu", name="test"),
        workload=WorkloadInfo(name="test"),
        clock=start_clock(),
    )


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.data())
def test_whatever_is_told_in_order_makes_a_valid_trace(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    slots = data.draw(st.integers(1, 4))
    journal = Journal(slots)
    path = tmp_path_factory.mktemp("journal") / "run.jsonl"
    computed: dict[str, int] = {}
    known: dict[str, int] = {}
    running: list[str] = []
    with Recorder(path, header(slots)) as recorder:
        for n in range(data.draw(st.integers(1, 12))):
            for _ in range(data.draw(st.integers(0, 2))):
                key = f"r{len(known)}"
                known[key] = data.draw(st.integers(1, 9))
                recorder.record(arrive(journal, key, known[key], 10 * n))
            preempted = set(data.draw(st.lists(st.sampled_from(running), unique=True))) if running else set()
            running = [key for key in running if key not in preempted]
            for key in preempted:
                computed.pop(key)
            fresh = [key for key in known if journal.knows(key) and key not in running][: slots - len(running)]
            running += fresh
            members = []
            for key in running:
                done = computed.get(key, 0)
                width = data.draw(st.integers(1, known[key] - done))
                tokens = [n] if done + width == known[key] else []
                ends = bool(tokens) and data.draw(st.booleans())
                members.append(Member(key, done, width, tokens=tokens, reason="stop" if ends else None))
                computed[key] = done + width
                known[key] += len(tokens)
            running = [m.key for m in members if m.reason is None]
            recorder.record(journal.step(Moment(start_ns=10 * n, end_ns=10 * n + 9), members, preempted))
            if running and data.draw(st.booleans()):
                gone = running.pop()
                finish = journal.leave(gone, 10 * n + 9, "abort")
                assert finish is not None
                recorder.record(finish)
    report = check(path)
    assert report.ok, report.violations


def test_a_note_is_believed_only_for_the_weights_it_speaks_of(tmp_path: Path):
    assert read_note(tmp_path) is None
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    good = Note("tiny", "ab" * 32, "llama", 7, hashlib.sha256(b"weights").hexdigest())
    (tmp_path / "tracereel.json").write_bytes(msgspec.json.encode(good))
    assert read_note(tmp_path) == good
    weights.write_bytes(b"others")
    assert read_note(tmp_path) is None


def test_records_made_later_stand_in_their_turn(tmp_path: Path):
    journal = Journal(1)
    path = tmp_path / "later.jsonl"
    with Recorder(path, header(1)) as recorder:
        recorder.record_later(lambda: [arrive(journal, "a")])
        recorder.record_later(lambda: [journal.step(moment(), [Member("a", 0, 4, tokens=[1], reason="stop")])])
    assert check(path).ok


def test_an_adapter_knows_the_trace_and_its_own_engine_alone():
    package = Path(tracereel.engine.adapters.__file__).parent
    engines = {path.parent.name for path in package.glob("*/__init__.py")}
    for path in package.rglob("*.py"):
        own = path.relative_to(package).parts[0]
        for name in imports_of(path):
            if name.startswith("tracereel."):
                assert name.startswith(("tracereel.trace", "tracereel.engine.adapters")), f"{path} imports {name}"
            for other in engines:
                if name.split(".")[0] == other:
                    assert own in (other, "export.py"), f"{path} imports {name}"
            parts = name.split(".")
            if parts[:3] == ["tracereel", "engine", "adapters"] and parts[3:] and parts[3] in engines:
                assert parts[3] == own, f"{path} imports {name}"


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("module", ["vllm", "vllm.plugin", "vllm.settings", "session"])
def test_vllms_plugin_is_found_without_vllm_and_without_torch(module):
    code = (
        f"import sys, tracereel.engine.adapters.{module} as found;"
        "sys.exit(any(name in sys.modules for name in ('vllm', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert callable(tracereel.engine.adapters.vllm.scheduler)


@pytest.mark.parametrize("own_id", ["x" * 600, "\ud83d", "é" * 513, "x" * 599 + "y"])
def test_what_another_engine_has_taken_is_recorded_within_a_traces_bounds(own_id):
    journal = Journal(1)
    known = {"arrival_ns": 0, "submitted_ns": 1, "prompt_tokens": 3}
    arrival = journal.arrive("k", id=own_id, prompt="half \ud83d", priority=2**40, **known)
    assert decoder.decode(encoder.encode(arrival)) == arrival
    assert arrival.id != journal.arrive("l", id=own_id + "z", **known).id
    assert journal.arrive("m", id="short", prompt="whole", **known).prompt == "whole"
