"""What stands in a frame is what held at that instant: pixels read back, against the timeline of the trace."""

import hashlib
from pathlib import Path

import av
import numpy as np
import pytest
from drawing import LOOK, SCALE, SIZE, colour_at, draw, near, pixel
from films import SIZES, drawn_by, rendered
from tracereel.film import theme
from tracereel.film.beats.decode_batching import decode_batching
from tracereel.film.clock import Script
from tracereel.film.colours import RequestColours
from tracereel.film.components.distribution import Axis, Histogram, Swarm
from tracereel.film.components.pipeline import PipelineView
from tracereel.film.components.pipeline_places import DECODING, ENDED, PREFILLING
from tracereel.film.components.race import Bars, Contender
from tracereel.film.components.ring import Ring
from tracereel.film.phrases import Phrasebook, words
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.stage import Box, Stage
from tracereel.film.storyboards import storyboard
from tracereel.trace.analysis.latency import ITL, TTFT, Latencies
from tracereel.trace.analysis.metrics import Metrics
from tracereel.trace.analysis.moments import worst_pause
from tracereel.trace.analysis.queries import Run

H100 = Path(__file__).parent / "data" / "h100"


@pytest.fixture(scope="module")
def runs(film_recordings):
    return {
        name: Run.read(film_recordings / f"{name}-1.jsonl.zst")
        for name in ("continuous", "static", "online", "same-position")
    } | {"gpu": Run.read(H100 / "film" / "continuous-1.jsonl.zst")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "shape"), [("online", SIZE), ("continuous", SIZE), ("gpu", SIZE), ("gpu", (540, 960))]
)
def test_the_pipelines_places_show_who_is_in_them(runs, case, shape):
    """Every slot, every card and tile of the queue and of the finished, at any instant, whatever moves."""
    run = runs[case]
    colours = RequestColours([run.trace])
    clock = Script(run.timeline.begin_ns).run(run.timeline.end_ns, 40.0).clock()
    view, scale = PipelineView(run, clock, Stage.of_pixels(*shape), Phrasebook(), colours), min(shape) / 1080
    checked = 0

    def seen_in(picture, box, x=2.0):
        return colour_at(picture, (box.x + x) * scale, (box.y + box.h / 2) * scale)

    for i in range(1, 40):
        film_s = i * 1.0
        state = run.timeline.at(clock.engine_ns(film_s))
        picture, _ = draw(lambda canvas, s=film_s: view.paint(canvas, s), shape)
        for slot, occupant in enumerate(state.occupancy):
            slot_place = view.places.slots[slot]
            want = theme.PANEL if occupant is None or occupant.prefill else colours[occupant.request]
            x = 4 if slot_place.lettered else slot_place.decode.w / 2
            assert near(seen_in(picture, slot_place.decode, x), LOOK(want)), (film_s, slot)
            checked += 1
        for place, request in enumerate(state.waiting):
            box = view.places.waiting_at(place)
            x = 4 if place < view.places.cards else box.w / 2
            assert near(seen_in(picture, box, x), LOOK(colours[request])), (film_s, request)
        first = max(state.num_finished - view.places.chips, 0)
        for rank, request in enumerate(state.finished[first:]):
            box = view.places.ended_at(rank)
            below = 2.5 if view.places.ended_tiles is None else box.h / 2
            seen = colour_at(picture, (box.x + box.w / 2) * scale, (box.bottom - below) * scale)
            assert near(seen, LOOK(colours[request])), (film_s, request)
    assert checked >= 39 * run.trace.header.slots


@pytest.mark.slow
def test_a_card_is_followed_only_where_it_can_be(runs):
    """In the scene's own film: within its slow spans, few at once; all other moves are dots between the stages."""
    for settings in (Settings(device="cpu"), Settings(recordings=H100)):
        show = Show(settings, SIZE)
        (beat,) = storyboard("pipeline_flow", show)
        view = beat.picture.__self__
        instants = [view.moves.under_way(i / 10) for i in range(round(beat.clock.film_s * 10))]
        assert max(sum(move.followed for move in moves) for moves in instants) <= 6
        assert any(not move.followed for moves in instants for move in moves)
        followed = {(m.request, m.now.stage): m for moves in instants for m in moves if m.followed}
        assert {ENDED, PREFILLING, DECODING} <= {stage for _, stage in followed}
        for move in followed.values():
            passage = beat.clock.passage_at(move.from_s + 0.01)
            assert passage.film_s > 10 * passage.engine_s


@pytest.mark.slow
@pytest.mark.parametrize("case", ["same-position", "continuous"])
def test_the_rings_nodes_are_lit_while_they_are_computed(runs, case):
    run = runs[case]
    steps = run.trace.steps
    colours = RequestColours([run.trace])
    clock = Script(run.timeline.begin_ns).run(run.timeline.end_ns, 600.0).clock()
    ring = Ring(run, clock, Phrasebook(), "same", theme.SAME_POSITION, colours)
    box = Box(60, 100, 900, 800)
    _, _, node, places = ring.places(box)
    lit = 0
    for step in range(20, 60, 2):
        t_ns = (int(steps.start_ns[step]) + int(steps.end_ns[step])) // 2
        state = run.timeline.at(t_ns)
        members = set(steps.member_request[steps.members(step)].tolist())
        film_s = clock.film_second(t_ns)
        picture, _ = draw(lambda canvas, s=film_s: ring.paint(canvas, box, s), SIZE)
        for occupant, (x, y) in zip(state.occupancy, places, strict=True):
            seen = pixel(picture, x, y - node * 0.72)
            if occupant is None:
                assert near(seen, LOOK(theme.PANEL))
            elif occupant.request in members:
                assert near(seen, LOOK(colours[occupant.request]))
                lit += 1
            else:
                assert not near(seen, LOOK(colours[occupant.request]))
    assert lit >= 20


def test_bars_are_as_long_as_the_ratios(film_recordings):
    sides = {
        name: [Run.read(path) for path in sorted(film_recordings.glob(f"{name}-*"))]
        for name in ("static", "continuous")
    }
    contenders = [
        Contender(words(name), colour, found[0], tuple(found))
        for (name, found), colour in zip(sides.items(), (theme.STATIC, theme.CONTINUOUS), strict=True)
    ]
    bars = Bars(contenders, Box(100, 100, 1500, 700), Phrasebook())
    picture, _ = draw(lambda canvas: bars.paint(canvas, 9.0), SIZE)
    for i, contender in enumerate(contenders):
        box = bars.bar_box(i)
        y = box.y + box.h * 0.2
        end = box.x + box.w * bars.share(i)
        assert near(pixel(picture, end - 12, y), LOOK(contender.colour))
        assert near(pixel(picture, end + 8, y), LOOK(theme.PANEL))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["static", "continuous"])
def test_a_histogram_grows_by_what_is_known(runs, case):
    run = runs[case]
    values = Latencies.of(run.trace, ITL)
    axis = Axis(values.value_ms.min(), values.value_ms.max(), logarithmic=True)
    histogram, box = Histogram(values, axis, run.timeline.begin_ns, theme.STATIC), Box(100, 100, 1600, 800)
    span = run.timeline.end_ns - run.timeline.begin_ns
    for i in range(1, 21):
        since = span * i // 20
        heights = histogram.heights(since)
        assert sum(heights) == values.known(run.timeline.begin_ns + since)
        picture, _ = draw(lambda canvas, s=since: histogram.paint(canvas, box, s, histogram.fullest), SIZE)
        for bin_, count in enumerate(heights):
            x = round((box.x + box.w * (bin_ + 0.5) / len(heights)) * SCALE)
            column = picture[:, x] / 255
            filled = int((np.abs(column - LOOK(theme.STATIC)).max(axis=1) < 0.03).sum())
            want = max(box.h * count / histogram.fullest, 3.0) * SCALE if count else 0
            assert abs(filled - want) <= 2, (i, bin_)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["static", "continuous"])
def test_a_swarm_has_a_dot_for_whoever_has_a_token(runs, case):
    run = runs[case]
    values = Latencies.of(run.trace, TTFT)
    colours = RequestColours([run.trace])
    swarm = Swarm(values, Axis(0.0, values.value_ms.max()), run.timeline.begin_ns, colours)
    box = Box(100, 100, 1600, 400)
    span = run.timeline.end_ns - run.timeline.begin_ns
    for i in range(1, 21):
        since = span * i // 20
        state = run.timeline.at(run.timeline.begin_ns + since)
        picture, _ = draw(lambda canvas, s=since: swarm.paint(canvas, box, s, span), SIZE)
        for dot, (x, y, _) in enumerate(swarm.places(box)):
            request = int(values.request[dot])
            there = state.output_tokens_of(request) > 0
            assert near(pixel(picture, x, y), LOOK(colours[request] if there else theme.GROUND)), (i, dot)


def test_latencies_are_the_metrics(runs):
    for run in runs.values():
        metrics = Metrics(run.trace)
        assert sorted(Latencies.of(run.trace, TTFT).value_ms) == pytest.approx(sorted(metrics.ttft_ms))
        assert sorted(Latencies.of(run.trace, ITL).value_ms) == pytest.approx(sorted(metrics.itl_ms))
        pause = worst_pause(run.trace)
        assert (pause.to_ns - pause.from_ns) / 1e6 == pytest.approx(metrics.itl_ms.max())
        times = run.timeline.token_times_of(pause.request)
        assert (times[pause.token - 1], times[pause.token]) == (pause.from_ns, pause.to_ns)


@pytest.mark.slow
def test_static_and_continuous_stand_in_one_frame_at_one_instant(film_recordings):
    """The far view of the whole scene, through its own painter: 20 instants of both grids."""
    show = Show(Settings(device="cpu"), SIZE)
    beat = decode_batching(show)
    main, static = beat.runs
    end = max(run.timeline.end_ns for run in beat.runs)
    content = show.stage.content
    half = (content.h - 2 * 62 - 34) / 2
    boxes = {
        static: Box(content.x, content.y + 62, content.w, half),
        main: Box(content.x, content.y + 62 + half + 96, content.w, half),
    }
    film_s = beat.clock.film_s - 2.5
    checked = 0
    for i in range(20):
        second = film_s - 0.3 * i
        now = beat.clock.engine_ns(second)
        picture, _ = draw(lambda canvas, s=second: beat.picture(canvas, s), SIZE)
        for run, box in boxes.items():
            rows = box.rows(run.trace.header.slots, min(8.0, box.h / run.trace.header.slots * 0.12))
            for share in (0.13, 0.31, 0.52):
                t_ns = round(end * 1.01 * share)
                around = [run.timeline.at(t_ns + d).occupancy for d in (-end // 400, 0, end // 400)]
                # Where the line stands that marks the instant, there is the line.
                if t_ns > now - end // 200 or t_ns > run.timeline.end_ns:
                    continue
                for slot, row in enumerate(rows):
                    who = {occupancy[slot].request if occupancy[slot] else None for occupancy in around}
                    if len(who) > 1 or any(
                        occupancy[slot] is not None and occupancy[slot].prefill for occupancy in around
                    ):
                        continue
                    request = who.pop()
                    idle = theme.IDLE_SLOT if run.timeline.at(t_ns).num_waiting else theme.SPARE_SLOT
                    want = idle if request is None else show.colours()[request]
                    assert near(pixel(picture, box.x + box.w * share, row.y + row.h * 0.6), LOOK(want)), (second, slot)
                    checked += 1
    assert checked > 300


@pytest.mark.long
@pytest.mark.parametrize("name", ["pipeline_flow", "where_it_hurts"])
def test_rendering_twice_gives_the_same_frames(name, tmp_path):
    def digest(folder):
        _, _, frames = drawn_by(name, SIZES["wide"], rate=1)
        found = hashlib.sha256(repr(frames).encode())
        scene, film = rendered(name, SIZES["wide"], folder, rate=1)
        with av.open(str(film)) as container:
            for packet in container.demux(video=0):
                found.update(bytes(packet))
        return found.hexdigest(), scene.renderer.ledger.frames

    assert digest(tmp_path / "one") == digest(tmp_path / "two")
