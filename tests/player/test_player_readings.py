"""What is read off under the pointer and next to the bands is what the recording says, with many steps too."""

import importlib.util
import random
from pathlib import Path

import numpy as np
import pytest
from conftest import settled
from tracereel.trace.analysis.queries import Run
from tracereel.trace.analysis.step_bounds import BOUNDS, WORDS, bound_shares, step_bounds
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS
from tracereel.trace.state.columns import Trace

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
LEAST_FRAME_RATE = 30


def benchmark(name):
    """A benchmark as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hovered(page, slot, step):
    """The tip under the pointer in the middle of a cell."""
    page.locator("canvas").first.scroll_into_view_if_needed()
    x, y = page.evaluate(
        """([slot, step]) => {
          const [lane] = tracereel.app.lanes, box = lane.canvas.getBoundingClientRect();
          const { grid, row, rows } = lane;
          return [box.x + lane.xOf(step + 0.5), box.y + grid.y + (slot - rows.first + 0.5) * row];
        }""",
        [slot, step],
    )
    page.mouse.move(x, y)
    return page.text_content("#tip") if page.locator("#tip").is_visible() else None


def said_of(run, slot, step):
    """What the tip must hold of a cell: slot, step and its time; request, phase, position and token."""
    steps, trace = run.trace.steps, run.trace
    where = f"Slot {slot}, step {step:,} ({as_ms(int(steps.end_ns[step] - steps.start_ns[step]))})"
    members = steps.members(step)
    for i in range(members.start, members.stop):
        if steps.member_slot[i] != slot:
            continue
        request, position = int(steps.member_request[i]), int(steps.member_position[i])
        phase = "decodes" if steps.member_decode[i] else f"prefills {steps.member_computed[i]} tokens"
        wrote = int(steps.member_sampled[i])
        before = run.timeline.at(int(steps.start_ns[step])).output_tokens_of(request)
        token = trace.texts_of(request)[before] if wrote else ""
        return [
            where,
            f"R{request + 1} {phase}",
            f"position {position}",
            token.strip(),
        ]
    return [where]


def as_ms(ns):
    """A duration as the page writes it: three digits, none finer than a microsecond."""
    ms = ns / 1e6
    return f"{ms:.{3 if ms < 1 else 2 if ms < 10 else 1 if ms < 100 else 0}f} ms"


def test_the_pointer_reads_number_token_position_phase_and_step_time(open_page, film_recordings):
    run = Run.read(film_recordings / "continuous-1.jsonl.zst")
    page = open_page([run.trace.path])
    page.keyboard.press("t")
    rng, phases = random.Random(8), set()
    for step in [0, 1, *rng.sample(range(len(run.trace.steps)), 10)]:
        slot = rng.randrange(run.trace.header.slots)
        page.evaluate("(step) => tracereel.app.look(new tracereel.app.view.constructor(step - 4, step + 5))", step)
        settled(page)
        tip = hovered(page, slot, step)
        for part in said_of(run, slot, step):
            assert part in tip, (step, slot, tip)
        phases |= {word for word in ("decodes", "prefills") if word in tip}
    assert phases == {"decodes", "prefills"}
    page.mouse.move(2, 2)
    assert page.locator("#tip").is_hidden()


def test_the_bands_have_the_timelines_numbers(open_page, film_recordings):
    run = Run.read(film_recordings / "continuous-1.jsonl.zst")
    page, steps = open_page([run.trace.path]), run.trace.steps
    for step in random.Random(9).sample(range(len(steps)), 12):
        t_ns = (int(steps.start_ns[step]) + int(steps.end_ns[step])) // 2
        shown = page.evaluate("(t) => tracereel.app.lanes[0].bands.labels(t)", t_ns - run.timeline.begin_ns)
        state = run.timeline.at(t_ns)
        from_ns = int(steps.end_ns[step - 1]) if step else int(steps.start_ns[0])
        rate = int(steps.sampled[step]) / (int(steps.end_ns[step]) - from_ns) * 1e9
        batch = sum(1 for occupant in state.occupancy if occupant and occupant.computes)
        numbers = [float(value.replace(",", "")) for _, value in shown]
        assert numbers == [state.num_waiting, batch, state.kv_used, pytest.approx(rate, abs=0.51)], step


@pytest.mark.parametrize(
    "steps",
    [pytest.param(20_000, marks=pytest.mark.long), pytest.param(1_000_000, marks=pytest.mark.exhaustive)],
)
def test_many_steps_are_drawn_fast_and_read_right(open_page, tmp_path, steps):
    """The million's page takes minutes to make."""
    player = benchmark("player")
    path = tmp_path / "many.jsonl"
    benchmark("trace_scale").generate(path, steps)
    run = Run.read(path)
    page = open_page([path])
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    for kind in ("zoom", "drag", "play"):
        before = player.busy_s(session)
        page.evaluate(player.FRAMES, [kind, player.COUNT])
        assert player.COUNT / (player.busy_s(session) - before) > LEAST_FRAME_RATE, kind
    page.keyboard.press("t")
    for step in random.Random(10).sample(range(steps), 4):
        page.evaluate("(step) => tracereel.app.look(new tracereel.app.view.constructor(step - 4, step + 5))", step)
        settled(page)
        tip = hovered(page, 31, step)
        for part in said_of(run, 31, step):
            assert part in tip, (step, tip)


# The areas of the band of bounds, by colour, painted ten pixels wide on a surface that only counts.
PAINTED = """(mode) => {
  const lane = tracereel.app.lanes[0];
  const areas = {};
  const surface = {
    rect: (x, y, width, height, colour) => y >= bottom && (areas[colour] = (areas[colour] ?? 0) + width * height),
    text: () => {},
    textWidth: () => 0,
  };
  const { bands } = lane;
  const box = { x: 0, y: 0, width: 10, height: bands.height };
  const bottom = bands.height - 16;
  const axis = lane.axes[mode];
  const roles = { ...tracereel.app.theme.palette };
  for (const role of Object.keys(roles)) roles[role] = role;
  bands.paint(surface, axis, { from: 0, to: axis.length, width: axis.length }, box, { palette: roles, t: -1e15 });
  return areas;
}"""
PLAYER_WORDS = {**WORDS, "policy": "the engine's policy"}
ROLES = ("dim", "decode", "prefill", "same_position", "static", "transformers", "line")
"""The palette's role of each bound."""


@pytest.mark.parametrize("name", ["film/cpu/static-1", "paging/cpu/prefix-caching-1"])
def test_the_band_shows_the_shares_that_inspect_prints(open_page, name):
    trace = Trace.read(PACKAGE_RECORDINGS / f"{name}.jsonl.zst")
    page = open_page([trace.path])
    bounds = step_bounds(trace)
    said = page.locator("#legend li").all_text_contents()
    assert said[-len(set(bounds.tolist())) - 1 :] == [
        "what bound a step:",
        *(PLAYER_WORDS[BOUNDS[code]] for code in np.unique(bounds)),
    ]
    of_steps = np.bincount(bounds, minlength=len(BOUNDS)) / len(bounds)
    shares = list(bound_shares(trace).values())
    assert shares != pytest.approx(of_steps, abs=0.01)
    for mode, want in (("time", shares), ("step", of_steps)):
        areas = page.evaluate(PAINTED, mode)
        areas.pop("panel")
        whole = sum(areas.values())
        assert [areas.get(role, 0) / whole for role in ROLES] == pytest.approx(want, abs=0.012), mode
