"""Many boxes filled at once are the boxes filled one by one."""

import cairo
import numpy as np
import pytest
from drawing import draw
from tracereel.film.canvas import NotingCanvas
from tracereel.film.components.pipeline_places import Tiles
from tracereel.film.layout import Kind
from tracereel.film.painter import CairoCanvas
from tracereel.film.stage import Box
from tracereel.film.theme import IDLE, TEXT

PLACES = [*Tiles(Box(20.3, 40.7, 700, 500), 300).sides, (800.2, 40.1, 0.3, 300), (900, 40, 100.5, 0.1)]


@pytest.mark.parametrize("size", [(854, 480), (480, 854), (640, 360)])
@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_boxes_at_once_are_those_boxes_to_the_pixel(size, alpha):
    at_once, _ = draw(lambda canvas: canvas.boxes(PLACES, IDLE, alpha), size)
    one_by_one, _ = draw(lambda canvas: NotingCanvas.boxes(canvas, PLACES, IDLE, alpha), size)
    assert np.array_equal(at_once, one_by_one)
    assert len(np.unique(at_once @ np.array([65536, 256, 1]))) == 2, "each was filled once"


def test_each_box_is_seen_by_a_check_of_the_layout_and_none_where_nothing_is_seen():
    seen = []
    pen = cairo.Context(cairo.ImageSurface(cairo.FORMAT_RGB24, 854, 480))
    canvas = CairoCanvas(pen, (854, 480), lambda phrase, text: None, watch=seen.append)
    canvas.boxes(PLACES, TEXT)
    canvas.boxes(PLACES, TEXT, 0.0)
    assert [thing.kind for thing in seen] == [Kind.BOX] * len(PLACES)
    assert seen[0].sides == pytest.approx((20.3, 40.7, 20.3 + PLACES[0][2], 40.7 + PLACES[0][3]))


def test_the_places_of_tiles_are_those_that_there_is_room_for():
    tiles = Tiles(Box(0, 0, 100, 20), 3000)
    assert 0 < len(tiles.sides) == tiles.room < 3000
    assert tiles.sides[-1] == tiles.at(tiles.room - 1).sides
