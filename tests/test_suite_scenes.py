"""The scenes that play a suite of their own: KV blocks, chunks, batch sizes, and the parts of a speed-up.

Recordings of the real engine around the fake model; the film's own where a scene plays the film.
"""

import dataclasses
import subprocess
import sys

import fakes
import msgspec
import numpy as np
import pytest
from drawing import LOOK, SIZE, draw, near, pixel
from films import SIZES, laid_out, rendered
from pools import blocks_agree
from suites import prompts, record
from tracereel.engine.request import Request, SamplingParams
from tracereel.film import theme
from tracereel.film.beats.batch_size_sweep import Storyboard, by_slots
from tracereel.film.colours import RequestColours
from tracereel.film.components.block_pool import BlockPool
from tracereel.film.components.plot import Plot
from tracereel.film.components.waits import Waits
from tracereel.film.facts import refuse_false
from tracereel.film.phrases import Phrasebook
from tracereel.film.registry import find
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.stage import Box
from tracereel.film.time_axis import View
from tracereel.film.verification import verify
from tracereel.trace.analysis.gaps import gaps_beside
from tracereel.trace.analysis.moments import first_eviction, first_sharing
from tracereel.trace.analysis.queries import Run, measure, split
from tracereel.trace.format.events import RunInfo
from tracereel.trace.format.storage import TraceError
from tracereel.trace.recordings.index import ENVIRONMENT, FILM, RecordingIndex

SCENES = ("kv_cache_paging", "chunked_prefill", "batch_size_sweep", "speedup_waterfall")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Three suites in one folder, to be distinguished by their headers."""
    folder = tmp_path_factory.mktemp("suites")
    scarce = {"max_num_seqs": 4, "max_num_batched_tokens": 24, "num_blocks": 18, "block_size": 4}
    record(folder, "paging", "prefix-caching", prompts(12), policy="continuous", enable_prefix_caching=True, **scarce)
    record(folder, "paging", "no-prefix-caching", prompts(12), policy="continuous", **scarce)
    ample = {"max_num_seqs": 6, "num_blocks": 200, "block_size": 4}
    essay = Request("essay", tuple(i % 40 + 1 for i in range(300)), SamplingParams(max_tokens=5), "an essay")
    record(
        folder, "chunked", "unchunked", prompts(5), [essay], policy="continuous-unchunked",
        max_num_batched_tokens=512, **ample,
    )  # fmt: skip
    record(folder, "chunked", "chunked", prompts(5), [essay], policy="continuous", max_num_batched_tokens=24, **ample)
    for policy in ("static", "continuous"):
        for slots in (2, 4, 8):
            settings = {"max_num_seqs": slots, "max_num_batched_tokens": 64, "num_blocks": 200, "block_size": 4}
            record(folder, "sweep", f"{policy}-{slots}", prompts(20), policy=policy, **settings)
    return folder


def read(folder, suite, case):
    return Run(RecordingIndex(folder, suite).case(case)[0].read())


@pytest.fixture
def playing(recorded, film_recordings, monkeypatch):
    """Lets a scene play its suite; returns the folder."""

    def play(name):
        folder = film_recordings if find(name).suite == FILM else recorded
        monkeypatch.setenv(ENVIRONMENT, str(folder))
        return folder

    return play


@pytest.mark.slow
@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("name", SCENES)
def test_a_scene_is_laid_out_and_verified(playing, name, shape, tmp_path):
    folder = playing(name)
    (beat,), _ = laid_out(name, SIZES[shape])
    assert 10 <= beat.clock.film_s <= 26
    if shape == "wide":
        _, film = rendered(name, SIZES[shape], tmp_path, rate=1)
        verdict = verify(film, [folder])
        assert verdict.claims > 20
        assert not verdict.faults, verdict.faults[:3]


# The pool and the tables.


@pytest.mark.slow
def test_the_pool_shows_who_holds_which_block_and_how_full_it_is(recorded):
    run = read(recorded, "paging", "prefix-caching")
    pool, box = BlockPool(run, Phrasebook(), RequestColours([run.trace])), Box(40, 40, 1200, 900)
    seen = {"shared": 0, "held": 0, "free": 0}
    steps = run.trace.steps
    for step in np.linspace(0, len(steps) - 1, 30).astype(int).tolist():
        t_ns = int(steps.end_ns[step]) - 1
        picture, _ = draw(lambda canvas, t=t_ns: pool.paint_pool(canvas, box, t), SIZE)
        blocks_agree(picture, run, pool, box, t_ns, seen)
        assert measure("kv_used", [run], t_ns=t_ns).value == run.timeline.at(t_ns).kv_used
    assert min(seen.values()) > 30, seen


@pytest.mark.slow
@pytest.mark.parametrize(
    ("times", "architecture", "said"),
    [(1.2, "llama", "free"), (1.2, "qwen3_moe", "cheap"), (1.2, None, "cheap"), (9.0, "llama", "costs")],
)
def test_that_rows_are_nearly_free_is_said_where_they_are(recorded, monkeypatch, times, architecture, said):
    measured = Storyboard._times

    def otherwise(board, rows, base):
        return dataclasses.replace(measured(board, rows, base), value=times)

    monkeypatch.setattr(Storyboard, "_times", otherwise)
    show = Show(Settings(recordings=recorded, device="cpu"), SIZE)
    for run in (run for runs in by_slots(show, "continuous").values() for run in runs):
        model = msgspec.structs.replace(run.trace.header.model, architecture=architecture)
        header = msgspec.structs.replace(run.trace.header, model=model)
        run.trace = dataclasses.replace(run.trace, header=header)
    beat = find("batch_size_sweep").make(show)
    key = f"batch_size_sweep.{said}"
    (phrase,) = (caption.phrase for caption in beat.captions if caption.phrase.stated[0].key == key)
    refuse_false(phrase, beat.runs, beat.runs, beat.clock.engine_ns(0))


def test_that_all_blocks_are_held_is_said_for_as_long_as_they_are(recorded):
    show = Show(Settings(recordings=recorded, device="cpu"), SIZE)
    beat = find("kv_cache_paging").make(show)
    run, keys = beat.runs[0], ("kv_cache_paging.preempted", "kv_cache_paging.held_when_preempted")
    spoken = [(a, b, said) for a, b, said in beat.spoken() if said.stated and said.stated[0].key in keys]
    ((from_s, to_s, phrase),) = spoken
    used = phrase.stated[0].places["used"].text
    shown = {run.measure("kv_used", t_ns=beat.clock.engine_ns(at)).value for at in np.linspace(from_s, to_s - 0.01, 20)}
    assert {str(value) for value in shown} == {used}


def test_the_tables_show_the_block_tables(recorded):
    run = read(recorded, "paging", "prefix-caching")
    pool, box = BlockPool(run, Phrasebook(), RequestColours([run.trace])), Box(40, 40, 1200, 900)
    steps, checked = run.trace.steps, 0
    for step in np.linspace(0, len(steps) - 1, 25).astype(int).tolist():
        t_ns = int(steps.end_ns[step]) - 1
        state = run.timeline.at(t_ns)
        _, phrases = draw(lambda canvas, t=t_ns: pool.paint_tables(canvas, box, t), SIZE)
        shown = [f.source.value for phrase in phrases for f in phrase.figures if f.source.query == "block_given"]
        want = [block for occupant in state.occupancy if occupant for block in state.block_table(occupant.request)]
        assert shown == want
        checked += len(want)
    assert checked > 200


def test_a_shared_prefix_and_a_preemption_are_found(recorded):
    run = read(recorded, "paging", "prefix-caching")
    sharing = first_sharing(run.timeline)
    state = run.timeline.at(sharing.at_ns)
    for block in sharing.blocks:
        assert {sharing.request, sharing.owner} <= set(state.block_holders[block])
    assert run.measure("cached_tokens", request=sharing.request, t_ns=sharing.at_ns).value >= 4
    eviction = first_eviction(run.timeline)
    before, after = run.timeline.at(eviction.at_ns - 1), run.timeline.at(eviction.at_ns)
    assert before.block_table(eviction.request)
    assert not after.block_table(eviction.request)
    assert eviction.request in after.waiting
    # What is computed again is what stood there and was not found.
    values = {
        query: run.measure(query, request=eviction.request, t_ns=eviction.back_ns).value
        for query in ("cached_tokens", "recomputed_tokens")
    }
    lost = run.timeline.computed_in(run.timeline.residency_of(eviction.request, eviction.at_ns - 1))
    occupant = next(occupant for occupant in before.occupancy if occupant and occupant.request == eviction.request)
    assert lost in (occupant.computed_tokens, occupant.computed_tokens + 1)
    assert values["recomputed_tokens"] == max(lost - values["cached_tokens"], 0)


def test_prefix_caching_computes_less(recorded):
    with_it, without = (read(recorded, "paging", case) for case in ("prefix-caching", "no-prefix-caching"))
    assert with_it.measure("prefill_tokens").value < without.measure("prefill_tokens").value
    computed = without.trace.steps.member_computed[~without.trace.steps.member_decode].tolist()
    assert without.measure("prefill_tokens").value == sum(computed)


# Chunks.


def test_the_sawtooth_is_as_high_as_the_gap(recorded):
    run = read(recorded, "chunked", "unchunked")
    request = int(np.argmax([arrival.prompt_tokens for arrival in run.trace.arrivals]))
    waits, box = Waits(run, request, Phrasebook()), Box(40, 40, 1800, 900)
    begins, ends = gaps_beside(run.timeline, request)
    assert len(begins)
    longest = int((ends - begins).max())
    first, last = waits.longest
    assert last - first == longest
    # Each gap close up, drawn half way: its height is what has passed of it.
    checked = 0
    for begin, end in sorted(set(zip(begins.tolist(), ends.tolist(), strict=True))):
        view = View(begin - (end - begin) // 2, end + (end - begin) // 2)
        for share in (0.3, 0.5, 0.7, 0.9):
            now = begin + round((end - begin) * share)
            picture, _ = draw(
                lambda canvas, v=view, t=now, g=end - begin: waits.paint(canvas, box, v, g, t, theme.STATIC), SIZE
            )
            x, y = waits.point(box, view, end - begin, now, now - begin)
            assert near(pixel(picture, x - 2, box.bottom - 8), LOOK(theme.mix(theme.GROUND, theme.STATIC, 0.32)))
            assert near(pixel(picture, x - 30, y - 12), LOOK(theme.GROUND)), "nothing above the line"
            assert near(pixel(picture, x + 12, box.bottom - 8), LOOK(theme.GROUND)), "nothing after now"
            checked += 1
    assert checked >= 4


def test_a_gap_beside_is_one_while_the_prompt_waits_and_is_read(recorded):
    for case in ("chunked", "unchunked"):
        run = read(recorded, "chunked", case)
        request = int(np.argmax([arrival.prompt_tokens for arrival in run.trace.arrivals]))
        begins, ends = gaps_beside(run.timeline, request)
        arrival, first = run.trace.arrivals[request].arrival_ns, run.timeline.token_times_of(request)[0]
        assert (ends > arrival).all()
        assert (begins < first).all()
        times = {t for other in range(len(run.trace.arrivals)) for t in run.timeline.token_times_of(other)}
        assert set(begins.tolist()) | set(ends.tolist()) <= times
        value = run.measure("gap_beside_ms", request=request, percentile=100).value
        assert value == pytest.approx((ends - begins).max() / 1e6)


# Batch sizes.


def test_dots_and_medians_stand_where_their_steps_are(recorded, playing):
    playing("batch_size_sweep")
    board = Storyboard(Show(Settings(), SIZE))
    plot = board.step_plot(board.stage.content)
    film_s = board.free_s + 1
    picture, phrases = draw(lambda canvas: board.paint(canvas, film_s), SIZE)
    runs = [Run(r.read()) for r in RecordingIndex(recorded, "sweep").recordings if r.header.policy == "continuous"]
    rows = np.concatenate([run.decode_rows for run in runs])
    times = np.concatenate([run.metrics.step_ms for run in runs])
    assert len(board.medians) >= 3
    for number, median in board.medians:
        assert median == pytest.approx(np.median(times[rows == number]))
        assert near(pixel(picture, plot.x(number), plot.y(median)), LOOK(theme.CONTINUOUS))
    shown = {f.source.value for p in phrases for f in p.figures if f.source.query == "step_ms_median"}
    assert shown == {median for _, median in board.medians}


def test_a_plot_doubles_evenly():
    plot = Plot(Box(0, 0, 1000, 500), 1, 32, 10.0, 2)
    places = [plot.x(2**i) for i in range(6)]
    assert np.diff(places) == pytest.approx([places[1] - places[0]] * 5)
    assert plot.y(0) == plot.area.bottom
    assert plot.y(10) == plot.y(99) == plot.area.y


# The parts of a speed-up.


def test_the_waterfalls_bars_end_where_the_next_begin(playing):
    from tracereel.film.beats.speedup_waterfall import Storyboard

    playing("speedup_waterfall")
    board = Storyboard(Show(Settings(), SIZE))
    found = split(board.before, board.after)
    places = board.places()
    picture, phrases = draw(lambda canvas: board.paint(canvas, board.captions[-1].from_s - 0.01), SIZE)
    at_ms = found.before_ms
    refilling, other_steps, *rest = (part.saved_ms for part in found.parts)
    for saved_ms, place in zip((refilling, other_steps, sum(rest)), places[1:-1], strict=True):
        bar = board.bar(place, at_ms, at_ms - saved_ms)
        at_ms -= saved_ms
        colour = theme.FINISHED if saved_ms >= 0 else theme.IDLE
        assert near(pixel(picture, bar.x + bar.w / 2, bar.y + bar.h / 2), LOOK(colour)), place
        if bar.w > 20:
            assert near(pixel(picture, bar.x - 8, bar.y + bar.h / 2), LOOK(theme.GROUND))
            assert near(pixel(picture, bar.right + 8, bar.y + bar.h / 2), LOOK(theme.GROUND))
    assert at_ms == pytest.approx(found.after_ms)
    last = board.bar(places[-1], 0, found.after_ms)
    assert near(pixel(picture, last.right - 6, last.y + last.h / 2), LOOK(theme.CONTINUOUS))
    assert near(pixel(picture, last.right + 8, last.y + last.h / 2), LOOK(theme.GROUND))
    costs = sorted(f.source.value for p in phrases for f in p.figures if f.source.query == "ms_per_token")
    assert costs == pytest.approx(sorted([found.before_ms, found.after_ms]))


def test_what_a_token_costs_so_far_becomes_what_it_cost(recorded):
    run = read(recorded, "sweep", "continuous-4")
    steps = run.trace.steps
    for step in range(len(steps)):
        t_ns = int(steps.end_ns[step])
        tokens = int(steps.first_token[step + 1])
        want = (t_ns - min(a.arrival_ns for a in run.trace.arrivals)) / 1e6 / tokens if tokens else None
        if want is not None:
            assert run.measure("ms_per_token", t_ns=t_ns).value == pytest.approx(want)
    end = run.timeline.end_ns
    assert run.measure("ms_per_token", t_ns=end + 10**9).value == run.measure("ms_per_token", t_ns=end).value


# Recordings by suite.


def test_a_suites_recordings_are_found_by_their_headers(recorded, film_recordings):
    for suite, cases in {
        "paging": {"prefix-caching", "no-prefix-caching"},
        "chunked": {"chunked", "unchunked"},
        "sweep": {f"{policy}-{slots}" for policy in ("static", "continuous") for slots in (2, 4, 8)},
    }.items():
        found = RecordingIndex(recorded, suite).recordings
        assert {recording.case for recording in found} == cases
        assert {recording.suite for recording in found} == {suite}
    with pytest.raises(TraceError, match="no recording of the suite 'film'; there are those of: chunked, paging, swe"):
        RecordingIndex(recorded)
    # A folder with one other suite alone, such as one's own, is played as it is.
    assert RecordingIndex(film_recordings, "mine").recordings


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_what_cannot_be_played_is_one_line(name, tmp_path, film_recordings):
    if find(name).suite == FILM:
        (tmp_path / "only.jsonl.zst").write_bytes((film_recordings / "static-1.jsonl.zst").read_bytes())
    else:
        fakes.record_small_run(tmp_path / "only.jsonl", run=RunInfo(suite="other", case="x", repeat=0, repeats=1))
        if name == "kv_cache_paging":
            text = (tmp_path / "only.jsonl").read_text().replace('"kv_blocks":20,', "")
            (tmp_path / "only.jsonl").write_text(text)
    command = [sys.executable, "-m", "tracereel.cli.main", "render", name, "--media", str(tmp_path / "media")]
    done = subprocess.run([*command, "--recordings", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"tracereel: {tmp_path}"), last
    assert not list(tmp_path.rglob("*.mp4"))
