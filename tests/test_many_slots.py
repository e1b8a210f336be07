"""Every scene with 256 slots: nothing in the way of anything else, in three shapes, and what is left out is said."""

import math
from itertools import product

import many_slots
import pytest
from films import SIZES, drawn_by, laid_out
from tracereel.film.beats.batch_size_sweep import Storyboard
from tracereel.film.layout import Kind
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import FILMS, names
from tracereel.trace.check.invariants import check

pytestmark = pytest.mark.long
SCENES = [name for name in names() if name not in FILMS]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return Settings(recordings=many_slots.recordings(tmp_path_factory.mktemp("many")))


def test_the_recordings_are_valid_and_say_that_their_times_are_made_up(settings):
    paths = sorted(settings.recordings.rglob("*.jsonl"))
    assert {path.parent.name for path in paths} == {"film", "film-engines", "sweep", "paging", "chunked"}
    for path in paths:
        assert not check(path).violations, path
        assert "synthetic" in path.read_text().partition("\n")[0]


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("name", SCENES)
def test_every_scene_is_laid_out_with_256_slots(name, shape, settings):
    laid_out(name, SIZES[shape], rate=0.7, texts=10, settings=settings)


def test_steps_with_more_rows_than_are_compared_stay_inside_the_plot(settings):
    show = Show(settings, SIZES["wide"])
    board = Storyboard(show)
    assert board.widest == 256 > board.most_rows
    area = board.step_plot(board.stage.content).area
    _, _, frames = drawn_by("batch_size_sweep", SIZES["wide"], settings, rate=1)
    discs = [thing for drawn in frames[:8] for thing in drawn if thing.kind is Kind.DISC]
    assert len(discs) > 40
    assert all(area.x <= thing.sides[0] and thing.sides[2] <= area.right for thing in discs)


@pytest.mark.parametrize("shape", SIZES)
def test_the_words_of_the_ring_fit_into_its_middle(shape, settings):
    _, _, frames = drawn_by("same_position", SIZES[shape], settings, rate=1)
    words = [thing for thing in frames[2] if thing.kind is Kind.TEXT and thing.name.endswith("of 256")]
    assert len(words) == 2
    for thing in words:
        x, y = ((thing.sides[i] + thing.sides[i + 2]) / 2 for i in (0, 1))
        around = [disc.sides for disc in frames[2] if disc.kind is Kind.DISC and inside(x, y, disc.sides)]
        left, top, right, bottom = min(around, key=lambda sides: sides[2] - sides[0])
        radius, middle = (right - left) / 2, ((left + right) / 2, (top + bottom) / 2)
        for corner in product(thing.sides[::2], thing.sides[1::2]):
            assert math.dist(corner, middle) <= radius, f"{thing.name} crosses the edge of the middle"


def inside(x, y, sides):
    return sides[0] < x < sides[2] and sides[1] < y < sides[3]


@pytest.mark.parametrize(("made", "most"), [(True, 4), (False, None)])
def test_rows_of_a_pixel_have_one_colour(made, most, settings):
    """The panel, what decodes, what is idle for want of requests, and what is idle while they wait; with 8 slots each
    request has its own."""
    shown = settings if made else Settings(device="cpu")
    _, _, frames = drawn_by("cut_out_the_red", SIZES["wide"], shown, rate=1)
    rows = [thing for thing in frames[4] if thing.kind is Kind.BOX]
    colours = {thing.colour for thing in rows}
    assert len(rows) > 40
    assert len(colours) <= most if most else len(colours) > 6


def test_a_pool_of_more_blocks_than_are_drawn_says_how_many_are_not(settings):
    _, _, frames = drawn_by("kv_cache_paging", SIZES["wide"], settings, rate=0.5)
    assert all(any(thing.name == "not shown: 300" for thing in drawn) for drawn in frames)
