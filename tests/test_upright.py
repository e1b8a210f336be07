"""An upright frame: what is needed lies where apps put no controls over it, and nothing is to be scanned."""

import dataclasses

import pytest
from films import SIZES, covered, drawn_by
from tracereel.film.layout import Drawn, Kind
from tracereel.film.settings import Brand, Settings, read_brand
from tracereel.film.stage import Shape, Stage

TALL = Stage.of_pixels(1080, 1920)


def texts(drawn):
    return [thing.name for thing in drawn if thing.kind is Kind.TEXT]


def test_the_clear_place_leaves_the_controls_free():
    left, top, right, bottom = TALL.clear
    assert top >= 0.1 * 1920
    assert bottom <= 0.8 * 1920
    assert right <= 0.88 * 1080
    content = TALL.content
    assert TALL.shape is Shape.TALL
    assert left <= content.x
    assert content.right <= right
    assert top <= content.y
    assert content.bottom <= bottom
    assert top < TALL.title_line < TALL.caption_lines[0]
    assert TALL.strip_lines[0] < bottom


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (1080, 1080)])
def test_other_frames_are_clear_to_the_safe_area(width, height):
    stage = Stage.of_pixels(width, height)
    assert stage.clear == stage.safe
    assert stage.right == stage.width - stage.margin


@pytest.mark.parametrize(
    ("sides", "is_covered"),
    [
        ((60, 100, 300, 130), True),
        ((700, 800, 1000, 830), True),
        ((60, 800, 300, 830), False),
        ((60, 1560, 300, 1590), False),
    ],
)
def test_a_text_under_the_controls_is_found(sides, is_covered):
    drawn = Drawn(Kind.TEXT, "text", sides, (1.0, 1.0, 1.0), 1.0, 30.0)
    assert bool(covered([drawn], TALL)) is is_covered


@pytest.mark.slow
def test_the_end_card_has_a_code_where_it_can_be_scanned_and_an_address_where_not(tmp_path):
    (tmp_path / "brand.toml").write_text('url = "https://our.example/film/"')
    settings = dataclasses.replace(Settings(), brand=read_brand(tmp_path / "brand.toml"))
    said = {}
    for shape in ("wide", "tall"):
        _, _, frames = drawn_by("closing", SIZES[shape], settings, rate=1)
        said[shape] = texts(frames[-1])
    assert "Scan for more." in said["wide"]
    assert "our.example/film" not in said["wide"]
    assert "our.example/film" in said["tall"]
    assert "Scan for more." not in said["tall"]
    for shape in said.values():
        assert any(text.startswith("tracereel record --suite") for text in shape)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://our.example/", "our.example"),
        ("our.example/a", "our.example/a"),
        ("https://x.example/v2", None),
        (None, None),
    ],
)
def test_an_address_is_short_and_holds_no_number(url, address):
    found = Brand(url=url).address
    assert (found.text if found else None) == address
