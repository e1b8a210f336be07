"""One request through the long film: its stages are those of the raw records, and every chapter says where it is."""

import json
from pathlib import Path

import numpy as np
import pytest
import zstandard
from drawing import SIZE, pixels_of
from films import SIZES, laid_out
from tracereel.film.facts import FalseSentenceError, refuse_false
from tracereel.film.frames import BeatFrames
from tracereel.film.phrases import quote
from tracereel.film.schedule import frames_of, schedule
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import storyboard
from tracereel.film.theme import GROUND
from tracereel.trace.analysis.life import BLOCKS, CHUNKS, DECODE, FINISHED, PREFILL, QUEUE, stage_of
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
            for each in (*LIFE, BLOCKS):
                assert (f"follow.is_{each}" in said) is not (f"follow.{each}" in said)
            stages |= lit
        assert stages, beat.name
        seen |= stages
    assert {QUEUE, PREFILL, DECODE, FINISHED, BLOCKS} <= seen
    assert (CHUNKS in seen) is any(beat.name == "chunked_prefill" for beat in beats)


def test_a_stage_that_the_request_is_not_in_cannot_be_lit(full_length):
    show, beats = full_length
    beat = next(beat for beat in beats if beat.name == "decode_batching")
    at_s = beat.clock.film_s - 0.1
    stage = beat.follow.stage(beat.clock.engine_ns(at_s))
    assert stage.value == FINISHED
    refuse_false(show.say.say("follow.is_finished", stage=quote(stage)), beat.runs, beat.runs, 0)
    with pytest.raises(FalseSentenceError, match="is_in_stage"):
        refuse_false(show.say.say("follow.is_queue", stage=quote(stage)), beat.runs, beat.runs, 0)


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
