"""The layout check finds what is wrong, and finds nothing wrong in any scene in any shape."""

from dataclasses import replace
from pathlib import Path

import many_slots
import pytest
from films import SIZES, drawn_by, laid_out, suite_of
from tracereel.film.colours import RequestColours
from tracereel.film.components.slot_bands import SlotBands
from tracereel.film.components.slot_grid import SlotGrid
from tracereel.film.frames import BeatFrames
from tracereel.film.layout import Drawn, Kind, faults, grounds
from tracereel.film.phrases import Phrasebook
from tracereel.film.schedule import frames_of
from tracereel.film.settings import AA, Brand, Settings, contrast_of
from tracereel.film.show import Show
from tracereel.film.stage import Box
from tracereel.film.storyboards import FILMS, names, storyboard
from tracereel.film.theme import GROUND, LEAST_SIZE, PALETTES
from tracereel.trace.analysis.queries import Run
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS

RECORDED = [name for name in names() if (PACKAGE_RECORDINGS / suite_of(name)).is_dir() and name != "full_length"]
"""The scenes whose suites the package holds recordings of; the long film holds nothing but them."""
H100 = Path(__file__).parent / "data" / "h100"
SAFE = (40.0, 40.0, 1880.0, 1040.0)
WHITE = (1.0, 1.0, 1.0)


def text(name, *sides, size=30.0, **more):
    return Drawn(Kind.TEXT, name, sides, WHITE, 1.0, size, **more)


def shape(kind, *sides, alpha=1.0, **more):
    return Drawn(kind, kind.name.lower(), sides, WHITE, alpha, **more)


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        ([text("one", 100, 100, 200, 130), text("two", 190, 120, 300, 150)], ("'one'", "overlaps", "'two'")),
        ([text("out", 10, 100, 200, 130)], ("'out'", "leaves the safe area")),
        ([text("tiny", 100, 100, 200, 130, size=LEAST_SIZE - 1)], ("'tiny'", "the least is")),
        (
            [shape(Kind.CARD, 90, 90, 150, 140), text("long", 100, 100, 200, 130)],
            ("'long'", "crosses the edge of a card"),
        ),
        (
            [text("half", 100, 100, 200, 130), shape(Kind.OUTLINE, 150, 90, 300, 140)],
            ("'half'", "crosses the outline of a"),
        ),
        ([text("label", 100, 100, 200, 130), shape(Kind.LINE, 90, 110, 300, 112)], ("'label'", "is crossed by a line")),
        ([text("label", 100, 100, 200, 130), shape(Kind.DISC, 95, 110, 115, 130)], ("'label'", "is hit by a mark")),
    ],
)
def test_a_fault_names_both_things(drawn, said):
    found = faults(drawn, SAFE)
    assert len(found) == 1
    for word in said:
        assert word in found[0]


@pytest.mark.parametrize(
    "drawn",
    [
        [text("one", 100, 100, 200, 130), text("two", 100, 140, 200, 170)],
        [shape(Kind.CARD, 90, 90, 250, 140), text("inside", 100, 100, 200, 130)],
        [text("below", 100, 100, 200, 130), shape(Kind.CARD, 90, 90, 210, 140), text("above", 100, 100, 200, 130)],
        [text("stands", 100, 100, 200, 130), text("passes", 150, 100, 250, 130, moving=True)],
        [text("stands", 100, 100, 200, 130), shape(Kind.OUTLINE, 90, 90, 210, 140)],
        [text("stands", 100, 100, 200, 130), shape(Kind.OUTLINE, 150, 90, 300, 140, moving=True)],
        [text("long", 100, 100, 400, 130), shape(Kind.OUTLINE, 150, 105, 200, 125)],
    ],
)
def test_what_is_no_fault(drawn):
    assert faults(drawn, SAFE) == []


def test_the_ground_of_a_text_is_what_lies_under_it():
    card = Drawn(Kind.CARD, "card", (90, 90, 250, 140), (0.0, 0.0, 0.0), 1.0)
    on_card, beside = text("on", 100, 100, 200, 130), text("beside", 300, 100, 400, 130)
    assert grounds([card, on_card, beside], WHITE) == [(on_card, (0.0, 0.0, 0.0)), (beside, WHITE)]


@pytest.mark.long
@pytest.mark.parametrize("short", [720, 1080, 2160])
@pytest.mark.parametrize(("wide", "high"), [(16, 9), (9, 16), (1, 1)])
def test_the_end_card_is_laid_out_whatever_the_pixels(short, wide, high):
    # Its code takes whole pixels a module, and so is larger in some frames than in others.
    size = short * wide // min(wide, high), short * high // min(wide, high)
    laid_out("closing", size)


@pytest.mark.long
@pytest.mark.parametrize("shape_name", SIZES)
@pytest.mark.parametrize("name", RECORDED)
def test_every_scene_is_laid_out_in_every_shape(name, shape_name):
    laid_out(name, SIZES[shape_name], rate=2)


@pytest.mark.long
@pytest.mark.parametrize("shape_name", SIZES)
@pytest.mark.parametrize("name", [name for name in RECORDED if suite_of(name) == "film" and name not in FILMS])
def test_every_scene_of_the_film_is_laid_out_with_64_slots(name, shape_name):
    """From recordings of a GPU: 384 requests, steps of 1 and 11 ms, the continuous run slower than the static."""
    laid_out(name, SIZES[shape_name], rate=0.7, texts=20, settings=replace(Settings(), recordings=H100))


WRITTEN = {"prompt", "output_text"}
"""Queries of what people and the model wrote, of which a part may be shown."""


@pytest.mark.long
@pytest.mark.parametrize("shape_name", SIZES)
@pytest.mark.parametrize("name", [name for name in RECORDED if name not in FILMS])
def test_no_words_of_the_films_own_are_cut_short(name, shape_name):
    cut = set()

    def note(phrase, text):
        if text.endswith("…") and text != phrase.text:
            cut.update({(phrase.text, text)} if not phrase.figures else {each.source.query for each in phrase.figures})

    devices = ("cpu",) if suite_of(name) != suite_of("closing") else ("cpu", "cuda")
    for settings in (Settings(device=device) for device in devices):
        show = Show(settings, SIZES[shape_name])
        for beat in storyboard(name, show):
            frames = BeatFrames(beat, show, note=note)
            for i in range(frames_of(beat, 1)):
                frames.said_at(i)
    assert cut <= WRITTEN


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("shape_name", SIZES)
def test_the_words_of_the_close_up_around_a_wait_are_not_faint(shape_name, device):
    _, _, frames = drawn_by("where_it_hurts", SIZES[shape_name], Settings(device=device), rate=1)
    words = [thing for thing in frames[-1] if thing.kind is Kind.TEXT]
    assert len(words) > 20
    assert all(thing.alpha > 0.99 for thing in words), [thing for thing in words if thing.alpha <= 0.99]


@pytest.mark.parametrize(
    ("slots", "high", "bands"), [(64, 400, 8), (64, 600, 64), (8, 50, 8), (8, 30, 1), (256, 400, 8)]
)
def test_many_rows_that_stand_close_are_merged_into_eight_bands_at_most(slots, high, bands):
    """The rows of 64 slots in an upright half were as thin as those of eight slots may be, and were a texture."""
    name = {64: "nvidia-h100-80gb-hbm3", 8: "cpu"}.get(slots)
    if name is None:
        found = SlotBands(slots, (), ())
        assert len(found.places(Box(0, 0, 900, high))) == bands
        return
    run = Run.read(next((PACKAGE_RECORDINGS / "film" / name).glob("static-1.*")))
    grid, box = SlotGrid(run, Phrasebook(), RequestColours([run.trace])), Box(0, 0, 900, high)
    assert grid.merged(box) == slots / bands
    drawn = len(grid.bands.places(box)) if grid.merged(box) > 1 else len(grid.rows(box))
    assert drawn == bands


@pytest.mark.parametrize(
    ("slots", "high", "each"), [(64, 240, 8), (64, 210, 8), (64, 120, 16), (96, 150, 16), (61, 210, 9), (7, 20, 7)]
)
def test_bands_have_the_same_slots_where_nearly_as_many_bands_divide_them(slots, high, each):
    assert SlotBands(slots, (), ()).slots_each(Box(0, 0, 900, high)) == each


@pytest.mark.slow
@pytest.mark.parametrize("shape_name", SIZES)
def test_it_is_said_how_many_slots_a_band_is(shape_name):
    show = Show(Settings(device="cuda"), SIZES[shape_name])
    (beat,) = storyboard("decode_batching", show)
    said = []
    BeatFrames(beat, show, note=lambda phrase, text: said.append(text)).said_at(beat.clock.film_s - 0.5)
    assert said.count("a band is 8 slots") == 2


@pytest.mark.slow
@pytest.mark.parametrize("shape_name", SIZES)
def test_bands_are_never_called_a_part_of_the_slots(shape_name):
    """On the way from a few rows to all of them the bands are of all slots already."""
    show, said = Show(Settings(device="cuda"), SIZES[shape_name]), []
    (beat,) = storyboard("decode_batching", show)
    frames = BeatFrames(beat, show, note=lambda phrase, text: said.append(text))
    parts = {True: set(), False: set()}
    for i in range(frames_of(beat, 12)):
        said.clear()
        frames.said_at(i / 12)
        parts["decode" in said].update(text for text in said if text.endswith("of 64 slots"))
    assert parts[False]
    assert not parts[True]


@pytest.mark.slow
def test_a_last_band_of_fewer_slots_is_said_to_be_one(tmp_path):
    for policy in ("static", "continuous"):
        config = replace(many_slots.ROOMY, policy=policy, max_num_seqs=61)
        many_slots.record(tmp_path, "film", policy, config, many_slots.mixed(200), repeats=1)
    show = Show(Settings(recordings=tmp_path), SIZES["wide"])
    (beat,) = storyboard("decode_batching", show)
    said = []
    BeatFrames(beat, show, note=lambda phrase, text: said.append(text)).said_at(beat.clock.film_s - 0.5)
    assert said.count("a band is 8 slots, the last 5") == 2


@pytest.mark.long
@pytest.mark.parametrize("theme", PALETTES)
@pytest.mark.parametrize("name", [name for name in RECORDED if name != "continuous_batching"])
def test_text_can_be_read_on_its_ground(name, theme):
    """WCAG 2.1 AA: a contrast of 4.5, whatever the size of the text."""
    palette = PALETTES[theme]
    _, _, frames = drawn_by(name, SIZES["wide"], Settings(brand=Brand(palette)), rate=3)
    read = 0
    for drawn in frames:
        for thing, under in grounds(drawn, palette.rgb(GROUND)):
            reached = contrast_of(thing.colour, under)
            assert reached >= AA, f"{thing}: {reached:.2f} on {under}"
            read += 1
    assert read > 40
