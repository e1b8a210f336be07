"""Whole scenes, through their own painters, from the package's recordings: pixels against `Timeline.at(t)`.

What the components draw is checked in test_frames.py and test_suite_scenes.py; here, that a scene shows it at the right
instant, in the right place, of the right run.
"""

import importlib
from itertools import pairwise

import av
import numpy as np
import pytest
import zxingcpp
from drawing import LOOK, SIZE, draw, near, pixel
from films import SIZES, rendered
from pools import blocks_agree
from tracereel.film import theme
from tracereel.film.beats.batch_size_sweep import _STEMS as NEWEST
from tracereel.film.components.race import Contender, Curves
from tracereel.film.phrases import Phrasebook, words
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.stage import Box
from tracereel.film.time_axis import View
from tracereel.trace.analysis.latency import TTFT
from tracereel.trace.analysis.queries import Run, measure

INSTANTS = 24


def storyboard_of(name):
    """The storyboard of a scene, from the package's recordings."""
    return importlib.import_module(f"tracereel.film.beats.{name}").Storyboard(Show(Settings(device="cpu"), SIZE))


def seen_of(board, first, last, count=INSTANTS):
    """(Second of film, engine time, picture) at so many instants of a scene."""
    for film_s in np.linspace(first, last, count).tolist():
        picture, _ = draw(lambda canvas, s=film_s: board.paint(canvas, s), SIZE)
        yield film_s, board.clock.engine_ns(film_s), picture


@pytest.mark.slow
def test_where_it_hurts_has_a_dot_for_every_wait_that_has_ended():
    board = storyboard_of("where_it_hurts")
    run, plot = board.run, board.plot_of(board.stage.content)
    finished = set(run.timeline.at(run.timeline.end_ns).finished)
    # Requests of one batch wait equally long for one step; of their dots the last is seen.
    spots = {
        (until, until - since): request
        for request in sorted(finished)
        for since, until in pairwise(run.timeline.token_times_of(request))
    }
    waits = [(*spot, request) for spot, request in spots.items()]
    places = [(board.across(plot, at), board.height(plot, wait / 1e6)) for at, wait, _ in waits]
    corners = np.array(places)
    # On what is closer another dot may lie.
    alone = [i for i, place in enumerate(corners) if (np.abs(corners - place).max(axis=1) < 9).sum() == 1]
    assert len(alone) >= 20
    seen = {True: 0, False: 0}
    for film_s, now, picture in seen_of(board, 0.4, board.clock.film_second(run.timeline.end_ns) - 0.1):
        for i in alone:
            at, _, request = waits[i]
            if abs(places[i][0] - board.across(plot, now)) > 6:
                there = at <= now
                want = board.colours[request] if there else theme.PANEL
                assert near(pixel(picture, *places[i]), LOOK(want)), (film_s, i)
                seen[there] += 1
    assert min(seen.values()) > 100


@pytest.mark.slow
def test_the_races_curves_end_at_the_tokens_so_far(film_recordings):
    sides = {
        name: Run.read(film_recordings / f"{name}-1.jsonl.zst") for name in ("static", "same-position", "continuous")
    }
    colours = (theme.STATIC, theme.SAME_POSITION, theme.CONTINUOUS)
    contenders = [Contender(words(n), c, run, (run,)) for (n, run), c in zip(sides.items(), colours, strict=True)]
    span = max(run.timeline.end_ns - run.timeline.begin_ns for n, run in sides.items() if n != "same-position")
    curves, box = Curves(contenders, sides["continuous"], span, Phrasebook()), Box(80, 100, 1500, 800)
    plot, checked = curves.plot(box), 0
    for i in range(1, INSTANTS + 1):
        since = span * i // (INSTANTS + 1)
        picture, _ = draw(lambda canvas, s=since: curves.paint(canvas, box, s), SIZE)
        tips = []
        for contender in contenders:
            timeline = contender.run.timeline
            tokens = timeline.at(timeline.begin_ns + since).output_tokens
            tips.append((curves.x(plot, min(since, timeline.end_ns - timeline.begin_ns)), curves.y(plot, tokens)))
        for contender, (x, y) in zip(contenders, tips, strict=True):
            if sum(abs(x - a) < 22 and abs(y - b) < 22 for a, b in tips) > 1:
                continue
            assert near(pixel(picture, x, y), LOOK(contender.colour)), (i, contender.name.text)
            assert not near(pixel(picture, x + 16, y), LOOK(contender.colour)), (i, contender.name.text)
            checked += 1
    assert checked > 2 * INSTANTS


@pytest.mark.slow
def test_the_waterfalls_race_shows_what_a_token_has_cost_so_far():
    board = storyboard_of("speedup_waterfall")
    begin = board.before.timeline.begin_ns
    places = board.stage.content.rows(2, 0)
    checked = 0
    for film_s, shown_ns, picture in seen_of(board, 1.0, board.parts_s - 1.2):
        since = shown_ns - begin
        for run, place, colour in zip(
            (board.before, board.after), places, (theme.STATIC, theme.CONTINUOUS), strict=True
        ):
            timeline = run.timeline
            tokens = timeline.at(timeline.begin_ns + since).output_tokens
            cost = min(since, timeline.end_ns - timeline.begin_ns) / 1e6 / tokens if tokens else 0.0
            bar = board.bar(place, 0.0, min(cost, board.most_ms))
            y = bar.y + bar.h / 2
            if tokens:
                assert near(pixel(picture, bar.right - 4, y), LOOK(colour)), film_s
                checked += 1
            assert near(pixel(picture, bar.right + 6, y), LOOK(theme.GROUND)), film_s
    assert checked > INSTANTS


def blended(under, over, alpha):
    """What is seen of a colour of that opacity on another."""
    return tuple(one + (other - one) * alpha for one, other in zip(under, over, strict=True))


@pytest.mark.slow
def test_the_latencies_are_those_of_the_tokens_that_are_out():
    board, colours = storyboard_of("latency"), Show(Settings(device="cpu"), SIZE).colours()
    dots, bars = {True: 0, False: 0}, 0
    for film_s, shown_ns, picture in seen_of(board, 0.9, 10.9):
        since = shown_ns - board.begin_ns
        for metric, half in board.halves().items():
            drawn = board.attention(metric, film_s)
            ground = blended(LOOK(theme.GROUND), LOOK(theme.PANEL), drawn)
            for side, place in zip(board.sides, board.lanes(half), strict=True):
                run = side.run
                now = run.timeline.begin_ns + since
                times = {i: run.timeline.token_times_of(i) for i in range(len(run.trace.arrivals))}
                if metric == TTFT:
                    first = sorted((int(own[0]), i) for i, own in times.items())
                    for (at, request), (x, y, _) in zip(first, side.swarm.places(place), strict=True):
                        if sum(at == other for other, _ in first) == 1:
                            want = blended(ground, LOOK(colours[request]), drawn) if at <= now else ground
                            assert near(pixel(picture, x, y), want), (film_s, request)
                            dots[at <= now] += 1
                    continue
                pairs = [pair for own in times.values() for pair in pairwise(own)]
                axis, pitch = board.axes[metric], place.w / 48
                inside = [min(int(axis.share((b - a) / 1e6) * 48), 47) for a, b in pairs if b <= now]
                fullest = max(side.histogram.fullest for side in board.sides)
                for i, count in enumerate(np.bincount(inside, minlength=48).tolist()):
                    high = place.h * count / fullest
                    x = place.x + (i + 0.5) * pitch
                    if high > 12:
                        bar = blended(ground, LOOK(side.colour), drawn)
                        assert near(pixel(picture, x, place.bottom - high + 4), bar), (film_s, i)
                        bars += 1
                    if place.h - high > 6:
                        assert near(pixel(picture, x, place.bottom - max(high, 3.0) - 4), ground), film_s
    assert min(dots.values()) > 100, dots
    assert bars > 100


@pytest.mark.slow
def test_a_sweeps_dots_are_the_steps_that_have_ended():
    board = storyboard_of("batch_size_sweep")
    run, plot = board.run, board.step_plot(board.stage.content)
    steps = run.trace.steps
    decodes = [bool(steps.member_decode[steps.members(i)].all()) for i in range(len(steps))]
    took = (steps.end_ns - steps.start_ns) / 1e6
    spots = {
        i: (plot.x(int(steps.batch[i])), plot.y(float(took[i])))
        for i in range(len(steps))
        if decodes[i] and took[i] < board.most_ms * 0.97
    }
    pure = {i for i, decoded in enumerate(decodes) if decoded}
    corners = np.array(list(spots.values()))
    alone = [i for i, spot in spots.items() if (np.abs(corners - spot).max(axis=1) < 22).sum() == 1]
    assert len(alone) >= 5
    seen = {True: 0, False: 0}
    for film_s, now, picture in seen_of(board, 0.7, board.clock.film_second(run.timeline.end_ns) - 0.05):
        newest = [i for i in np.flatnonzero(steps.end_ns <= now).tolist() if i in pure][-NEWEST:]
        for i in alone:
            there = steps.end_ns[i] <= now
            if not there and any(steps.batch[other] == steps.batch[i] and took[other] >= took[i] for other in newest):
                continue  # one of the newest steps stands there, on the axis
            dark = near(pixel(picture, *spots[i]), LOOK(theme.GROUND))
            assert dark != there, (film_s, i)
            seen[bool(there)] += 1
    assert min(seen.values()) >= 20, seen


@pytest.mark.slow
def test_the_block_pool_of_the_scene_is_the_pool_of_the_instant():
    board = storyboard_of("kv_cache_paging")
    place, seen = board.picture.places()[0], {"shared": 0, "held": 0, "free": 0}
    for _, now, picture in seen_of(board, 0.2, board.clock.film_s - 0.2):
        blocks_agree(picture, board.run, board.picture.pool, place, now, seen)
    assert min(seen.values()) > 30, seen


@pytest.mark.slow
def test_both_sawtooths_are_as_high_as_the_others_have_waited():
    board = storyboard_of("chunked_prefill")
    checked = {board.whole: 0, board.chunks: 0}
    for film_s, shown_ns, picture in seen_of(board, 1.2, board.verdict_s - 0.1, 4 * INSTANTS):
        since = shown_ns - board.whole.arrival_ns
        for side, place in zip(checked, board.places(), strict=True):
            _, box, _ = board.parts(place)
            view = View(side.arrival_ns - board.before_ns, side.arrival_ns + board.after_ns)
            unit_ns = (view.to_ns - view.from_ns) / box.w
            now = side.arrival_ns + since
            # A little to the left of now, away from every dot and from the line that marks the arrival.
            at = now - 8 * unit_ns
            others = set(range(len(side.run.trace.arrivals))) - {side.request}
            gaps = np.array([gap for other in others for gap in pairwise(side.run.timeline.token_times_of(other))])
            open_since = gaps[(gaps[:, 0] <= at) & (at < gaps[:, 1]), 0]
            close = abs(np.append(gaps, side.arrival_ns) - at).min() < 7 * unit_ns
            if not len(open_since) or close or at < view.from_ns or now >= view.to_ns:
                continue
            x, y = side.waits.point(box, view, board.most_ns, at, at - open_since.min())
            if y > box.bottom - 16:
                continue
            ground, filled = LOOK(theme.GROUND), LOOK(theme.mix(theme.GROUND, side.colour, 0.32))
            assert near(pixel(picture, x, (y + box.bottom) / 2), filled), film_s
            assert not near(pixel(picture, x, y + 4), ground), film_s
            assert near(pixel(picture, x, y - 7), ground), film_s
            assert near(pixel(picture, x + 16, box.bottom - 8), ground), film_s
            checked[side] += 1
    assert min(checked.values()) >= 10, checked.values()
    assert sum(checked.values()) >= INSTANTS


@pytest.mark.slow
@pytest.mark.parametrize("shape", [shape for shape in SIZES if shape != "tall"])  # which has an address instead
def test_the_end_cards_code_can_be_read_from_the_film(shape, film_recordings, tmp_path):
    """From the encoded film, as a phone would see it, in the smallest quality there is."""
    scene, path = rendered("closing", SIZES[shape], tmp_path, rate=1)
    with av.open(str(path)) as film:
        pictures = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    read = {code.text for picture in pictures for code in zxingcpp.read_barcodes(picture)}
    assert read == {measure("provenance", scene.timed_beats[0][1].runs).value}
    assert all(run.trace.name in next(iter(read)) for run in scene.timed_beats[0][1].runs)
