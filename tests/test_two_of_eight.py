"""The film's first seconds: a static batch that empties while requests wait, counted; and who takes the freed slot."""

import json

import pytest
import zstandard
from tracereel.film.beats.two_of_eight import _ColdOpen, first_batch
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.trace.analysis.queries import Run


def records(path):
    with zstandard.open(path, "rt") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize(("case", "expected"), [("static-1", 3085), ("continuous-1", 5)])
def test_idle_while_waiting_counts_the_steps_that_left_requests_in_the_queue(film_recordings, case, expected):
    path = film_recordings / f"{case}.jsonl.zst"
    rows = records(path)
    slots = rows[0]["slots"]
    steps = [row for row in rows if row["event"] == "step"]
    by_hand = sum(slots - len(step["requests"]) for step in steps if step["waiting"])
    run = Run.read(path)
    assert by_hand == expected
    assert run.measure("idle_while_waiting", t_ns=run.timeline.end_ns).value == by_hand
    half = run.trace.steps.end_ns[len(steps) // 2]
    early = sum(slots - len(s["requests"]) for s in steps if s["waiting"] and s["end_ns"] <= half)
    assert run.measure("idle_while_waiting", t_ns=int(half)).value == early


def test_few_slots_still_write_while_requests_wait(film_recordings):
    run = Run.read(film_recordings / "static-1.jsonl.zst")
    batch = first_batch(run)
    state = run.timeline.at(batch.later_ns)
    assert 1 <= state.num_running <= 2
    assert state.num_waiting == 40
    assert all(seat is not None and seat.output_tokens for seat in run.timeline.at(batch.begin_ns).occupancy)
    assert sorted(batch.slots) == list(range(8))


def test_the_card_that_moves_is_the_one_that_took_that_slot_in_the_continuous_run():
    scene = _ColdOpen(Show(Settings(), (854, 480)))
    handover = scene.handover
    assert handover is not None
    assert scene.run.timeline.at(scene.batch.later_ns).waiting[0] == handover.came
    steps = scene.other.trace.steps
    members = steps.members(handover.taken_step)
    entry = steps.member_request[members].tolist().index(handover.came)
    assert steps.member_slot[members][entry] == handover.slot
    before = steps.members(handover.taken_step - 1)
    assert handover.left in steps.member_request[before].tolist()
