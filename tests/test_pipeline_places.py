"""Places of the pipeline: each request has one, whatever their number, none on another or outside its stage."""

from itertools import combinations, pairwise

import pytest
from tracereel.film.components.pipeline_places import Places
from tracereel.film.frames import BeatFrames
from tracereel.film.layout import Kind
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.stage import Stage
from tracereel.film.storyboards import storyboard

SHAPES = {"wide": (854, 480), "tall": (480, 854), "square": (480, 480)}


def overlap(one, other):
    return one.x < other.right and other.x < one.right and one.y < other.bottom and other.y < one.bottom


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("slots", "requests"), [(1, 3), (8, 48), (64, 384), (256, 1000)])
def test_every_request_has_a_place_of_its_own(shape, slots, requests):
    places = Places(Stage.of_pixels(*SHAPES[shape]), [slots], requests, requests, 80.0)
    fields = {
        "waiting": (places.waiting, [places.waiting_at(i) for i in range(requests)]),
        "prefill": (places.prefill, [places.slots[slot].prefill for slot in range(slots)]),
        "decode": (places.decode, [places.slots[slot].decode for slot in range(slots)]),
        "ended": (places.ended, [places.ended_at(i) for i in range(requests)]),
    }
    for name, (stage, boxes) in fields.items():
        for box in boxes:
            assert stage.x - 1 <= box.x, name
            assert box.right <= stage.right + 1, name
            assert stage.y - 1 <= box.y, name
            assert box.bottom <= stage.bottom + 1, name
        near = boxes if len(boxes) <= 256 else boxes[:128] + boxes[-128:]
        assert not any(overlap(one, other) for one, other in combinations(near, 2)), name


@pytest.mark.parametrize("shape", SHAPES)
def test_words_are_kept_where_they_fit(shape):
    few = Places(Stage.of_pixels(*SHAPES[shape]), [8], 4, 8, 80.0)
    assert all(slot_place.lettered for slot_place in few.slots.values())
    assert few.queue_tiles is None
    assert few.ended_tiles is None
    many = Places(Stage.of_pixels(*SHAPES[shape]), [64], 320, 384, 80.0)
    assert 1 <= sum(slot_place.lettered for slot_place in many.slots.values()) < 64
    assert 1 <= many.cards < 320


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_the_words_of_a_card_on_its_way_do_not_overlap(shape):
    show = Show(Settings(device="cuda"), SHAPES[shape])
    (beat,) = storyboard("pipeline_flow", show)
    drawn = []
    frames, beside = BeatFrames(beat, show, watch=drawn.append), 0
    for i in range(40):  # while a request takes the slot that another has left
        drawn.clear()
        frames.at(beat.still_s + i / 40)
        for one, other in pairwise(drawn):
            if one.kind is other.kind is Kind.TEXT and one.moving and other.moving and one.sides[0] < other.sides[0]:
                beside += 1
                assert one.sides[2] + 4 <= other.sides[0], f"{one} and {other}"
    assert beside


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_batch_is_half_full_while_it_is_said_that_every_step_writes(device):
    """With requests that come by the clock one row alone wrote for nine seconds, in a table of eight."""
    (beat,) = storyboard("pipeline_flow", Show(Settings(device=device), SHAPES["wide"]))
    run = beat.runs[0]
    written = beat.captions[2].from_s + 4.2
    assert 2 * run.timeline.at(beat.clock.engine_ns(written)).num_running >= run.trace.header.slots
