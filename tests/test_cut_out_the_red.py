"""Every request is drawn where the static run had it, and at last where the continuous run had it."""

import pytest
from drawing import LOOK, SIZE, draw, near, pixel
from tracereel.film import theme
from tracereel.film.beats.cut_out_the_red import _NUMBER_S, _CutOut
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.trace.analysis.pairs import throughput_ratio


@pytest.fixture(scope="module")
def scene():
    return _CutOut(Show(Settings(device="cpu"), SIZE))


@pytest.mark.slow
@pytest.mark.parametrize(("which", "film_s"), [("static", 3.0), ("continuous", -_NUMBER_S - 0.5)])
def test_the_grid_is_the_static_run_first_and_the_continuous_run_at_last(scene, which, film_s):
    run = getattr(scene, which)
    colours = scene.show.colours()
    second = film_s if film_s >= 0 else scene.clock.film_s + film_s
    picture, _ = draw(lambda canvas: scene.paint(canvas, second), SIZE)
    grid = scene.grid_at(second)
    rows = grid.rows(run.trace.header.slots, min(8.0, grid.h / run.trace.header.slots * 0.12))
    span = max(r.timeline.end_ns - r.timeline.begin_ns for r in (scene.static, scene.continuous))
    checked = 0
    for i in range(1, 60):
        since = span * i // 60
        around = [run.timeline.at(run.timeline.begin_ns + since + d).occupancy for d in (-span // 300, 0, span // 300)]
        for slot, row in enumerate(rows):
            held = {occupants[slot].request if occupants[slot] else None for occupants in around}
            if len(held) > 1 or held == {None}:
                continue
            seen = pixel(picture, grid.x + grid.w * since / span, row.y + row.h / 2)
            assert near(seen, LOOK(colours[held.pop()])), (i, slot)
            checked += 1
    assert checked > 100


def test_the_red_is_where_slots_were_empty_while_requests_waited(scene):
    picture, _ = draw(lambda canvas: scene.paint(canvas, 3.0), SIZE)
    grid = scene.grid_at(3.0)
    run = scene.static
    rows = grid.rows(run.trace.header.slots, min(8.0, grid.h / run.trace.header.slots * 0.12))
    steps, red = run.trace.steps, 0
    span = run.timeline.end_ns - run.timeline.begin_ns
    for step in range(5, len(steps), 40):
        middle = (int(steps.start_ns[step]) + int(steps.end_ns[step])) // 2
        occupants = run.timeline.at(middle).occupancy
        for slot, row in enumerate(rows):
            seen = pixel(picture, grid.x + grid.w * (middle - run.timeline.begin_ns) / span, row.y + row.h / 2)
            is_red = near(seen, LOOK(theme.IDLE_SLOT))
            assert is_red == (occupants[slot] is None and int(steps.waiting[step]) > 0), (step, slot)
            red += is_red
    assert red > 20


def test_the_last_number_is_that_of_compare(scene):
    assert scene.pairs == throughput_ratio([r.trace for r in scene.after], [r.trace for r in scene.before]).pairs
    _, phrases = draw(lambda canvas: scene.paint(canvas, scene.clock.film_s - 0.2), SIZE)
    texts = [phrase.text for phrase in phrases]
    assert any(text == f"{sorted(scene.pairs)[len(scene.pairs) // 2]:.2f}×" for text in texts), texts


@pytest.mark.slow
def test_steps_of_a_millisecond_are_said_too(tmp_path):
    from dataclasses import replace
    from pathlib import Path

    data = Path(__file__).parent / "data"
    found = sorted(path for path in data.rglob("*.jsonl.zst") if "h100" in str(path).lower())
    assert {path.name.rsplit("-", 1)[0] for path in found} >= {"static", "continuous"}
    shown = Show(replace(Settings(), recordings=found[0].parent), SIZE)
    said = " ".join(caption.phrase.text for caption in _CutOut(shown).beat().captions)
    assert "ms" in said


@pytest.mark.parametrize("film_s", [0.6, 1.3, 2.0])
def test_the_static_run_plays_in(scene, film_s):
    """What has happened by then is drawn, what comes later is not."""
    run, colours = scene.static, scene.show.colours()
    picture, _ = draw(lambda canvas: scene.paint(canvas, film_s), SIZE)
    now, grid = scene.clock.engine_ns(film_s), scene.grid_at(film_s)
    span = max(r.timeline.end_ns - r.timeline.begin_ns for r in (scene.static, scene.continuous))
    rows, drawn, blank = scene.static_grid.rows(grid), 0, 0
    for i in range(1, 60):
        t_ns = run.timeline.begin_ns + span * i // 60
        for slot, occupant in enumerate(run.timeline.at(t_ns).occupancy):
            if occupant is None or occupant.prefill or abs(t_ns - now) < span // 200:
                continue
            x = grid.x + grid.w * (t_ns - run.timeline.begin_ns) / span
            seen = pixel(picture, x, rows[slot].y + rows[slot].h / 2)
            if t_ns < now:
                drawn += near(seen, LOOK(colours[occupant.request]))
            else:
                blank += 1
                assert near(seen, LOOK(theme.PANEL)), (t_ns, slot)
    assert drawn > 5
    assert blank > 5


def test_the_bars_are_as_long_as_the_steps_took_on_average(scene):
    second = scene.number_s - 0.2
    _, phrases = draw(lambda canvas: scene.paint(canvas, second), SIZE)
    shown = [f.source.value for phrase in phrases for f in phrase.figures if f.source.query == "step_ms"]
    assert shown == [run.measure("step_ms", part="mean").value for run in (scene.static, scene.continuous)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "named"), [("dark", "red"), ("light", "grey")])
def test_the_colour_that_is_named_is_the_one_that_is_seen(name, named):
    beat = _CutOut(Show(Settings.read({"theme": name, "device": "cpu"}), SIZE)).beat()
    assert beat.title.text == f"Cut out the {named}"
    assert named in beat.captions[0].phrase.text.lower()
    red, green, blue = theme.PALETTES[name].rgb(theme.IDLE_SLOT)
    assert (red - max(green, blue) > 0.1) is (named == "red")
    assert (max(red, green, blue) - min(red, green, blue) < 0.06) is (named == "grey")
