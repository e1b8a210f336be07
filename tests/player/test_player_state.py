"""What the page computes itself is what Python computes, on every recording set and every kind of trace."""

import random
from pathlib import Path

import numpy as np
import pytest
from tracereel.player.figures import moments_of
from tracereel.trace.analysis.queries import Run
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS

ROOT = Path(__file__).resolve().parents[2]
RECORDED = [
    *(PACKAGE_RECORDINGS / "film" / "cpu" / f"{case}-1.jsonl.zst" for case in ("static", "same-position", "online")),
    *(PACKAGE_RECORDINGS / "film-engines" / "cpu" / f"{engine}-1.jsonl.zst" for engine in ("vllm", "transformers")),
    PACKAGE_RECORDINGS / "chunked" / "cpu" / "chunked-1.jsonl.zst",
    PACKAGE_RECORDINGS / "paging" / "cpu" / "prefix-caching-1.jsonl.zst",
    PACKAGE_RECORDINGS / "sweep" / "cpu" / "continuous-16-1.jsonl.zst",
    PACKAGE_RECORDINGS / "replicas" / "cpu" / "replica-0.jsonl.zst",
    ROOT / "tests" / "data" / "h100" / "film" / "continuous-1.jsonl.zst",
]
INSTANTS = 20
# What Timeline.at(t) says, asked of the page's run. Times travel as numbers since the run's begin.
STATE = """([key, times]) => tracereel.app.show([key]).then(() => {
  const run = tracereel.app.lanes[0].run;
  return times.map((t) => ({
    waiting: run.waiting(t),
    num_waiting: run.waitingCount(t),
    running: run.runningCount(t),
    finished: run.finishedCount(t),
    arrived: run.arrivedCount(t),
    tokens: run.outputTokens(t),
    kv: run.kvUsed(t),
    steps: run.runningSteps(t),
    ended: run.stepsEnded(t),
    occupancy: Array.from({ length: run.slots }, (_, slot) => run.seat(slot, t)),
  }));
})"""
MEMBERS = """([key, cells]) => tracereel.app.show([key]).then(() => {
  const run = tracereel.app.lanes[0].run;
  return cells.map(([slot, step]) => {
    const found = run.member(slot, step);
    if (!found) return null;
    const { request, decode, position, computed, sampled, token } = found;
    return [request, decode, position, computed, sampled, run.text(request, token, token + sampled)];
  });
})"""


def instants(run):
    """Random instants, and the very nanoseconds at which something happens."""
    rng = random.Random(0)
    trace, timeline = run.trace, run.timeline
    edges = [
        *trace.steps.start_ns.tolist(),
        *trace.steps.end_ns.tolist(),
        *timeline.arrival_times,
        *timeline.ended_times,
    ]
    picked = rng.sample(edges, min(len(edges), INSTANTS))
    between = [rng.randint(timeline.begin_ns, max(timeline.end_ns, timeline.begin_ns)) for _ in range(INSTANTS)]
    return [t for t in (timeline.begin_ns, *picked, *(p - 1 for p in picked), *between) if t >= timeline.begin_ns]


def expected(run, t_ns):
    state = run.timeline.at(t_ns)
    return {
        "waiting": list(state.waiting),
        "num_waiting": state.num_waiting,
        "running": state.num_running,
        "finished": state.num_finished,
        "arrived": state.num_arrived,
        "tokens": state.output_tokens,
        "kv": state.kv_used,
        "steps": list(state.steps),
        "ended": state.ended,
        "occupancy": [
            occupant
            and {
                "request": occupant.request,
                "slot": occupant.slot,
                "computes": occupant.computes,
                "prefill": occupant.prefill,
                "computed": occupant.computed_tokens,
                "output": occupant.output_tokens,
            }
            for occupant in state.occupancy
        ],
    }


def assert_same_states(page, run):
    times = instants(run)
    begin = run.timeline.begin_ns
    found = page.evaluate(STATE, [run.trace.name, [t - begin for t in times]])
    for t_ns, state in zip(times, found, strict=True):
        assert state == expected(run, t_ns), f"at {t_ns} ns"


def assert_same_cells(page, run):
    steps, slots = run.trace.steps, run.trace.header.slots
    rng = random.Random(1)
    cells = [(rng.randrange(slots), rng.randrange(len(steps))) for _ in range(400 if len(steps) else 0)]
    found = page.evaluate(MEMBERS, [run.trace.name, cells])
    for (slot, step), cell in zip(cells, found, strict=True):
        members = steps.members(step)
        at = np.flatnonzero(steps.member_slot[members] == slot) + members.start
        if not len(at):
            assert cell is None, (slot, step)
            continue
        i = int(at[0])
        first = int(steps.first_token[step] + steps.member_sampled[members.start : i].sum())
        codes = steps.token_text[first : first + int(steps.member_sampled[i])].tolist()
        text = None if -1 in codes else "".join(steps.texts[code] for code in codes)
        said = [steps.member_request[i], steps.member_decode[i], steps.member_position[i], steps.member_computed[i]]
        assert cell == [*(part.item() for part in said), len(codes), text], (slot, step)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parts[-3]}-{path.name.split('.')[0]}")
def test_every_recording_set_has_the_same_states_and_cells(open_page, path):
    run = Run.read(path)
    page = open_page([path])
    assert_same_states(page, run)
    assert_same_cells(page, run)


def test_every_kind_of_trace_has_the_same_states_and_cells(open_page, any_trace):
    run = Run.read(any_trace)
    page = open_page([any_trace])
    assert_same_states(page, run)
    assert_same_cells(page, run)


def test_every_kind_of_trace_is_played_by_every_key(open_page, any_trace):
    page = open_page([any_trace])
    page.focus("canvas")
    for key in ("Space", ".", ",", "a", "A", "f", "F", "e", "E", "s", "w", "g", "[", "]", "+", "-", "0", "t", "t"):
        page.keyboard.press(key)
    for key in ("ArrowRight", "ArrowDown", "ArrowUp", "ArrowLeft", "End", "Home", "Enter", "Escape"):
        page.keyboard.press(key)
    page.click("#open-about")
    page.keyboard.press("Escape")
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_timeout(50)


def test_the_jumps_lead_where_the_moments_are(open_page, film_recordings):
    run = Run.read(film_recordings / "continuous-1.jsonl.zst")
    page = open_page([run.trace.path])
    moments, begin = moments_of(run), run.timeline.begin_ns
    page.keyboard.press("s")
    assert page.evaluate("tracereel.app.clock.t") == run.trace.steps.start_ns[moments.slowest_step] - begin
    page.keyboard.press("w")
    first = next(i for i, r in enumerate(run.trace.residencies.request) if r == moments.longest_wait_request)
    assert page.evaluate("tracereel.app.clock.t") == run.trace.residencies.from_ns[first] - begin
    page.keyboard.press("g")
    assert page.evaluate("tracereel.app.clock.t") == moments.worst_pause_to_ns - begin


def test_rates_are_tokens_over_the_time_of_their_steps(open_page, film_recordings):
    run = Run.read(film_recordings / "continuous-1.jsonl.zst")
    steps = run.trace.steps
    page = open_page([run.trace.path])
    for first, last in ((0, 0), (3, 3), (10, 60), (0, len(steps) - 1)):
        begin = int(steps.end_ns[first - 1]) if first else int(steps.start_ns[0])
        inside = [(int(steps.start_ns[i]) + int(steps.end_ns[i])) // 2 - run.timeline.begin_ns for i in (first, last)]
        rate = page.evaluate("([a, b]) => tracereel.app.lanes[0].run.rate(a, b)", inside)
        tokens = int(steps.sampled[first : last + 1].sum())
        assert rate == pytest.approx(tokens / (int(steps.end_ns[last]) - begin) * 1e9)
