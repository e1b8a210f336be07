"""What the page computes itself is what Python computes, on every recording set and every kind of trace."""

import random
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tracereel.player.figures import moments_of
from tracereel.trace.analysis.metrics import Metrics
from tracereel.trace.analysis.queries import Run
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS, traces_below

TESTS = Path(__file__).resolve().parents[1]
SETS = sorted({path.parent for top in (PACKAGE_RECORDINGS, TESTS / "data" / "h100") for path in traces_below(top)})


def cases_of(folder):
    """The first run of each case of a recording set."""
    first = {}
    for path in traces_below(folder):
        first.setdefault(re.sub(r"-\d+\.jsonl.*", "", path.name), path)
    return list(first.values())


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
    occupancy: Array.from({ length: run.slots }, (_, slot) => run.occupant(slot, t)),
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


# What a request's panel, a step's panel and the jumps say, in ns since the run's begin or as they are shown.
LIVES = """([key, requests, spans]) => tracereel.app.show([key]).then(() => {
  const { app } = tracereel, [lane] = app.lanes;
  return requests.map((request, i) => {
    app.requestPanel.show({ lane, request }, app.clock.end);
    const text = document.querySelector("#request .life").textContent;
    return spans[i].filter((ns) => ns !== null && !text.includes(tracereel.duration(ns)));
  });
})"""
CHANGES = """([key, steps]) => tracereel.app.show([key]).then(() => {
  const { run } = tracereel.app.lanes[0];
  return steps.map((step) => tracereel.changesOf(run, step));
})"""
JUMPS = """(key) => tracereel.app.show([key]).then(() => {
  const { jumps } = tracereel.app.lanes[0];
  return [jumps.slowestStep(), jumps.longestWait(), jumps.worstPause()].map((found) => found && found.t);
})"""
RATES = """([key, stretches]) => tracereel.app.show([key]).then(() => {
  const { run } = tracereel.app.lanes[0];
  return stretches.map(([from, to]) => run.rate(from, to));
})"""
DIFFERENCES = """([keys, times]) => tracereel.app.show(keys).then(() => {
  const [first, second] = tracereel.app.lanes.map((lane) => lane.run);
  return times.map((t) => tracereel.differences(first, second, t).map((row) => row.difference));
})"""


def assert_same_lives(page, run):
    """Wait for the first slot, TTFT and end-to-end latency of some requests."""
    metrics, trace = Metrics(run.trace), run.trace
    done = metrics.completed.tolist()
    spans = {}
    for place, request in enumerate(done):
        arrival = trace.arrivals[request].arrival_ns
        first_stay = int(np.flatnonzero(trace.residencies.request == request)[0])
        ttft, e2el = (round(float(part[place]) * 1e6) for part in (metrics.ttft_ms, metrics.e2el_ms))
        spans[request] = [int(trace.residencies.from_ns[first_stay]) - arrival, ttft, e2el]
    picked = random.Random(3).sample(done, min(len(done), INSTANTS))
    missing = page.evaluate(LIVES, [trace.name, picked, [spans[request] for request in picked]])
    assert missing == [[] for _ in picked], dict(zip(picked, missing, strict=True))


def assert_same_changes(page, run):
    """Which requests a step admitted and preempted, and which ended with it."""
    trace, stays = run.trace, run.trace.residencies
    picked = random.Random(4).sample(range(len(trace.steps)), min(len(trace.steps), 200))
    for step, found in zip(picked, page.evaluate(CHANGES, [trace.name, picked]), strict=True):
        start, end = int(trace.steps.start_ns[step]), int(trace.steps.end_ns[step])
        ended = {r for r, (at, _, _) in trace.endings.items() if at == end}
        said = [
            set(stays.request[stays.first_step == step].tolist()),
            set(stays.request[stays.preempted & (stays.to_ns == start)].tolist()),
            {r for r in stays.request[(stays.last_step == step) & ~stays.preempted].tolist() if r in ended},
        ]
        assert [set(found[name]) for name in ("admitted", "preempted", "finished")] == said, step


def assert_same_moments(page, run):
    moments, trace, begin = moments_of(run), run.trace, run.timeline.begin_ns
    request = moments.longest_wait_request
    waited = request is not None and trace.arrivals[request].arrival_ns + moments.longest_wait_ns - begin
    expected = [
        moments.slowest_step is not None and int(trace.steps.start_ns[moments.slowest_step]) - begin,
        waited,
        moments.worst_pause_to_ns is not None and moments.worst_pause_to_ns - begin,
    ]
    assert page.evaluate(JUMPS, trace.name) == [None if at is False else at for at in expected]


def assert_same_rates(page, run):
    """Output tokens a second of the steps that a stretch touches, where no two steps overlap."""
    steps, begin = run.trace.steps, run.timeline.begin_ns
    if len(run.trace.header.replicas) > 1:
        return
    rng = random.Random(5)
    pairs = [sorted(rng.choices(range(len(steps)), k=2)) for _ in range(INSTANTS)]
    inside = [[(int(steps.start_ns[i]) + int(steps.end_ns[i])) // 2 - begin for i in pair] for pair in pairs]
    for (first, last), rate in zip(pairs, page.evaluate(RATES, [run.trace.name, inside]), strict=True):
        from_ns = int(steps.end_ns[first - 1]) if first else int(steps.start_ns[0])
        tokens = int(steps.sampled[first : last + 1].sum())
        assert rate == pytest.approx(tokens / (int(steps.end_ns[last]) - from_ns) * 1e9), (first, last)


def assert_same_differences(page, runs):
    """What the second run has more than the first, each counted from its own begin."""
    end = max(run.timeline.end_ns - run.timeline.begin_ns for run in runs)
    times = [random.Random(6).randrange(end) for _ in range(INSTANTS)]
    found = page.evaluate(DIFFERENCES, [[run.trace.name for run in runs], times])
    for t, row in zip(times, found, strict=True):
        counts = []
        for run in runs:
            state = run.timeline.at(run.timeline.begin_ns + t)
            counts.append((state.output_tokens, state.num_finished, state.num_waiting, state.num_running))
        assert row == [second - first for first, second in zip(*counts, strict=True)], t


@pytest.mark.long
@pytest.mark.parametrize("folder", SETS, ids=lambda folder: f"{folder.parts[-2]}-{folder.name}")
def test_of_every_recording_set_the_page_computes_what_python_computes(open_page, folder):
    paths = cases_of(folder)
    runs = [Run.read(path) for path in paths]
    page = open_page(paths)
    for run in runs:
        for same in (
            assert_same_states,
            assert_same_cells,
            assert_same_lives,
            assert_same_changes,
            assert_same_moments,
            assert_same_rates,
        ):
            same(page, run)
    for two in pairwise(runs):
        assert_same_differences(page, two)


def test_every_recording_set_is_there():
    names = {folder.relative_to(PACKAGE_RECORDINGS).parts[0] for folder in SETS if PACKAGE_RECORDINGS in folder.parents}
    assert names == {folder.name for folder in PACKAGE_RECORDINGS.iterdir() if folder.is_dir()} - {"__pycache__"}
    assert TESTS / "data" / "h100" / "film" in SETS


@pytest.mark.long
def test_every_kind_of_trace_has_the_same_states_and_cells(open_page, any_trace):
    run = Run.read(any_trace)
    page = open_page([any_trace])
    assert_same_states(page, run)
    assert_same_cells(page, run)


@pytest.mark.long
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
