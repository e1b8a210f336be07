"""A scene's heading and sentences hold of the runs that it shows, whichever run is faster."""

import dataclasses
from pathlib import Path

import pytest
from drawing import SIZE, draw
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import storyboard
from tracereel.trace.analysis.queries import split

SLOWER = dataclasses.replace(Settings(), recordings=Path(__file__).parent / "data" / "h100")


@pytest.mark.parametrize("settings", [Settings(), SLOWER])
def test_a_speed_up_is_named_only_where_there_is_one(settings):
    show = Show(settings, SIZE)
    (beat,) = storyboard("speedup_waterfall", show)
    faster = split(*beat.runs).speedup > 1
    assert (beat.title == show.say.say("speedup_waterfall.name")) is faster
    assert faster is (settings is not SLOWER)


def test_an_axis_that_is_logarithmic_says_so():
    show = Show(SLOWER, SIZE)
    (beat,) = storyboard("latency", show)
    _, phrases = draw(lambda canvas: beat.picture(canvas, 5.0), SIZE)
    assert show.say.say("latency.itl_log") in phrases
    assert show.say.say("latency.ttft") in phrases
