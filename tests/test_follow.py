"""One request through the long film: its stages are those of the raw records, and every chapter says where it is."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zstandard
from drawing import LOOK, SIZE, colour_at, draw, near, pixel, pixels_of
from films import SIZES, laid_out
from tracereel.film.components.life_bar import LifeBar
from tracereel.film.facts import FalseSentenceError, refuse_false
from tracereel.film.frames import BeatFrames
from tracereel.film.phrases import quote
from tracereel.film.schedule import frames_of, schedule
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.stage import Box
from tracereel.film.storyboards import storyboard
from tracereel.film.theme import DIM, GROUND, PANEL, TEXT
from tracereel.film.theme import PREFILL as PREFILL_COLOUR
from tracereel.trace.analysis.life import BLOCKS, CHUNKS, DECODE, FINISHED, PREFILL, QUEUE, life_of, stage_of
from tracereel.trace.analysis.queries import Run
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS
from tracereel.trace.state.columns import Trace

CHUNKED = PACKAGE_RECORDINGS / "chunked" / "cpu"
LIFE = (QUEUE, PREFILL, CHUNKS, DECODE, FINISHED)


def steps_of(path: Path):
    lines = zstandard.ZstdDecompressor().stream_reader(path.open("rb")).read().decode().splitlines()
    return [record for record in map(json.loads, lines) if record["event"] == "step"]


@pytest.mark.parametrize(("case", "read"), [("chunked-1", CHUNKS), ("unchunked-1", PREFILL)])
def test_the_stages_are_those_of_the_records(case, read):
    path = CHUNKED / f"{case}.jsonl.zst"
    run = Run(Trace.read(path))
    request = int(run.measure("followed_request", request_id="in no trace").value)
    prompts = [arrival.prompt_tokens for arrival in run.trace.arrivals]
    assert prompts[request] == max(prompts)
    own = [step for step in steps_of(path) if request in step["requests"]]
    phases = [step["phases"][step["requests"].index(request)] for step in own]
    first_decode = phases.index("D")
    assert (first_decode > 1) is (read == CHUNKS)
    arrival_ns, last_ns = run.trace.arrivals[request].arrival_ns, own[-1]["end_ns"]
    admitted = own[0]["start_ns"]
    due = {
        arrival_ns - 1: None,
        admitted - 1: QUEUE if admitted - 1 >= arrival_ns else None,
        own[0]["end_ns"] - 1: read,
        own[first_decode - 1]["end_ns"] - 1: read,
        own[first_decode]["start_ns"]: DECODE,
        last_ns - 1: DECODE,
        last_ns: FINISHED,
    }
    assert {t_ns: stage_of(run.timeline, request, t_ns) for t_ns in due} == due


def test_a_request_that_waits_is_in_the_queue(film_recordings):
    path = film_recordings / "static-1.jsonl.zst"
    run = Run(Trace.read(path))
    last = len(run.trace.arrivals) - 1
    first = next(step for step in steps_of(path) if last in step["requests"])
    assert stage_of(run.timeline, last, first["start_ns"] - 1) == QUEUE
    assert not run.measure("is_in_stage", request=last, t_ns=first["start_ns"] - 1, stage=BLOCKS).value
    assert run.measure("is_in_stage", request=last, t_ns=first["end_ns"] - 1, stage=BLOCKS).value


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def full_length(request):
    show = Show(Settings(device=request.param), SIZE)
    return show, storyboard("full_length", show)


def test_one_request_is_followed_in_every_trace_that_has_it(full_length):
    _, beats = full_length
    chapters = [beat for beat in beats if beat.framed]
    assert all(beat.follow is not None for beat in chapters)
    wanted = next(beat for beat in chapters if beat.name == "decode_batching").follow
    caption = next(beat for beat in chapters if beat.name == "decode_batching").captions[3].phrase
    (taker,) = (f for f in caption.figures[1:])
    assert dict(taker.source.args)["request"] == wanted.request
    asked = wanted.run.trace.arrivals[wanted.request].id
    for beat in chapters:
        arrivals = beat.follow.run.trace.arrivals
        if any(arrival.id == asked for arrival in arrivals):
            assert arrivals[beat.follow.request].id == asked, beat.name


def test_every_chapter_says_where_the_request_is(full_length):
    show, beats = full_length
    seen = set()
    for beat in beats:
        if not beat.framed:
            continue
        stages = set()
        for i in range(frames_of(beat, 1)):
            phrases = []
            frames = BeatFrames(beat, show, note=lambda phrase, text, to=phrases: to.append(phrase))
            frames.said_at(float(i))
            said = {stated.key for phrase in phrases for stated in phrase.stated if stated.key.startswith("follow.")}
            lit = {key.removeprefix("follow.is_") for key in said if key.startswith("follow.is_")}
            own_ns = beat.clock.engine_ns(i) - beat.runs[0].timeline.begin_ns + beat.follow.run.timeline.begin_ns
            stage = stage_of(beat.follow.run.timeline, beat.follow.request, own_ns)
            assert lit - {BLOCKS} == ({stage} if stage else set()), beat.name
            held = beat.follow.run.timeline.at(own_ns).blocks_of(beat.follow.request)
            assert (BLOCKS in lit) is bool(held), beat.name
            stages |= lit
        assert stages, beat.name
        seen |= stages
    assert {QUEUE, PREFILL, DECODE, FINISHED, BLOCKS} <= seen
    assert (CHUNKS in seen) is any(beat.name == "chunked_prefill" for beat in beats)


@pytest.mark.parametrize("path", [*PACKAGE_RECORDINGS.glob("paging/cpu/*-1.*"), *CHUNKED.glob("*-1.*")], ids=str)
def test_a_life_is_made_of_the_stages_of_its_instants(path):
    run = Run(Trace.read(path))
    preempted = 0
    for request, arrival in enumerate(run.trace.arrivals):
        life = life_of(run.timeline, request)
        assert life[0].from_ns == arrival.arrival_ns
        assert life[-1].to_ns == run.trace.endings[request][0]
        assert all(one.to_ns == other.from_ns for one, other in pairwise(life))
        for nth, stretch in enumerate(life):
            for t_ns in (stretch.from_ns, (stretch.from_ns + stretch.to_ns) // 2, stretch.to_ns - 1):
                assert stage_of(run.timeline, request, t_ns) == stretch.stage
            middle = (stretch.from_ns + stretch.to_ns) // 2
            taken = run.measure("time_in_stage_ms", request=request, nth=nth, t_ns=middle).value
            assert taken == pytest.approx((middle - stretch.from_ns) / 1e6)
        preempted += [stretch.stage for stretch in life].count(QUEUE) > 1
    assert preempted or "paging" not in str(path)


def test_a_life_is_worked_out_once_for_all_frames(full_length, monkeypatch):
    worked_out = []

    def counted(timeline, request):
        worked_out.append(request)
        return life_of(timeline, request)

    monkeypatch.setattr("tracereel.trace.analysis.query.life_of", counted)
    _, beats = full_length
    follow = next(beat.follow for beat in beats if beat.follow is not None)
    run, box = Run(follow.run.trace), Box(0, 0, 1800, 40)
    bar = LifeBar(run, follow.request, follow.colour, follow.say)
    begin_ns, end_ns = run.timeline.begin_ns, run.timeline.end_ns
    for now_ns in (begin_ns, (begin_ns + end_ns) // 2, end_ns):
        draw(lambda canvas, now_ns=now_ns: bar.paint(canvas, box, now_ns))
    assert worked_out == [follow.request]


def test_the_bar_is_as_wide_as_the_stages_last_and_filled_up_to_now(full_length):
    _, beats = full_length
    beat = next(beat for beat in beats if beat.name == "decode_batching")
    bar, box = beat.follow.bar, Box(100.0, 200.0, 1700.0, 40.0)
    parts, life = bar.parts(box), bar.stretches
    whole_ns = life[-1].to_ns - life[0].from_ns
    for stretch, part in zip(life, parts, strict=True):
        lasted = (stretch.to_ns - stretch.from_ns) / whole_ns
        assert part.w == pytest.approx(max(lasted * box.w, 3.0))
    queue, decode = life[0], life[-1]
    now_ns = (queue.from_ns + queue.to_ns) // 2
    picture, phrases = draw(lambda canvas: bar.paint(canvas, box, now_ns), SIZE)
    line = box.bottom - 2.5
    assert near(pixel(picture, parts[0].x + 4, line), LOOK(DIM))
    assert not near(pixel(picture, parts[0].right - 4, line), LOOK(DIM))
    assert near(pixel(picture, (parts[0].x + parts[0].right) / 2, line), LOOK(TEXT))
    said = {phrase.text for phrase in phrases}
    assert (
        f"queue {(now_ns - queue.from_ns) / 1e6:.1f} ms" in said
        or f"queue {(now_ns - queue.from_ns) / 1e9:.2f} s" in said
    )
    picture, phrases = draw(lambda canvas: bar.paint(canvas, box, decode.to_ns), SIZE)
    assert near(pixel(picture, parts[-1].right - 30, line), LOOK(beat.follow.colour))


MARKED = {
    "pipeline_flow",
    "decode_batching",
    "same_position",
    "throughput_comparison",
    "latency",
    "chunked_prefill",
    "kv_cache_paging",
    "where_it_hurts",
    "engine_race",
}


def test_the_request_is_marked_in_every_chapter_that_shows_requests(full_length):
    _, beats = full_length
    for beat in beats:
        if beat.name not in MARKED:
            assert beat.where is None, beat.name
            continue
        seconds = [i * 0.5 for i in range(int(beat.clock.film_s * 2))]
        marked = [any(beat.where(run, request, at_s) for run, request in beat.follow.seen) for at_s in seconds]
        if beat.name == "same_position":
            assert marked == [holds_a_slot(beat, at_s) for at_s in seconds]
        else:
            assert sum(marked) > 4, beat.name


def holds_a_slot(beat, at_s):
    """Has the followed request a slot in one of the runs, each at the chapter's instant of its own clock?"""
    since_ns = beat.clock.engine_ns(at_s) - beat.runs[0].timeline.begin_ns
    states = [(run.timeline.at(run.timeline.begin_ns + since_ns), request) for run, request in beat.follow.seen]
    return any(held is not None and held.request == request for state, request in states for held in state.occupancy)


def test_the_mark_is_where_the_request_is(full_length):
    """Within each mark there is the request's colour."""
    show, beats = full_length
    found = 0
    for beat in beats:
        if beat.name not in ("decode_batching", "same_position", "latency"):
            continue
        for i in range(1, int(beat.clock.film_s)):
            spots = [spot for run, request in beat.follow.seen for spot in beat.where(run, request, float(i))]
            spots = [spot for spot in spots if spot.alpha == 1]
            # New dots flash; nothing is new in the end.
            flashes = beat.name == "latency" and beat.clock.engine_ns(float(i)) < beat.clock.passages[-1].to_ns
            if not spots or flashes or in_bands(show, beat, float(i)):
                continue
            picture = pixels_of(BeatFrames(replace(beat, follow=None), show).at(float(i)))
            for spot in spots:
                # Above the letters of a node and of a cell.
                at = spot.box.x + spot.box.w / 2, spot.box.y + spot.box.h * (0.5 if spot.box.w < 30 else 0.14)
                seen = colour_at(picture, *(units * show.pixels[1] / 1080 for units in at))
                assert shade_of(seen, beat.follow.colour), (beat.name, i, spot, seen)
                found += 1
    assert found > 8


def in_bands(show, beat, film_s):
    """Are the slots merged into bands, in which no request has a colour of its own?"""
    return beat.name == "decode_batching" and show.settings.device == "cuda" and film_s > 13


def shade_of(seen, colour):
    """Is this the colour, or that of a prompt that is read, or a dim one of it?"""
    full = np.array(LOOK(colour))
    panel = np.array(LOOK(PANEL))
    if near(seen, LOOK(PREFILL_COLOUR)):
        return True
    share = (np.array(seen) - panel) @ (full - panel) / ((full - panel) @ (full - panel))
    return 0.1 < share < 1.05 and np.abs(panel + share * (full - panel) - seen).max() < 0.08


def test_a_stage_that_the_request_is_not_in_cannot_be_lit(full_length):
    show, beats = full_length
    beat = next(beat for beat in beats if beat.name == "decode_batching")
    at_s = beat.clock.film_s - 0.1
    stage = beat.follow.stage(beat.clock.engine_ns(at_s))
    assert stage.value == FINISHED
    refuse_false(show.say.say("follow.is_finished", stage=quote(stage)), beat.runs, beat.runs, 0)
    with pytest.raises(FalseSentenceError, match="is_in_stage"):
        refuse_false(show.say.say("follow.is_queue", stage=quote(stage)), beat.runs, beat.runs, 0)


def test_the_end_card_renders_this_film_again(full_length):
    _, beats = full_length
    closing = beats[-1]
    _, phrases = draw(lambda canvas: closing.picture(canvas, closing.clock.film_s - 0.1))
    commands = [phrase.text for phrase in phrases if phrase.text.startswith("manim")]
    assert commands == ["manim -pql scenes/full_length.py"]


def test_there_is_no_black_between_chapters(full_length):
    show, beats = full_length
    rate = 30.0
    frames = schedule(beats, rate)
    ground = np.array(show.palette.rgb(GROUND)) * 255
    small = Show(show.settings, SIZES["wide"])
    for index, beat in enumerate(beats):
        own = [frame.film_s for frame in frames if frame.beat == index]
        painter = BeatFrames(beat, small)
        for second in (own[0], own[-1]):
            pixels = pixels_of(painter.at(second)).astype(float)
            drawn = (np.abs(pixels - ground).max(axis=2) > 24).mean()
            assert drawn > 0.01, f"{beat.name} at {second:.2f} s: {drawn:.2%} of the frame is drawn"


@pytest.mark.long
@pytest.mark.parametrize("shape_name", SIZES)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_long_film_is_laid_out_in_every_shape(device, shape_name):
    laid_out("full_length", SIZES[shape_name], rate=0.4, settings=Settings(device=device))
