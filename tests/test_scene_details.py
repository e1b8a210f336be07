"""What a stranger asks of single scenes: whose row is it, when was it done, why does it wait, what is the mark?"""

from pathlib import Path

import pytest
from films import SIZES, drawn_by
from tracereel.film.frames import BeatFrames
from tracereel.film.layout import Kind
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import storyboard
from tracereel.film.theme import LABEL_LINE

pytestmark = pytest.mark.slow

H100 = Path(__file__).parent / "data" / "h100"
SHOWS = {"cpu": Settings(device="cpu"), "cuda": Settings(device="cuda"), "h100": Settings(recordings=H100)}
"""With 8 slots and 64, the continuous run faster and slower."""


@pytest.fixture(params=SHOWS)
def show(request):
    return Show(SHOWS[request.param], SIZES["wide"])


def said(name, show, at_s):
    """(Beat, every phrase of a scene's frame at a second; before its end where it is negative)."""
    (beat,) = storyboard(name, show)
    phrases = []
    frames = BeatFrames(beat, show, note=lambda phrase, text: phrases.append(phrase))
    frames.said_at(at_s if at_s >= 0 else beat.clock.film_s + at_s)
    return beat, phrases


def texts(phrases):
    return [phrase.text for phrase in phrases]


def test_close_up_each_row_has_the_name_of_the_request_that_holds_it(show):
    (beat,) = storyboard("decode_batching", show)
    board = beat.picture.__self__
    run, slots = board.run, board.close_slots
    for film_s in (0.5, board.ends_s - 0.5, board.retaken_s + 2.0):
        phrases = []
        BeatFrames(beat, show, note=lambda phrase, text, found=phrases: found.append(phrase)).said_at(film_s)
        state = run.timeline.at(beat.clock.engine_ns(film_s))
        for occupant in state.occupancy[:slots]:
            if occupant is not None:
                assert run.measure("request_name", request=occupant.request).value in texts(phrases)


def test_who_ended_is_seen_to_have_held_the_row_and_who_came_to_hold_it(show):
    (beat,) = storyboard("decode_batching", show)
    board = beat.picture.__self__
    rows = board.grid.rows(show.stage.content, board.close_slots)
    assert board.handover.slot < len(rows)
    left, came = (
        board.run.measure("request_name", request=request).value
        for request in (board.handover.left, board.handover.came)
    )
    before, after = (said("decode_batching", show, at)[1] for at in (board.ends_s - 0.5, board.retaken_s + 2.0))
    assert left in texts(before)
    assert came in texts(after)


def test_a_run_that_is_done_says_when_on_the_axis(show):
    beat, before = said("throughput_comparison", show, 0.5)
    _, after = said("throughput_comparison", show, -0.1)
    first = min(beat.runs, key=lambda run: run.timeline.end_ns - run.timeline.begin_ns)
    digest = first.trace.digest

    def ends(phrases):
        found = [f.source for phrase in phrases for f in phrase.figures if f.source.query == "span_s"]
        return {trace for source in found for trace in source.traces}

    assert digest not in ends(before)
    assert digest in ends(after)


def test_why_the_next_in_line_waits_is_said_only_of_a_closed_batch(show):
    (beat,) = storyboard("you_are", show)
    board = beat.picture.__self__
    seen = 0
    for i in range(int(board.done_s * 4)):
        phrases = []
        BeatFrames(beat, show, note=lambda phrase, text, found=phrases: found.append(phrase)).said_at(i / 4)
        closed = [phrase for phrase in phrases if any(stated.key == "you_are.closed" for stated in phrase.stated)]
        t_ns = beat.clock.engine_ns(i / 4) + board._shift(board.static)
        state = board.static.timeline.at(t_ns)
        due = state.waiting[:1] == (board.request,) and None in state.occupancy
        assert bool(closed) == due, i / 4
        seen += due
    assert seen or show.settings is not SHOWS["cuda"]


def test_steps_are_called_fuller_where_they_are(show):
    beat, phrases = said("speedup_waterfall", show, -0.1)
    fuller = beat.runs[0].metrics.mean_batch < beat.runs[1].metrics.mean_batch
    names = texts(phrases)
    assert ("Fuller steps" in names) == fuller
    assert ("Other steps" in names) != fuller


def test_the_mark_of_static_batching_has_its_name_and_the_spread_stands_under_its_pairs(show):
    _, _, frames = drawn_by("cut_out_the_red", SIZES["wide"], show.settings, rate=1)
    things = {thing.name: thing for thing in frames[-1] if thing.kind is Kind.TEXT}
    dots = [thing for thing in frames[-1] if thing.kind is Kind.DISC]
    static, spread = things["Static"], next(thing for name, thing in things.items() if "pairs" in name and "to" in name)
    (mark,) = [
        thing
        for thing in frames[-1]
        if thing.kind is Kind.LINE and static.sides[3] < thing.sides[3] and thing.sides[2] - thing.sides[0] < 12
        if static.sides[0] <= thing.sides[0] <= static.sides[2] and thing.sides[1] < dots[0].sides[3]
    ]
    assert mark.sides[1] >= static.sides[3]
    low, high = min(dot.sides[0] for dot in dots), max(dot.sides[2] for dot in dots)
    assert spread.sides[0] < high
    assert spread.sides[2] > low


def test_the_films_name_stands_alone(show):
    _, before = said("two_of_eight", show, 5.0)
    beat, phrases = said("two_of_eight", show, -0.2)
    assert beat.title in before
    assert beat.title not in phrases


@pytest.mark.parametrize("shape", SIZES)
def test_a_bar_of_a_stall_keeps_within_its_row(shape):
    show = Show(Settings(device="cpu"), SIZES[shape])
    (beat,) = storyboard("chunked_prefill", show)
    board = beat.picture.__self__
    for place in board.places():
        for row in board.parts(place)[2].rows(3, 0):
            bar = board.bar(row, 320.0, 1.0)
            if bar is not None:
                assert row.y + LABEL_LINE - 30 <= bar.y
                assert bar.bottom <= row.y + LABEL_LINE + 4
                assert bar.right <= row.right - 140
