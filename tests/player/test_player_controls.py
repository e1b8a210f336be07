"""Every control by mouse, keyboard and touch; what is seen is what the recording holds."""

import random
import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import settled
from tracereel.cli import render
from tracereel.cli.main import main
from tracereel.film.colours import RequestColours
from tracereel.film.theme import DARK, REQUESTS
from tracereel.trace.analysis.queries import Run
from tracereel.trace.analysis.step_bounds import BOUNDS, step_bounds

WIDTHS = (320, 390, 768, 1280, 2560)


@pytest.fixture(scope="module")
def runs(film_recordings):
    return [Run.read(film_recordings / f"{case}-1.jsonl.zst") for case in ("static", "continuous")]


@pytest.fixture
def one(open_page, runs):
    return open_page([runs[1].trace.path])


@pytest.fixture
def two(open_page, runs):
    return open_page([run.trace.path for run in runs])


def clock(page):
    return page.evaluate("tracereel.app.clock.t")


def view(page):
    return page.evaluate("[tracereel.app.view.from, tracereel.app.view.to]")


def box_of(page, part):
    """A part of the first canvas ("grid", "map", ...) in the page's pixels."""
    page.locator("canvas").first.scroll_into_view_if_needed()
    return page.evaluate(
        """(part) => {
          const lane = tracereel.app.lanes[0];
          const box = lane.canvas.getBoundingClientRect();
          const { x, y, width, height } = lane[part];
          return { x: box.x + x, y: box.y + y, width, height };
        }""",
        part,
    )


def test_every_button_does_something(two):
    for button in two.locator("button:visible").all():
        if button.get_attribute("id") in ("open-help", "open-about", "open-film"):
            button.click()
            assert two.locator("dialog[open]").count() == 1
            two.locator("dialog[open] .close").click()
            assert two.locator("dialog[open]").count() == 0
        else:
            button.click()
        settled(two)


def test_the_films_command_renders_what_is_in_view(two, runs, monkeypatch):
    two.evaluate("tracereel.app.pick({ lane: tracereel.app.lanes[1], slot: 3, step: 120 })")
    two.evaluate("tracereel.app.look(tracereel.app.view.zoomed(0.1, 3e9))")
    two.focus("#open-film")
    two.keyboard.press("Enter")
    command = two.text_content("#film pre").split()
    two.keyboard.press("Escape")
    asked = {}

    def note(name, settings, *rest):
        asked[name] = settings
        return name, []

    monkeypatch.setattr(render, "render_scene", note)
    assert main(command[1:]) == 0
    window = asked["decode_batching"].window
    assert window.run == runs[1].trace.name
    assert asked["decode_batching"].device == "cpu"
    assert window.slots == (0, 7)
    begin = runs[1].timeline.begin_ns
    edges = two.evaluate(
        "[tracereel.app.view.from, tracereel.app.view.to].map((x) => tracereel.app.lanes[1].axis.time(x))"
    )
    assert [window.from_ns - begin, window.to_ns - begin] == pytest.approx(edges, abs=1001)


def test_jumps_by_mouse_go_where_their_keys_go(one):
    buttons = {
        "next-admission": "a",
        "next-finish": "f",
        "next-preemption": "e",
        "next-step": ".",
        "previous-step": ",",
    }
    buttons |= {"slowest-step": "s", "longest-wait": "w", "worst-pause": "g"}
    for button, key in buttons.items():
        one.evaluate("tracereel.app.goTo(3e9)")
        one.click(f"#{button}")
        by_mouse = clock(one)
        one.evaluate("tracereel.app.goTo(3e9)")
        one.keyboard.press(key)
        assert clock(one) == by_mouse, button


def test_the_next_admission_finish_and_step_are_the_recordings(one, runs):
    run, t = runs[1], int(3e9)
    trace, begin = run.trace, run.timeline.begin_ns
    expected = {
        "a": min(at for at in trace.residencies.from_ns.tolist() if at - begin > t),
        "f": min(at for at in run.timeline.ended_times if at - begin > t),
        ".": min(at for at in trace.steps.start_ns.tolist() if at - begin > t),
    }
    for key, at in expected.items():
        one.evaluate("(t) => tracereel.app.goTo(t)", t)
        one.keyboard.press(key)
        assert clock(one) == at - begin, key


def test_play_passes_engine_time_at_the_declared_factor(one):
    one.evaluate("tracereel.app.goTo(0)")
    one.select_option("#speed", "0.1")
    one.click("#play")
    # It is said with the next picture.
    one.locator("#factor", has_text="10× slower").wait_for(timeout=20_000)
    begun, t = one.evaluate("[tracereel.app.clock.last, tracereel.app.clock.t]")
    one.wait_for_timeout(600)
    later, now = one.evaluate("[tracereel.app.clock.last, tracereel.app.clock.t]")
    one.keyboard.press("Space")
    assert now > t
    assert now - t == pytest.approx((later - begun) * 1e6 * 0.1, rel=0.15)
    held = clock(one)
    one.wait_for_timeout(100)
    assert clock(one) == held


def test_little_motion_moves_the_clock_by_leaps(open_page, runs):
    page = open_page([runs[1].trace.path], reduced_motion="reduce")
    page.evaluate("tracereel.app.goTo(0)")
    page.click("#play")
    seen = sorted({clock(page) for _ in range(30) if page.wait_for_timeout(20) is None})
    leaps = [later - earlier for earlier, later in pairwise(seen)]
    assert leaps
    assert min(leaps) >= 250e6 * page.evaluate("tracereel.app.clock.factor") - 1e3


def test_wheel_drag_minimap_ruler_and_bands(one):
    grid, whole = box_of(one, "grid"), view(one)
    middle = (grid["x"] + grid["width"] / 2, grid["y"] + grid["height"] / 2)
    one.mouse.move(*middle)
    for _ in range(6):
        one.mouse.wheel(0, -300)
    close = view(one)
    assert close[1] - close[0] < (whole[1] - whole[0]) / 4
    one.mouse.down()
    one.mouse.move(middle[0] - 100, middle[1], steps=4)
    one.mouse.up()
    assert view(one)[0] > close[0]
    one.mouse.wheel(200, 0)
    strip = box_of(one, "map")
    one.mouse.click(strip["x"] + 10, strip["y"] + strip["height"] / 2)
    assert view(one)[0] < close[0]
    one.keyboard.press("0")
    assert view(one) == whole
    band = box_of(one, "bandBox")
    one.mouse.click(band["x"] + band["width"] / 2, band["y"] + 10)
    half = clock(one)
    assert half == pytest.approx(one.evaluate("tracereel.app.clock.end") / 2, rel=0.05)


def test_two_fingers_zoom(open_page, runs):
    page = open_page([runs[1].trace.path], has_touch=True, viewport={"width": 390, "height": 800})
    grid, whole = box_of(page, "grid"), view(page)
    touch = page.context.new_cdp_session(page)
    y = grid["y"] + grid["height"] / 2

    def send(kind, *xs):
        points = [{"x": x, "y": y, "id": i} for i, x in enumerate(xs)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    send("touchStart", 150, 200)
    for apart in (20, 60, 100):
        send("touchMove", 150 - apart, 200 + apart)
    send("touchEnd")
    now = view(page)
    assert now[1] - now[0] < (whole[1] - whole[0]) / 2


GPU = Path(__file__).parents[1] / "data" / "h100" / "film"


@pytest.fixture
def wide(open_page):
    """A page of a run with 64 slots."""
    return open_page([GPU / "continuous-1.jsonl.zst"])


def rows(page):
    return page.evaluate("[tracereel.app.lanes[0].rows.first, tracereel.app.lanes[0].rows.count]")


def test_fewer_slots_have_taller_rows_by_key_wheel_and_drag(wide):
    height = wide.evaluate("tracereel.app.lanes[0].grid.height")
    assert rows(wide) == [0, 64]
    wide.keyboard.press("v")
    settled(wide)
    assert rows(wide)[1] == 32
    assert wide.evaluate("tracereel.app.lanes[0].row") == pytest.approx(height / 32)
    wide.click("#fewer-slots")
    assert rows(wide)[1] == 16
    grid = box_of(wide, "grid")
    middle = (grid["x"] + grid["width"] / 2, grid["y"] + grid["height"] / 2)
    first = rows(wide)[0]
    wide.mouse.move(*middle)
    wide.mouse.down()
    wide.mouse.move(middle[0], middle[1] - 5 * grid["height"] / 16, steps=3)
    wide.mouse.up()
    assert rows(wide) == [first + 5, 16]
    wide.keyboard.down("Alt")
    wide.mouse.wheel(0, -100)
    wide.keyboard.up("Alt")
    assert rows(wide)[1] == 12
    wide.keyboard.press("Shift+V")
    assert rows(wide)[1] == 24
    wide.keyboard.press("0")
    assert rows(wide) == [0, 64]


def test_the_picture_of_some_slots_is_of_those_slots(wide):
    run = Run.read(GPU / "continuous-1.jsonl.zst")
    wide.keyboard.press("t")
    wide.evaluate("tracereel.app.closeUp({ lane: tracereel.app.lanes[0], slot: 40, step: 120 })")
    settled(wide)
    first, count = rows(wide)
    assert first < 40 < first + count < 64
    shown = wide.evaluate(
        """() => {
          const lane = tracereel.app.lanes[0], { canvas, rows, row, grid } = lane;
          const ratio = canvas.width / lane.width, copy = document.createElement("canvas");
          Object.assign(copy, { width: canvas.width, height: canvas.height });
          const context = copy.getContext("2d", { willReadFrequently: true });
          context.drawImage(canvas, 0, 0);
          return Array.from({ length: rows.count }, (_, i) => {
            const [x, y] = [lane.xOf(120.12) * ratio, (grid.y + i * row + row - 2.5) * ratio];
            return [...context.getImageData(x, y, 1, 1).data.slice(0, 3)];
          });
        }"""
    )
    colours = RequestColours([run.trace])
    for slot, colour in zip(range(first, first + count), shown, strict=True):
        occupant = run.timeline.at(int(run.trace.steps.start_ns[120])).occupancy[slot]
        expected = [round(255 * part) for part in DARK.rgb(colours[occupant.request])]
        assert colour == pytest.approx(expected, abs=2), slot
    lettered = "".join(ElementTree.fromstring(wide.evaluate("tracereel.app.svg")).itertext())
    for slot in (first, 40, first + count - 1):
        assert f"slot {slot}" in lettered
    members = run.trace.steps.members(120)
    at = members.start + run.trace.steps.member_slot[members].tolist().index(40)
    request = int(run.trace.steps.member_request[at])
    token = run.trace.texts_of(request)[run.timeline.at(int(run.trace.steps.start_ns[120])).output_tokens_of(request)]
    assert token.strip()[:2] in lettered


def test_a_double_click_and_a_link_come_close_to_a_cell_of_many(open_page, wide):
    grid = box_of(wide, "grid")
    wide.mouse.dblclick(grid["x"] + grid["width"] / 2, grid["y"] + grid["height"] * 0.7)
    first, count = rows(wide)
    assert first <= 44 < first + count
    assert count < 30
    steps = wide.evaluate("tracereel.app.lanes[0].axis.steps(tracereel.app.view.from, tracereel.app.view.to)")
    assert steps[1] - steps[0] < 60
    linked = open_page([GPU / "continuous-1.jsonl.zst"], "#cell=50,200")
    first, count = rows(linked)
    assert first <= 50 < first + count < 64
    linked.focus("canvas")
    for _ in range(30):
        linked.keyboard.press("ArrowUp")
    assert rows(linked)[0] == 20
    settled(linked)
    linked.wait_for_function("() => document.querySelector('.for-readers tbody th')?.textContent === 'slot 20'")
    assert linked.locator(".for-readers tbody tr").count() == count
    linked.click("#open-film")
    asked = re.search(r"--slots (\d+)-(\d+)", linked.text_content("#film pre"))
    assert int(asked[1]) >= 20
    assert int(asked[2]) < 20 + count


def test_two_fingers_above_each_other_zoom_the_slots(open_page):
    page = open_page([GPU / "continuous-1.jsonl.zst"], has_touch=True, viewport={"width": 390, "height": 800})
    grid, whole = box_of(page, "grid"), view(page)
    touch = page.context.new_cdp_session(page)
    y = grid["y"] + grid["height"] / 2

    def send(kind, *ys):
        points = [{"x": 200, "y": at, "id": i} for i, at in enumerate(ys)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    send("touchStart", y - 20, y + 20)
    for apart in (40, 60, 80):
        send("touchMove", y - apart, y + apart)
    send("touchEnd")
    assert rows(page)[1] < 32
    assert view(page) == whole


def test_a_click_opens_the_request_under_it_and_its_answer_grows(one, runs):
    run = runs[1]
    grid = box_of(one, "grid")
    occupant = run.timeline.at(run.timeline.begin_ns + int(2e9)).occupancy[3]
    x = one.evaluate("(t) => tracereel.app.lanes[0].xOf(t)", 2e9) - one.evaluate("tracereel.app.lanes[0].grid.x")
    one.mouse.click(grid["x"] + x, grid["y"] + grid["height"] * 3.5 / 8)
    settled(one)
    assert f"Request R{occupant.request + 1}" in one.text_content("#request h3")
    texts = run.trace.texts_of(occupant.request)
    for share in (0.1, 0.5, 1):
        t_ns = int(run.timeline.begin_ns + share * 5e9)
        one.evaluate("(t) => tracereel.app.goTo(t)", t_ns - run.timeline.begin_ns)
        settled(one)
        written = "".join(texts[: run.timeline.at(t_ns).output_tokens_of(occupant.request)])
        assert one.text_content("#request .quote:last-child") == written
    assert run.trace.arrivals[occupant.request].prompt in one.text_content("#request")


def test_two_runs_stand_on_one_clock_with_their_difference(two, runs):
    for seconds in (0.5, 4, 9, 16):
        two.evaluate("(t) => tracereel.app.goTo(t)", seconds * 1e9)
        settled(two)
        states = [run.timeline.at(run.timeline.begin_ns + int(seconds * 1e9)) for run in runs]
        one, other = (state.output_tokens for state in states)
        row = two.locator("#difference tbody tr").first.locator("td").all_text_contents()
        signed = f"{other - one:+,d}".replace("-", "\N{MINUS SIGN}").removeprefix("+" if other == one else "")
        assert row == [f"{one:,}", f"{other:,}", signed]
        if other > one:
            assert f"Continuous 1 is ahead by {other - one:,}" in two.text_content("#difference")
    two.select_option("#second-run", "")
    settled(two)
    assert two.locator("canvas").count() == 1
    assert two.locator("#difference").is_hidden()


@pytest.mark.parametrize("device", ["cpu", "h100"])
def test_the_ratio_is_that_of_all_repeats(open_page, film_recordings, device):
    folder = film_recordings if device == "cpu" else Path(__file__).parents[1] / "data" / "h100" / "film"
    cases = [[Run.read(folder / f"{case}-{i}.jsonl.zst") for i in (1, 2, 3)] for case in ("static", "continuous")]
    page = open_page([run.trace.path for case in cases for run in case])
    from tracereel.trace.analysis.queries import measure

    ratio = measure("throughput_ratio_median", [*cases[1], *cases[0]], numerator=3).value
    assert f"{ratio:.2f}×, median of 3 pairs" in page.text_content("#difference")
    assert "median" in page.text_content("#first-run option:checked")


def test_the_first_run_and_the_link_are_had_by_keyboard(two, runs):
    two.focus("#first-run")
    before = two.evaluate("tracereel.app.lanes[0].run.facts.key")
    two.keyboard.press("ArrowDown")
    two.wait_for_function("(key) => tracereel.app.lanes[0].run.facts.key !== key", arg=before)
    assert two.evaluate("tracereel.app.lanes[0].run.facts.key") == runs[1].trace.name
    two.press("#copy-link", "Enter")
    assert two.get_attribute("#copy-link", "data-done") == "true"
    assert runs[1].trace.name in two.evaluate("location.hash")


def test_runs_of_different_work_are_shown_without_a_ratio(open_page, film_recordings):
    other = film_recordings.parents[1] / "chunked" / "cpu" / "chunked-1.jsonl.zst"
    page = open_page([film_recordings / "static-1.jsonl.zst", other])
    assert "differ in workload.digest" in page.text_content("#difference")


def test_a_link_leads_to_its_run_time_and_cell(open_page, runs):
    run = runs[1]
    paths = [one.trace.path for one in runs]
    page = open_page(paths, f"#run={run.trace.name}&t=4.25&cell=2,150")
    assert page.locator("canvas").count() == 1
    assert clock(page) + run.timeline.begin_ns == pytest.approx(4.25e9, abs=1)
    assert page.evaluate("[tracereel.app.focus.slot, tracereel.app.focus.step]") == [2, 150]
    written = page.evaluate("tracereel.app.link")
    again = open_page(paths, written)
    assert again.evaluate("tracereel.app.link") == written
    again.evaluate("location.hash = '#t=1.5'")
    again.wait_for_function("Math.abs(tracereel.app.clock.t - 1.5e9 + tracereel.app.lanes[0].run.facts.begin_ns) < 2")


@pytest.mark.parametrize(
    "link", ["#run=zz&t=-1&cell=9", "#t=1e999&cell=999,999999999", "#<script>", "#run=,,,&t=99999999"]
)
def test_a_senseless_link_does_no_harm(open_page, runs, link):
    page = open_page([runs[1].trace.path], link)
    assert page.evaluate("tracereel.app.focus") is None


def test_the_picture_holds_what_the_timeline_says_cell_by_cell(open_page, runs):
    for run in runs:
        page = open_page([run.trace.path])
        page.keyboard.press("t")
        steps = run.trace.steps
        for first in random.Random(2).sample(range(len(steps) - 30), 4):
            shown = page.evaluate(
                """([first, count]) => {
                  const { app } = tracereel, [lane] = app.lanes;
                  app.look(app.view.constructor.prototype.moved.call({ from: first, to: first + count }, 0));
                  return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
                    const { grid, row, run, canvas } = lane;
                    const ratio = canvas.width / lane.width, copy = document.createElement("canvas");
                    Object.assign(copy, { width: canvas.width, height: canvas.height });
                    const context = copy.getContext("2d", { willReadFrequently: true });
                    context.drawImage(canvas, 0, 0);
                    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
                    const pixel = (x, y) => {
                      const at = 4 * (Math.floor(y * ratio) * canvas.width + Math.floor(x * ratio));
                      return [...data.slice(at, at + 3)];
                    };
                    done(Array.from({ length: count }, (_, k) => Array.from({ length: run.slots }, (_, slot) =>
                      pixel(lane.xOf(first + k + 0.12), grid.y + slot * row + row - 4))));
                  })));
                }""",
                [first, 20],
            )
            for k, column in enumerate(shown):
                t_ns = int(steps.start_ns[first + k])
                for occupant, colour in zip(run.timeline.at(t_ns).occupancy, column, strict=True):
                    role = REQUESTS[0] if occupant is None else RequestColours([run.trace])[occupant.request]
                    expected = [round(255 * part) for part in DARK.rgb(role)]
                    if occupant is not None and occupant.computes:
                        assert colour == pytest.approx(expected, abs=2), (first + k, occupant)
                    else:
                        assert colour != expected, (first + k, occupant)


def test_why_a_step_was_what_it_was(one, runs):
    trace = runs[1].trace
    bounds = step_bounds(trace)
    words = ("nobody waiting", "slots", "token budget", "KV blocks", "the engine's policy", "KV loading", "not known")
    for step in (0, 1, 60, 200, len(trace.steps) - 1):
        one.evaluate("(step) => tracereel.app.goTo(tracereel.app.lanes[0].run.step.start[step])", step)
        settled(one)
        said = one.text_content("#step-facts")
        assert said.endswith(words[bounds[step]]), step
        admitted = trace.residencies.request[trace.residencies.first_step == step].tolist()
        for request in admitted:
            assert f"R{request + 1}" in said
        assert ("admitted" in said) == bool(admitted)
    assert len(words) == len(BOUNDS)


def test_a_screen_reader_finds_names_a_table_and_the_focused_cell(one, runs):
    trace = runs[1].trace
    for control in one.locator("button:visible, select:visible, canvas").all():
        name = control.evaluate("(e) => e.getAttribute('aria-label') || e.textContent || e.labels?.[0]?.textContent")
        assert name.strip()
    one.focus("canvas")
    one.keyboard.press("ArrowRight")
    one.keyboard.press("ArrowDown")
    settled(one)
    focus = one.evaluate("[tracereel.app.focus.slot, tracereel.app.focus.step]")
    said = one.text_content("#live")
    assert said.startswith(f"Slot {focus[0]}, step {focus[1]}")
    one.wait_for_function(
        "(n) => document.querySelector('.for-readers thead th + th')?.textContent === n", arg=str(focus[1])
    )
    table = one.locator(".for-readers table")
    assert table.locator("tbody tr").count() == trace.header.slots
    assert table.locator("thead th").nth(1).text_content() == str(focus[1])
    tree = one.locator("body").aria_snapshot()
    assert re.search(r"table \"Continuous 1: what each slot did", tree)
    assert re.search(r'application ".*8 slots', tree)
    outline = one.locator("canvas").evaluate("(e) => getComputedStyle(e).outlineStyle")
    assert outline == "solid"


def test_texts_of_a_trace_are_never_markup(open_page, tmp_path):
    from conftest import strange_texts

    path = tmp_path / "strange.jsonl"
    strange_texts(path)
    page = open_page([path])
    page.evaluate("tracereel.app.select({ lane: tracereel.app.lanes[0], request: 3 })")
    settled(page)
    shown = page.text_content("#request")
    assert "</script><b>&amp;" in shown
    assert not re.search("[\x00\x1b\u202e\u2028]", shown)
    assert page.locator("#request b").count() == 0
    svg = page.evaluate("tracereel.app.svg")
    assert not re.search("[\x00\x1b\u202e]", svg)
    ElementTree.fromstring(svg)


def test_the_window_is_saved_as_svg_and_png(two, tmp_path):
    for kind, magic in (("svg", b"<svg"), ("png", b"\x89PNG")):
        file, saved = tmp_path / f"window.{kind}", []
        for key in ("", "Enter"):
            with two.expect_download() as download:
                two.press(f"#save-{kind}", key) if key else two.click(f"#save-{kind}")
            download.value.save_as(file)
            saved.append(file.read_bytes())
        assert saved[0] == saved[1]
        assert saved[0].startswith(magic)
        assert download.value.suggested_filename.endswith(kind)
    text = "".join(ElementTree.parse(tmp_path / "window.svg").getroot().itertext())
    assert "Static 1" in text
    assert "Continuous 1" in text


@pytest.mark.parametrize("width", WIDTHS)
def test_no_width_makes_the_page_scroll_sideways(open_page, runs, width):
    page = open_page([run.trace.path for run in runs], "#cell=3,120", viewport={"width": width, "height": 800})
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("tracereel.app.lanes[0].canvas.clientWidth") > width * 0.45


def test_light_dark_and_both_languages(open_page, runs):
    page = open_page([runs[1].trace.path], color_scheme="light")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(ground)
    page.click("#theme")
    assert page.evaluate(ground) != light
    assert page.evaluate("document.documentElement.lang") == "en"
    page.click("#language")
    settled(page)
    assert page.evaluate("document.documentElement.lang") == "zh"
    assert "等待" in page.text_content(".numbers")


STATE = """() => {
  const { app } = tracereel;
  const open = [...document.querySelectorAll("dialog[open]")].map((dialog) => dialog.id);
  const { view, mode, language, theme, selected, clock, lanes } = app;
  const shown = lanes.map((lane) => lane.run.facts.key);
  return JSON.stringify([clock.playing || clock.t, view, mode, language, theme.choice, selected?.request, open, shown]);
}"""


@pytest.mark.long
def test_every_control_is_reached_by_tab_and_does_by_keyboard_what_it_does_by_mouse(open_page, film_recordings):
    repeats = [film_recordings / f"{case}-{i}.jsonl.zst" for case in ("static", "continuous") for i in (1, 2)]
    page = open_page(repeats)
    page.evaluate("tracereel.app.goTo(3e9)")
    begun = page.evaluate("location.href")
    wanted = {control.get_attribute("id") for control in page.locator("nav button, header button, select").all()}
    reached = set()
    for _ in range(3 * len(wanted)):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert wanted <= reached, wanted - reached
    for control in sorted(wanted - {"speed", "first-run", "second-run", "save-svg", "save-png", "copy-link"}):
        states = []
        for by_key in (False, True):
            page.goto("about:blank")
            page.goto(begun)
            page.wait_for_selector("html[data-ready=true]")
            page.evaluate("tracereel.app.goTo(3e9)")
            if by_key:
                page.focus(f"#{control}")
                page.keyboard.press("Enter")
            else:
                page.click(f"#{control}")
            states.append(page.evaluate(STATE))
        assert states[0] == states[1], control
    page.keyboard.press("Escape")
    page.focus("#second-run")
    page.keyboard.press("ArrowDown")
    settled(page)
    assert page.locator("canvas").count() == 2
    page.focus("#speed")
    factor = page.evaluate("tracereel.app.clock.factor")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("tracereel.app.clock.factor") != factor
