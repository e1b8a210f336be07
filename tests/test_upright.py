"""An upright frame: what is needed lies where apps put no controls over it, and nothing is to be scanned."""

import dataclasses

import pytest
from films import SIZES, covered, drawn_by
from tracereel.film.beats import where_it_hurts
from tracereel.film.layout import Drawn, Kind
from tracereel.film.settings import Brand, Settings, read_brand
from tracereel.film.show import Show
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


@pytest.mark.parametrize("shape", ["tall", "square"])
def test_the_dots_of_the_waits_have_nearly_the_whole_width(shape):
    """Next to them stood the median, and a third of a narrow frame was empty above and below it."""
    show = Show(Settings(device="cpu"), SIZES[shape])
    board = where_it_hurts.Storyboard(show)
    plot = board.plot_of(show.stage.content)
    assert plot.w > 0.9 * show.stage.content.w
    (median, _), covered = board.labels(plot)
    assert plot.x < median.ground.x
    assert median.ground.right <= plot.right
    under = {i for i, spot in enumerate(spots_of(board, plot)) if inside(median.ground, spot)}
    assert under
    assert under <= covered


def spots_of(board, plot):
    """Where each dot stands."""
    at_ns, value_ms = board.dots.at_ns.tolist(), board.dots.value_ms.tolist()
    return [(board.across(plot, at), board.height(plot, value)) for at, value in zip(at_ns, value_ms, strict=True)]


def inside(box, spot):
    """Does a dot lie within a box as a whole?"""
    return box.x + 4 < spot[0] < box.right - 4 and box.y + 4 < spot[1] < box.bottom - 4


@pytest.mark.slow
@pytest.mark.parametrize(("scene", "rate"), [("opening", 0.25), ("decode_batching", 0.2)])
@pytest.mark.parametrize("shape", SIZES)
def test_the_colours_of_bands_are_explained_wherever_there_are_bands(scene, rate, shape):
    _, _, frames = drawn_by(scene, SIZES[shape], Settings(device="cuda"), rate=rate)
    assert {"prefill", "decode"} <= set(texts(frames[-1]))


@pytest.mark.parametrize("shape", SIZES)
def test_the_colour_of_prefill_is_explained_close_up(shape):
    _, _, frames = drawn_by("decode_batching", SIZES[shape], Settings(device="cpu"), rate=0.2)
    for drawn in frames:
        assert "prefill" in texts(drawn)
        assert "decode" not in texts(drawn)


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["throughput_comparison", "engine_race"])
def test_what_is_said_below_a_bar_keeps_clear_of_the_figure_at_its_end(scene):
    _, _, frames = drawn_by(scene, SIZES["tall"], Settings(device="cpu"), rate=0.3)
    lettered = [thing for thing in frames[-1] if thing.kind is Kind.TEXT]
    spreads = [thing.sides for thing in lettered if thing.name.startswith("median of")]
    figures = [thing.sides for thing in lettered if thing.name.endswith("×")]
    assert len(spreads) > 1
    assert max(right for _, _, right, _ in spreads) < min(left for left, _, _, _ in figures)
