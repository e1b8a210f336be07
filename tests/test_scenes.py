"""The scenes: every digit is measured, every frame is a function of its instant, and pictures agree with states."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from string import Formatter

import cairo
import msgspec
import numpy as np
import pytest
from drawing import LOOK, colour_at, draw, near
from films import SIZES, suite_of
from films import rendered as render_film
from glyphs import lettered, unclaimed
from PIL import Image
from tracereel.film import theme
from tracereel.film.clock import FilmClock, Passage, Script
from tracereel.film.colours import RequestColours
from tracereel.film.components.pipeline import PipelineView
from tracereel.film.components.slot_grid import SlotGrid
from tracereel.film.ledger import Ledger
from tracereel.film.painter import CairoCanvas
from tracereel.film.phrases import (
    CATALOGUES,
    PLAYER,
    Phrase,
    Phrasebook,
    TypedDigitError,
    figure,
    fill,
    holds_digit,
    holds_number,
    quote,
    words,
)
from tracereel.film.stage import Box, Stage
from tracereel.film.storyboards import names
from tracereel.film.time_axis import View
from tracereel.trace.analysis.moments import first_handover
from tracereel.trace.analysis.queries import Run, median_of
from tracereel.trace.recordings.index import DEVICE_ENVIRONMENT, FILM

ROOT = Path(__file__).resolve().parents[1]
_NOT_ALONE = ("opening", "closing", "full_length")
SCENES = [name for name in names() if name not in _NOT_ALONE and suite_of(name) == FILM]
"""The cards have no clock, and the film holds them; the long film holds nothing but these and the other suites'."""


@pytest.fixture(scope="module")
def continuous(film_recordings):
    return median_of([Run.read(path) for path in sorted(film_recordings.glob("continuous-*"))])


@pytest.fixture(scope="module")
def static(film_recordings):
    return Run.read(film_recordings / "static-1.jsonl.zst")


# No digit but a measured one.


def test_a_typed_digit_cannot_be_drawn(continuous):
    for text in ("3.4× faster", "R1", "x²", "½", "٣", "twice as fast", "Nine hundred times", "two runs"):
        with pytest.raises(TypedDigitError):
            words(text)
        with pytest.raises(TypedDigitError):
            fill(f"{text} {{n}}", {"n": words("n")})
    measured = figure(continuous.measure("num_requests"))
    assert fill("{n} requests", {"n": measured}).text == f"{len(continuous.trace.arrivals)} requests"


def test_no_phrasebook_holds_a_digit():
    books = list(CATALOGUES.glob("*.toml"))
    assert books
    for path in books:
        for scene, lines in tomllib.loads(path.read_text()).items():
            for key, text in lines.items() if scene != PLAYER else ():
                for literal, *_ in Formatter().parse(text):
                    assert not holds_number(literal), f"{path.name}: {scene}.{key}: {literal}"


def test_every_language_says_the_same_things():
    english = tomllib.loads((CATALOGUES / "en.toml").read_text())
    for path in CATALOGUES.glob("*.toml"):
        other = tomllib.loads(path.read_text())
        assert {scene: set(lines) for scene, lines in other.items()} == {s: set(lines) for s, lines in english.items()}
        for scene, lines in english.items():
            for key, text in lines.items():
                places = {place for _, place, _, _ in Formatter().parse(text)} - {None}
                there = {place for _, place, _, _ in Formatter().parse(other[scene][key])} - {None}
                assert there == places, f"{path.name}: {scene}.{key}"


LETTERING = {
    "Text",
    "MarkupText",
    "Paragraph",
    "Tex",
    "MathTex",
    "Integer",
    "DecimalNumber",
    "Variable",
    "BarChart",
    "Axes",
}


def test_only_phrases_can_be_lettered():
    # Manim's own ways to write, and cairo's, would pass the ledger by.
    for path in [*(ROOT / "scenes").rglob("*.py"), *(ROOT / "film").rglob("*.py")]:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("manim"):
                assert not LETTERING & {alias.name for alias in node.names}, path
                assert "*" not in {alias.name for alias in node.names}, path
            if isinstance(node, ast.Import):
                assert "manim" not in {alias.name for alias in node.names}, path
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("show_text", "text_path"), path
        calls = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        if calls & {"trace_line", "sprite", "shape"}:
            assert path.name in ("lettering.py", "painter.py"), path


@pytest.mark.slow
def test_numbers_in_phrases_are_no_literals():
    # figure() and quote() take what measure() gives; nobody makes a Measured of their own.
    for path in [*(ROOT / "scenes").rglob("*.py"), *(ROOT / "film").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "Measured", path
                if node.func.id in ("Figure", "Phrase"):
                    assert path.name in ("phrases.py", "cards.py"), path


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Scenes as Manim renders them at two frames a second: (scene, film, runs lettered in each frame)."""
    results = {}
    # The recordings that `continuous` and `static` are of, not those of the newest device.
    with pytest.MonkeyPatch.context() as of_device:
        of_device.setenv(DEVICE_ENVIRONMENT, "cpu")
        for shape, size in SIZES.items():
            for name in SCENES:
                # The layout test looks at every shape; here it is what is said in a frame.
                if shape != "square" and (shape, name) != ("tall", "continuous_batching"):
                    with lettered() as frames:
                        results[shape, name] = (*render_film(name, size, tmp_path_factory.mktemp("media")), frames)
    return results


@pytest.fixture(scope="module")
def rendered(films):
    """(Scene, film) by shape and name."""
    return {key: (scene, film) for key, (scene, film, _) in films.items()}


@pytest.mark.long
def test_every_digit_on_screen_is_in_the_ledger(films):
    """What was really drawn, run of glyphs by run of glyphs, against the claims of its frame."""
    for (shape, name), (scene, _, frames) in films.items():
        claims, count = scene.renderer.ledger.claims(), scene.renderer.ledger.frames
        assert claims, (shape, name)
        for claim in claims:
            assert claim.traces or claim.query in ("slowdown", "speedup", "axis_value", "log_axis_value"), claim
            assert 0 <= claim.first <= claim.last < count
        assert len(frames) == count + 1
        with_digits = 0
        for i, runs in enumerate(frames[:count]):
            here = [claim for claim in claims if claim.first <= i <= claim.last]
            assert not unclaimed(runs, here), (shape, name, i)
            with_digits += any(holds_digit(run) for run in runs)
        assert with_digits > count / 2, (shape, name)


def test_a_digit_that_is_lettered_past_the_ledger_is_seen(continuous):
    ledger, seen = Ledger(), figure(continuous.measure("num_requests"))
    surface = cairo.ImageSurface(cairo.FORMAT_RGB24, 854, 480)
    with lettered() as frames:
        canvas = CairoCanvas(cairo.Context(surface), (854, 480), ledger.note)
        canvas.text(fill("{n} requests", {"n": seen}), 20, 200, theme.BODY, theme.TEXT)
        canvas._letter("3.4×", 20, 300, theme.BODY)
        ledger.frame()
    assert frames[0] == {f"{len(continuous.trace.arrivals)} requests", "3.4×"}
    assert unclaimed(frames[0], ledger.claims()) == ["3.4×"]
    assert unclaimed({"48 or 49 requests"}, ledger.claims()) == ["48 or 49 requests"]


@pytest.mark.long
def test_films_verify_and_doctored_ones_do_not(rendered, film_recordings):
    from tracereel.film.ledger import encode_ledger, ledger_path, read_ledger
    from tracereel.film.verification import verify

    for (shape, name), (_, film) in rendered.items():
        if shape != "square":
            verdict = verify(film, [film_recordings])
            assert verdict.claims
            assert not verdict.faults, (name, verdict.faults[:3])
    film = rendered["wide", "throughput_comparison"][1]
    ledger, original = read_ledger(film)
    try:
        doctored = [
            msgspec.structs.replace(claim, value=9.9, shown="9.90", text="9.90×")
            if claim.query == "throughput_ratio_median"
            else claim
            for claim in ledger.claims
        ]
        ledger_path(film).write_bytes(encode_ledger(msgspec.structs.replace(ledger, claims=doctored)))
        faults = verify(film, [film_recordings]).faults
        assert any("not the ledger" in fault for fault in faults)
        assert any("throughput_ratio_median" in fault for fault in faults)
    finally:
        ledger_path(film).write_bytes(original)
    faults = verify(film, [film_recordings / "static-1.jsonl.zst"]).faults
    assert any("is not among the traces given" in fault for fault in faults)


@pytest.mark.long
def test_a_film_says_where_it_comes_from(rendered, continuous):
    from tracereel.film.provenance import read_stamp

    stamp = read_stamp(rendered["wide", "continuous_batching"][1])
    assert continuous.trace.digest in stamp["traces"]
    assert stamp["device"] == continuous.trace.header.device.name
    assert stamp["model_digest"] == continuous.trace.header.model.digest


@pytest.mark.long
def test_the_film_is_as_long_as_a_film_may_be(rendered):
    scene, _ = rendered["wide", "continuous_batching"]
    assert 60 <= scene.renderer.ledger.frames / 2 <= 100


@pytest.mark.long
def test_the_clock_and_the_provenance_stand_on_screen_wherever_engine_time_runs(rendered):
    for (shape, name), (scene, _) in rendered.items():
        claims = scene.renderer.ledger.claims()
        running = {
            frame
            for claim in claims
            if claim.query in ("slowdown", "speedup")
            for frame in range(claim.first, claim.last + 1)
        }
        timed = [claim for claim in claims if claim.query == "engine_time_s" and "engine time" in claim.text]
        # This scene shows an answer as fast as it was measured, where that can be watched.
        assert running or name == "you_are", (shape, name)
        for query in ("model", "device", "digest"):
            shown = {frame for claim in claims if claim.query == query for frame in range(claim.first, claim.last + 1)}
            assert running <= shown, (shape, name, query)
        assert running <= {frame for claim in timed for frame in range(claim.first, claim.last + 1)}


# A frame is a function of its instant.


def test_a_painter_may_be_asked_in_any_order(continuous):
    clock = Script().run(continuous.timeline.end_ns, 20.0).clock()
    stage, say, colours = Stage.of_pixels(854, 480), Phrasebook(), RequestColours([continuous.trace])
    one = PipelineView(continuous, clock, stage, say, colours)
    forward = {s: draw(lambda canvas, s=s: one.paint(canvas, s))[0] for s in (2.0, 5.0, 9.0)}
    other = PipelineView(continuous, clock, stage, say, colours)
    for s in (9.0, 2.0, 5.0):
        assert (draw(lambda canvas, s=s: other.paint(canvas, s))[0] == forward[s]).all()


@pytest.mark.parametrize("case", ["continuous", "static"])
def test_bars_show_who_sat_where(request, case):
    """Pixels of the far view, read back at many instants, against the state at that instant."""
    run = request.getfixturevalue(case)
    colours = RequestColours([run.trace])
    grid, size = SlotGrid(run, Phrasebook(), colours), (1708, 960)
    end = run.timeline.end_ns
    box, view = Box(40, 40, 1841, 900), View(0, end)
    scale = min(size) / 1080
    pixels, _ = draw(lambda canvas: grid.paint(canvas, box, view, end + 1), size)
    rows = grid.rows(box)
    checked = 0
    for i in range(1, 200):
        t_ns = end * i // 200
        around = [run.timeline.at(t_ns + d).occupancy for d in (-end // 800, 0, end // 800)]
        for slot, row in enumerate(rows):
            who = {occupancy[slot].request if occupancy[slot] else None for occupancy in around}
            prefills = any(occupancy[slot] is not None and occupancy[slot].prefill for occupancy in around)
            if len(who) > 1 or prefills:
                continue  # too near to a change for one pixel
            request_there = who.pop()
            waits = run.timeline.at(t_ns).num_waiting > 0
            idle = theme.IDLE_SLOT if waits else theme.SPARE_SLOT
            want = idle if request_there is None else colours[request_there]
            x, y = (box.x + box.w * t_ns / end) * scale, (row.y + row.h * 0.7) * scale
            assert near(colour_at(pixels, x, y), LOOK(want)), (case, t_ns, slot)
            checked += 1
    assert checked > 800


def test_a_picture_that_stands_is_rows_or_bands_and_its_words_say_which(continuous):
    """Rows between the two looked like neither, while the words said that each slot had a row."""
    grid = SlotGrid(continuous, Phrasebook(), RequestColours([continuous.trace]))
    slots, view = continuous.trace.header.slots, View.of_run(continuous)
    end = continuous.timeline.end_ns + 1

    def seen(pitch):
        box = Box(40, 40, 1000, slots * pitch)
        return grid.merged(box), draw(lambda canvas: grid.paint(canvas, box, view, end), (1920, 1080))[0]

    def drawn(picture, pitch):
        return picture[40 : round(40 + slots * pitch), 40:1040]

    merged, rows = seen(5.5)
    assert merged == 1
    bands = grid.bands.paint
    grid.bands.paint = lambda *_: pytest.fail("rows that have room are merged")
    assert (seen(5.5)[1] == rows).all()
    grid.bands.paint = bands
    merged, picture = seen(4.9)
    assert merged > 1
    box = Box(40, 40, 1000, slots * 4.9)
    alone, _ = draw(lambda canvas: bands(canvas, box, view, end), (1920, 1080))
    assert (drawn(picture, 4.9) == drawn(alone, 4.9)).all()


def test_cells_fill_step_by_step(continuous):
    """Close up, at many instants: what has been computed is coloured, what is to come is not."""
    steps = continuous.trace.steps
    colours = RequestColours([continuous.trace])
    grid, size = SlotGrid(continuous, Phrasebook(), colours), (1708, 960)
    box = Box(40, 40, 1841, 900)
    scale = min(size) / 1080
    rows = grid.rows(box)
    for step in range(20, 60, 2):
        now = int(steps.end_ns[step])
        view = View(int(steps.start_ns[step - 6]), int(steps.end_ns[step + 4]))
        pixels, _ = draw(lambda canvas, v=view, t=now: grid.paint(canvas, box, v, t), size)
        for other in range(step - 5, step + 4):
            middle = (int(steps.start_ns[other]) + int(steps.end_ns[other])) / 2
            x = (box.x + box.w * (middle - view.from_ns) / (view.to_ns - view.from_ns)) * scale
            members = steps.members(other)
            slots = dict(zip(steps.member_slot[members].tolist(), steps.member_request[members].tolist(), strict=True))
            for slot, row in enumerate(rows):
                seen = colour_at(pixels, x, (row.y + row.h * 0.88) * scale)
                if other > step:
                    assert near(seen, LOOK(theme.PANEL)), (step, other, slot)
                elif slot in slots and steps.member_decode[members.start]:
                    mixed = LOOK(colours[slots[slot]])
                    assert max(abs(a - b) for a, b in zip(seen, mixed, strict=True)) < 0.3


def test_the_pipeline_shows_the_states_counts(continuous):
    clock = Script().run(continuous.timeline.end_ns, 20.0).clock()
    view = PipelineView(continuous, clock, Stage.of_pixels(854, 480), Phrasebook(), RequestColours([continuous.trace]))
    for i in range(1, 25):
        film_s = i * 0.8
        state = continuous.timeline.at(clock.engine_ns(film_s))
        _, phrases = draw(lambda canvas, s=film_s: view.paint(canvas, s))
        shown = {f.source.query: f.source.value for phrase in phrases for f in phrase.figures}
        assert shown["waiting"] == state.num_waiting
        assert shown["finished"] == state.num_finished
        assert shown["prefilling"] + shown["decoding"] == state.num_running


def test_the_handover_is_one(continuous):
    handover = first_handover(continuous.trace)
    assert handover is not None
    before = continuous.timeline.at(handover.ended_ns - 1).occupancy[handover.slot]
    start = int(continuous.trace.steps.start_ns[handover.taken_step])
    after = continuous.timeline.at(start).occupancy[handover.slot]
    assert (before.request, after.request) == (handover.left, handover.came)
    assert int(continuous.trace.steps.end_ns[handover.taken_step - 1]) == handover.ended_ns


# The film's clock, the ledger, and text that is what it is.


def test_the_clock_declares_what_it_does():
    clock = FilmClock([Passage(2.0, 0, 1_000_000_000), Passage(1.0, 1_000_000_000, 1_000_000_000)])
    assert clock.film_s == 3.0
    assert [clock.engine_ns(s) for s in (-1, 0, 1, 2, 2.5, 9)] == [0, 0, 500_000_000, 10**9, 10**9, 10**9]
    assert [clock.film_second(ns) for ns in (0, 500_000_000, 10**9)] == [0, 1.0, 2.0]
    with pytest.raises(ValueError, match="begin where"):
        FilmClock([Passage(1.0, 0, 5), Passage(1.0, 6, 9)])
    with pytest.raises(ValueError, match="go back"):
        FilmClock([Passage(1.0, 5, 0)])


def test_a_film_second_is_the_first_that_shows_an_engine_time():
    clock = FilmClock([Passage(2.0, 0, 100), Passage(1.0, 100, 100), Passage(4.0, 100, 500)])
    shown = {-5: 0.0, 0: 0.0, 50: 1.0, 75: 1.5, 100: 2.0, 200: 4.0, 500: 7.0, 900: 7.0}
    assert {t_ns: clock.film_second(t_ns) for t_ns in shown} == shown
    assert all(clock.engine_ns(second) == t_ns for t_ns, second in shown.items() if 0 <= t_ns <= 500)


def test_the_ledger_joins_frames_that_follow_each_other(continuous):
    ledger = Ledger()
    phrase = figure(continuous.measure("num_requests"))
    for frame in range(6):
        if frame != 3:
            ledger.note(phrase, phrase.text)
        ledger.frame()
    ledger.note(phrase, phrase.text)
    ledger.frame(count=10)
    assert [(claim.first, claim.last) for claim in ledger.claims()] == [(0, 2), (4, 15)]


@pytest.mark.parametrize(
    "text", ["emoji 🎬🎉", "漢字かな", "עברית", "a\nb\tc\x00\x1b[31m", "x" * 500, "", " ", "<b>&amp;</b>", "\u202e"]
)
def test_any_text_is_drawn_as_it_is(text):
    from tracereel.trace.analysis.queries import Measured

    phrase = quote(Measured(text, "output_text", (), ("0" * 64,), (1, 1)))
    assert "\n" not in phrase.text
    pixels, _ = draw(lambda canvas: canvas.text(phrase, 20, 200, theme.BODY, theme.TEXT, room=800))
    assert pixels.shape == (480, 854, 3)
    scale = 480 / 1080
    assert near(colour_at(pixels, 845 * scale + 2, 200 * scale), LOOK(theme.GROUND)), "it stays within its room"


def test_phrases_are_values():
    assert words("a") + words("b") == Phrase(("a", "b"))


# As a user calls it.


@pytest.mark.slow
def test_manim_renders_each_file_without_a_display_or_an_opener(tmp_path):
    environment = {"PATH": str(Path(sys.executable).parent), "HOME": str(tmp_path)}
    if "PYTHONPATH" in os.environ:
        environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
    command = [sys.executable, "-m", "manim", "-pql", "--fps", "1", str(ROOT / "scenes" / "throughput_comparison.py")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.rglob("ThroughputComparison.mp4"))


@pytest.mark.long
def test_the_last_frame_alone_is_a_still_of_the_scene(tmp_path):
    options = ["-s", "-v", "ERROR", "--resolution", "256,144", "--media_dir", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "manim", *options, str(ROOT / "scenes" / "latency.py")], check=True)
    (still,) = tmp_path.rglob("*.png")
    pixels = np.asarray(Image.open(still).convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 50


@pytest.mark.slow
def test_other_recordings_are_played_and_missing_ones_are_one_line(tmp_path, film_recordings):
    from tracereel.trace.recordings.index import ENVIRONMENT

    command = [sys.executable, "-m", "tracereel.cli.main", "render", "throughput_comparison", "--media", str(tmp_path)]
    empty = tmp_path / "empty"
    empty.mkdir()
    done = subprocess.run([*command, "--recordings", str(empty)], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"tracereel: {empty}: holds no trace")
    assert "Traceback" not in done.stderr

    own = tmp_path / "own"
    own.mkdir()
    for name in ("continuous-1", "static-1"):
        (own / f"{name}.jsonl.zst").write_bytes((film_recordings / f"{name}.jsonl.zst").read_bytes())
    done = subprocess.run(
        [*command, "--fps", "1"], capture_output=True, text=True, env={**os.environ, ENVIRONMENT: str(own)}
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[-1]).is_file()
