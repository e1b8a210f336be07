"""The film's first seconds: a static batch that empties while requests wait, counted; and who takes the freed slot."""

import dataclasses
import json
from pathlib import Path

import pytest
import zstandard
from drawing import LOOK, SIZE, draw, near, pixel
from tracereel.film.beats.two_of_eight import _MAP, _ColdOpen, first_batch
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.stage import Box
from tracereel.film.theme import COUNTED, IDLE_SLOT
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
    assert all(
        occupant is not None and occupant.output_tokens for occupant in run.timeline.at(batch.begin_ns).occupancy
    )
    assert sorted(batch.slots) == list(range(8))


@pytest.mark.slow
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


@pytest.mark.slow
def test_of_many_slots_all_are_drawn_small_and_some_are_spelled_out():
    show = Show(dataclasses.replace(Settings(), recordings=Path(__file__).parent / "data" / "h100"), SIZE)
    scene = _ColdOpen(show)
    second = scene.move_s - 0.3
    t_ns = scene.clock.engine_ns(second)
    picture, phrases = draw(lambda canvas: scene.paint(canvas, second), SIZE)
    _, rows = scene.places()
    box = Box(rows.x, rows.y + COUNTED, rows.w, _MAP)
    idle = 0
    for cell, occupant in zip(scene.map.cells(box), scene.run.timeline.at(t_ns).occupancy, strict=True):
        want = IDLE_SLOT if occupant is None else show.colours()[occupant.request]
        assert near(pixel(picture, cell.x + cell.w / 2, cell.y + cell.h / 2), LOOK(want))
        idle += occupant is None
    assert idle == 64 - scene.run.timeline.at(t_ns).num_running
    assert sum(phrase.text == show.say.say("two_of_eight.idle").text for phrase in phrases) <= 8


@pytest.mark.slow
def test_eight_slots_need_no_map():
    assert _ColdOpen(Show(Settings(device="cpu"), SIZE)).map is None
