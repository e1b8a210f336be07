"""Close up a column is a step; from afar places are those of time, and several slots are a band."""

import numpy as np
import pytest
from drawing import LOOK, SIZE, draw, near, pixel
from tracereel.film import theme
from tracereel.film.canvas import NotingCanvas
from tracereel.film.components.slot_bands import SlotBands
from tracereel.film.stage import Box
from tracereel.film.step_axis import StepView
from tracereel.film.time_axis import View

ENDS = [10, 12, 14, 114, 116, 118, 120]
FAR = View(0, 240)
BOX = Box(100, 50, 1000, 400)


def test_a_long_step_is_as_wide_as_a_short_one():
    axis = StepView.of_steps(ENDS, 1, 5, FAR).along(BOX)
    assert [axis.x(end) for end in ENDS] == pytest.approx([100, 300, 500, 700, 900, 1100, 1300])
    assert axis.x(64) == pytest.approx(600), "half of a step is half of its column"
    assert axis.within(120) == 1100


def test_pulled_back_places_are_those_of_time():
    axis = StepView.of_steps(ENDS, 1, 3, FAR, 1.0).along(BOX)
    assert [axis.x(end) for end in ENDS] == pytest.approx([FAR.along(BOX).x(end) for end in ENDS])


@pytest.mark.parametrize("pulled", [0.0, 0.2, 0.7, 0.95])
def test_instants_are_where_their_places_are_and_in_order(pulled):
    view = StepView.of_steps(ENDS, 1, 3, FAR, pulled)
    instants = np.array([11.0, 13.0, 50.0, 115.0])
    shares = np.array([view.share(t) for t in instants])
    assert (np.diff(shares) > 0).all()
    assert view.instants(shares) == pytest.approx(instants)
    assert view.from_ns <= view.instants(np.array([0.0]))[0]
    assert view.to_ns >= view.instants(np.array([1.0]))[0]


def test_a_band_shows_what_share_of_its_slots_did_what():
    """The second slot is idle from 50 to 80 while requests wait, and then for want of work."""
    stays = [(0, 0, 20, 100), (1, 0, 0, 50), (2, 0, 0, 100)]
    gaps = [(1, 50, 80, True), (1, 80, 100, False), (3, 0, 100, False)]
    bands = SlotBands(4, stays, gaps)
    decode, prefill, idle = bands.shares(range(4), np.array([0.0, 20.0, 50.0, 80.0, 100.0]))
    assert decode == pytest.approx([0.5, 0.75, 0.5, 0.5])
    assert prefill == pytest.approx([0.25, 0, 0, 0])
    assert idle == pytest.approx([0, 0, 0.25, 0])
    box = Box(40, 40, 1000, 30)
    picture, _ = draw(lambda canvas: bands.paint(canvas, box, View(0, 100), 100), SIZE)

    def seen(t_ns, share):
        return pixel(picture, box.x + box.w * t_ns / 100, box.bottom - box.h * share)

    for t_ns, share, colour in [
        (10, 0.25, theme.DECODE),
        (10, 0.62, theme.PREFILL),
        (35, 0.5, theme.DECODE),
        (65, 0.62, theme.IDLE_SLOT),
        (65, 0.25, theme.DECODE),
    ]:
        assert near(seen(t_ns, share), LOOK(colour)), (t_ns, share)
    for t_ns, share in [(35, 0.9), (90, 0.65)]:
        assert not any(near(seen(t_ns, share), LOOK(c)) for c in (theme.DECODE, theme.PREFILL, theme.IDLE_SLOT))


def test_a_band_shows_nothing_that_is_still_to_come():
    bands = SlotBands(2, [(0, 0, 0, 100), (1, 0, 0, 100)], [])
    box = Box(40, 40, 1000, 30)
    picture, _ = draw(lambda canvas: bands.paint(canvas, box, View(0, 100), 40), SIZE)
    for t_ns, happened in [(1, True), (39, True), (41, False), (99, False)]:
        seen = pixel(picture, box.x + box.w * t_ns / 100, box.bottom - box.h / 2)
        assert near(seen, LOOK(theme.DECODE)) == happened, t_ns


def test_the_picture_of_stacks_is_that_of_their_areas():
    shares = np.array([[0.5, 0.25, 0.0, 1.0], [0.25, 0.0, 0.4, 0.5], [0.1, 0.75, 0.2, 0.0]])
    colours = (theme.DECODE, theme.PREFILL, theme.IDLE_SLOT)
    sides = (40.0, 40.0, 400.0, 60.0)
    fast, _ = draw(lambda canvas: canvas.stacked(sides, shares, colours), SIZE)
    plain, _ = draw(lambda canvas: NotingCanvas.stacked(canvas, sides, shares, colours), SIZE)
    differing = np.abs(fast.astype(int) - plain.astype(int)).max(axis=2)
    # Where two colours meet within a pixel, areas let the ground through between them.
    assert (differing > 8).mean() < 0.002
    for column in range(4):
        for share in (0.1, 0.3, 0.45, 0.9):
            x, y = 40 + 100 * column + 50, 100 - 60 * share
            assert near(pixel(fast, x, y), tuple(pixel(plain, x, y))), (column, share)
