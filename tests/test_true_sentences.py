"""A scene's heading and sentences hold of the runs that it shows, whichever run is faster."""

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from drawing import SIZE, draw
from tracereel.film.components.distribution import Axis
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import storyboard
from tracereel.trace.analysis.latency import Latencies
from tracereel.trace.analysis.queries import split

SLOWER = dataclasses.replace(Settings(), recordings=Path(__file__).parent / "data" / "h100")


@pytest.mark.slow
@pytest.mark.parametrize("settings", [Settings(), SLOWER])
def test_a_speed_up_is_named_only_where_there_is_one(settings):
    show = Show(settings, SIZE)
    (beat,) = storyboard("speedup_waterfall", show)
    faster = split(*beat.runs).speedup > 1
    assert (beat.title == show.say.say("speedup_waterfall.name")) is faster
    assert faster is (settings is not SLOWER)


@pytest.mark.slow
def test_an_axis_that_is_logarithmic_says_so():
    show = Show(SLOWER, SIZE)
    (beat,) = storyboard("latency", show)
    _, phrases = draw(lambda canvas: beat.picture(canvas, 5.0), SIZE)
    assert show.say.say("latency.itl_log") in phrases
    assert show.say.say("latency.ttft") in phrases


RECORDINGS = [dataclasses.replace(Settings(), device="cpu"), Settings(), SLOWER]


@pytest.mark.slow
@pytest.mark.parametrize("settings", RECORDINGS)
def test_of_equal_waits_all_are_counted(settings):
    show = Show(settings, SIZE)
    (beat,) = storyboard("where_it_hurts", show)
    (run,) = beat.runs
    waits = {}
    for request in np.flatnonzero([i in run.trace.endings for i in range(len(run.trace.arrivals))]).tolist():
        for before, after in pairwise(run.timeline.token_times_of(request)):
            waits.setdefault((before, after), []).append(request)
    longest = max(waits, key=lambda wait: (wait[1] - wait[0], -wait[1]))
    count = len(waits[longest])
    assert run.measure("worst_pause_requests").value == count
    said = beat.captions[1].phrase.text
    assert (f"for {count} requests at once" in said) is (count > 1)


@pytest.mark.slow
def test_a_wait_of_nothing_would_stand_on_the_floor():
    show = Show(Settings(), SIZE)
    (beat,) = storyboard("where_it_hurts", show)
    board = beat.picture.__self__
    plot = board.plot_of(show.stage.content)
    assert board.height(plot, 0.0) == plot.bottom
    pause_ms = (board.pause.to_ns - board.pause.from_ns) / 1e6
    up = plot.bottom - board.height(plot, pause_ms)
    assert plot.bottom - board.height(plot, pause_ms / 2) == pytest.approx(up / 2)


@pytest.mark.slow
@pytest.mark.parametrize("settings", RECORDINGS)
def test_the_close_up_shows_the_wait_in_rows_with_words(settings):
    show = Show(settings, SIZE)
    (beat,) = storyboard("where_it_hurts", show)
    board = beat.picture.__self__
    slots = board._slots_of_step()
    assert any(slots[request] in board.close_slots for request in board.tied)
    assert board.pause.request in board.tied
    if board.pause.cause == "prefill":
        # What the caption says of the step is in view: one of the prompts that it read.
        steps = board.run.trace.steps
        members = steps.members(board.pause.step)
        assert set(steps.member_slot[members][~steps.member_decode[members]].tolist()) & set(board.close_slots)
    _, phrases = draw(lambda canvas: beat.picture(canvas, beat.clock.film_s), SIZE)
    tokens = [f for phrase in phrases for f in phrase.figures if f.source.query == "output_text"]
    assert len(tokens) >= 3 * len(board.close_slots)


@pytest.mark.slow
@pytest.mark.parametrize("settings", RECORDINGS)
@pytest.mark.parametrize("case", ["static", "continuous"])
def test_no_dot_of_a_first_token_hides_another(settings, case):
    show = Show(settings, SIZE)
    (beat,) = storyboard("latency", show)
    board = beat.picture.__self__
    side = board.sides[("static", "continuous").index(case)]
    box = board.lanes(board.halves()["ttft"])[0]
    places = side.swarm.places(box)
    assert len(places) == len(side.run.trace.arrivals)
    at = np.array([(x, y) for x, y, _ in places])
    away = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(at))
    assert away.min() >= 2 * places[0][2] - 1e-6
    values = Latencies.of(side.run.trace, "ttft").value_ms
    due = box.x + box.w * np.array([board.axes["ttft"].share(value) for value in values])
    assert np.abs(at[:, 0] - due).max() <= 0.02 * box.w + 2 * places[0][2]


@pytest.mark.parametrize(
    ("axis", "marks"),
    [
        (Axis(0.0, 13_900.0), [0.0, 5000.0, 10_000.0]),
        (Axis(0.0, 671.0), [0.0, 200.0, 400.0, 600.0]),
        (Axis(0.4, 2.9, logarithmic=True), [0.5, 1.0, 2.0]),
        (Axis(15.0, 93.0, logarithmic=True), [20.0, 50.0]),
        (Axis(0.01, 20_000.0, logarithmic=True), []),
        (Axis(3.0, 3.0), []),
    ],
)
def test_an_axis_is_lettered_at_round_values(axis, marks):
    assert axis.marks(5) == pytest.approx(marks)


@pytest.mark.slow
@pytest.mark.parametrize("settings", RECORDINGS)
def test_a_change_is_not_said_to_be_nothing(settings):
    show = Show(settings, SIZE)
    (beat,) = storyboard("speedup_waterfall", show)
    _, phrases = draw(lambda canvas: beat.picture(canvas, beat.clock.film_s), SIZE)
    changes = [f for phrase in phrases for f in phrase.figures if f.source.query.startswith("waterfall_change")]
    assert len(changes) >= 3
    for change in changes:
        assert change.source.value == 0 or any(digit in "123456789" for digit in change.text), change.text


@pytest.mark.slow
@pytest.mark.parametrize("settings", RECORDINGS)
def test_the_three_bars_lead_from_the_one_run_to_the_other(settings):
    show = Show(settings, SIZE)
    (beat,) = storyboard("speedup_waterfall", show)
    board = beat.picture.__self__
    found = split(*beat.runs)
    assert len(board.rows) == 3
    assert board.rows[0].from_ms == found.before_ms
    assert board.rows[-1].to_ms == pytest.approx(found.after_ms)
    assert any(f"{found.priced:.0%}" in caption.phrase.text for caption in beat.captions)


@pytest.mark.slow
def test_the_line_goes_through_the_median_of_every_number_of_rows():
    (beat,) = storyboard("batch_size_sweep", Show(Settings(), SIZE))
    board = beat.picture.__self__
    times = {}
    for run in board.all:
        for rows, ms in zip(run.decode_rows.tolist(), run.metrics.step_ms.tolist(), strict=True):
            times.setdefault(rows, []).append(ms)
    want = {rows: np.median(ms) for rows, ms in times.items() if rows and len(ms) >= 3}
    assert dict(board.curve) == pytest.approx(want)
    assert set(dict(board.medians)) <= set(want)
