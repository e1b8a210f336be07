"""What `check` asks besides lifecycle, slots and blocks: limits, the header's word, phases, padding, device times."""

import json
from pathlib import Path

import fakes
import pytest
from tracereel.trace.check.invariants import check
from tracereel.trace.format.events import RunInfo

H100 = Path(__file__).resolve().parent / "data" / "h100" / "film" / "continuous-2.jsonl.zst"


def read(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def found(tmp_path, records) -> list[str]:
    path = tmp_path / "changed.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    fakes.seal(path)
    return [f"{violation.rule}: {violation.message}" for violation in check(path).violations]


@pytest.fixture
def records(tmp_path):
    path = tmp_path / "run.jsonl"
    fakes.record_small_run(path, run=RunInfo(suite="test", case="continuous", repeat=0, repeats=1))
    assert check(path).ok
    return read(path)


def outputs(records, request):
    return sum(
        sampled
        for record in records
        if record["event"] == "step"
        for member, sampled in zip(record["requests"], record["sampled"], strict=True)
        if member == request
    )


def ended(records, reason):
    return next(
        e["request"] for r in records if r["event"] == "step" for e in r.get("finished", []) if e["reason"] == reason
    )


def test_no_more_output_than_max_tokens(records, tmp_path):
    request = ended(records, "length")
    count = outputs(records, request)
    arrival = next(r for r in records if r["event"] == "arrival" and r["request"] == request)
    assert arrival["max_tokens"] == count
    arrival["max_tokens"] = count - 1
    assert found(tmp_path, records) == [
        f"tokens: request {request} has {count} output tokens, its max_tokens is {count - 1}"
    ]


def test_an_end_by_length_has_that_length(records, tmp_path):
    request = ended(records, "length")
    count = outputs(records, request)
    arrival = next(r for r in records if r["event"] == "arrival" and r["request"] == request)
    arrival["max_tokens"] = count + 3
    said = found(tmp_path, records)
    assert said == [f"tokens: request {request} ends by length with {count} of {count + 3} output tokens"]
    # A sequence that is as long as the model takes ends by length too.
    records[0].setdefault("config", {})["max_model_len"] = arrival["prompt_tokens"] + count
    assert not [line for line in found(tmp_path, records) if f"request {request} " in line]


def test_the_headers_word_is_compared(records, tmp_path):
    records[0]["workload"]["requests"] = 24
    assert found(tmp_path, records) == ["counts: the header's workload has 24 requests, the file holds 12"]
    del records[0]["workload"]["requests"]
    records[0]["run"]["repeat"] = 1
    assert found(tmp_path, records) == ["lifecycle: repeat 1 (from 0) of 1 repeats"]


def test_a_decode_is_no_prefill(records, tmp_path):
    step = next(
        r
        for r in records
        if r["event"] == "step" and "P" not in r["phases"] and not r.get("admitted") and r["requests"]
    )
    step["phases"] = "P" + step["phases"][1:]
    said = found(tmp_path, records)
    assert len(said) == 1
    assert said[0].startswith(f"tokens: request {step['requests'][0]} prefills at position")
    assert "that is a decode" in said[0]


def test_padding_is_within_the_slots(records, tmp_path):
    step = next(r for r in records if r["event"] == "step" and r["phases"] and "P" not in r["phases"])
    step["padding"] = records[0]["slots"] - len(step["requests"])
    assert found(tmp_path, records) == []
    step["padding"] += 1
    assert found(tmp_path, records) == [f"slots: step {step['index']} has 5 rows with its padding for 4 slots"]


def test_device_times_are_such_as_the_host_could_have_seen(records, tmp_path):
    steps = [record for record in records if record["event"] == "step"]
    for i, step in enumerate(steps):
        step |= {
            "start_ns": (10 + i) * 10**8,
            "end_ns": (11 + i) * 10**8,
            "device_ns": 10**7,
            "device_gap_ns": 9 * 10**7,
        }
        step.pop("scheduled_ns", None)
    for record in records:
        if record["event"] == "arrival":
            record["submitted_ns"] = record["arrival_ns"] = 0
        if record["event"] in ("finish", "end"):
            record["at_ns"] = 10**11
    assert found(tmp_path, records) == []
    steps[0]["device_gap_ns"] = 2 * 10**9
    assert found(tmp_path, records) == ["times: device_gap_ns of step 0 reaches before time 0"]
    steps[0]["device_gap_ns"] = 9 * 10**7
    # The device would have been done with later steps before they were scheduled.
    for step in steps[5:15]:
        step["device_gap_ns"] = 0
    said = found(tmp_path, records)
    assert said
    assert all(line.startswith("times: by the device's times step ") for line in said)


def test_an_h100s_first_gap_reaches_before_the_recording():
    (violation,) = check(H100).violations
    assert str(violation).endswith("times: device_gap_ns of step 0 reaches before time 0")
