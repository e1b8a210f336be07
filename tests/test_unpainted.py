"""A frame that is only taken note of states all that a drawn one states, and takes less time."""

import time
from pathlib import Path

import pytest
from drawing import SIZE
from tracereel.film.frames import BeatFrames
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import storyboard

pytestmark = pytest.mark.slow
MANY_SLOTS = Settings(recordings=Path(__file__).parent / "data" / "h100")


@pytest.mark.parametrize("name", ["cut_out_the_red", "decode_batching", "where_it_hurts"])
def test_a_frame_says_the_same_whether_it_is_drawn_or_not(name):
    show = Show(MANY_SLOTS, SIZE)
    (beat,) = storyboard(name, show)
    said = []
    frames = BeatFrames(beat, show, note=lambda phrase, text: said.append((phrase, text)))
    for second in range(0, int(beat.clock.film_s), 2):
        frames.at(second)
        drawn = list(said)
        said.clear()
        frames.said_at(second)
        assert said == drawn
        assert said
        said.clear()


def test_what_moves_is_not_placed_where_nothing_is_drawn():
    """Sixty-four slots rearranged: placing every stay costs many times what the words cost."""
    show = Show(MANY_SLOTS, SIZE)
    (beat,) = storyboard("cut_out_the_red", show)
    frames = BeatFrames(beat, show)
    seconds = [beat.clock.film_s * i / 20 for i in range(20)]
    spent = []
    for make in (frames.at, frames.said_at):
        begun = time.process_time()
        for second in seconds:
            make(second)
        spent.append(time.process_time() - begun)
    assert spent[1] < spent[0] / 2
