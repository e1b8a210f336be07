"""The engines' race: laid out in every shape, verified, and what stands in a lane is what the trace says."""

import numpy as np
import pytest
from drawing import LOOK, SCALE, SIZE, colour_at, draw, near
from films import SIZES, laid_out, rendered
from suites import prompts, record
from tracereel.film import theme
from tracereel.film.beats.engine_race import SUITE, engine_race
from tracereel.film.colours import RequestColours
from tracereel.film.components.lanes import Lanes
from tracereel.film.components.race import Contender
from tracereel.film.phrases import Phrasebook, words
from tracereel.film.rounding import seconds_figure
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.stage import Box
from tracereel.film.verification import verify
from tracereel.trace.analysis.queries import Run
from tracereel.trace.recordings.index import ENVIRONMENT, RecordingIndex

CASES = {"transformers-static": "static", "transformers": "continuous", "vllm": "continuous", "tracereel": "continuous"}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Four cases by the fake engine, under the names of the engines that are raced."""
    folder = tmp_path_factory.mktemp("engines")
    settings = {"max_num_seqs": 4, "max_num_batched_tokens": 64, "num_blocks": 200, "block_size": 4}
    for case, policy in CASES.items():
        record(folder, SUITE, case, prompts(14), policy=policy, **settings)
    return folder


def runs_of(folder):
    return {case: [Run(found.read()) for found in RecordingIndex(folder, SUITE).case(case)] for case in CASES}


@pytest.mark.slow
@pytest.mark.parametrize("shape", SIZES)
def test_the_race_is_laid_out_and_verified(recorded, shape, tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, str(recorded))
    laid_out("engine_race", SIZES[shape])
    if shape == "wide":
        _, film = rendered("engine_race", SIZES[shape], tmp_path, rate=1)
        verdict = verify(film, [recorded])
        assert verdict.claims > 20
        assert not verdict.faults, verdict.faults[:3]


def test_a_lane_shows_who_sat_where_and_ends_with_its_run(recorded):
    runs = runs_of(recorded)
    contenders = [Contender(words(case), theme.VLLM, some[0], tuple(some)) for case, some in runs.items()]
    spans = [contender.run.timeline.end_ns - contender.run.timeline.begin_ns for contender in contenders]
    colours = RequestColours([run.trace for some in runs.values() for run in some[:1]])
    lanes, box = Lanes(contenders, max(spans), Phrasebook(), colours), Box(40, 40, 1800, 1000)
    seated = ended = 0
    for share in (0.35, 0.7, 1.0):
        since = round(max(spans) * share)
        picture, _ = draw(lambda canvas, s=since: lanes.paint(canvas, box, s), SIZE)
        for contender, lane, span in zip(contenders, lanes.boxes(box), spans, strict=True):
            run, steps = contender.run, contender.run.trace.steps
            rows = lane.rows(run.trace.header.slots, min(8.0, lane.h / run.trace.header.slots * 0.12))
            for middle in ((steps.start_ns + steps.end_ns) // 2).tolist():
                at = middle - run.timeline.begin_ns
                if at > min(since, span) - 0.01 * max(spans):  # there stands a line
                    continue
                around = [run.timeline.at(middle + d).occupancy for d in (-max(spans) // 600, 0, max(spans) // 600)]
                for row, *there in zip(rows, *around, strict=True):
                    # Too near to a change for one pixel where they differ.
                    if (
                        None not in there
                        and len({occupant.request for occupant in there}) == 1
                        and not there[0].prefill
                    ):
                        seen = colour_at(picture, lanes.x(lane, at) * SCALE, (row.y + row.h * 0.6) * SCALE)
                        assert near(seen, LOOK(colours[there[1].request])), (share, middle)
                        seated += 1
            if since > span:
                for at in np.linspace(span + 0.01 * max(spans), 0.999 * max(spans), 5):
                    seen = colour_at(picture, lanes.x(lane, at) * SCALE, (lane.y + lane.h / 2) * SCALE)
                    assert near(seen, LOOK(theme.GROUND))
                    ended += 1
    assert seated > 300
    assert ended > 3


def test_the_first_is_who_was_first_and_the_slowest_sets_the_clock(recorded, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, str(recorded))
    beat = engine_race(Show(Settings(), SIZE))
    spans = [run.timeline.end_ns - run.timeline.begin_ns for run in beat.runs]
    assert spans == sorted(spans, reverse=True)
    assert beat.clock.engine_ns(beat.clock.film_s) == beat.runs[0].timeline.end_ns
    opening, told = beat.captions[:2]
    assert seconds_figure(beat.runs[-1].measure("duration_s")).text in told.phrase.text
    # It is said when it is so, or once the sentence before it has been read.
    done_s = beat.clock.film_second(beat.runs[0].timeline.begin_ns + spans[-1])
    assert told.from_s == pytest.approx(max(done_s, opening.read_s), rel=1e-3)


def test_one_engine_alone_is_no_race(tmp_path, monkeypatch):
    settings = {"max_num_seqs": 4, "max_num_batched_tokens": 64, "num_blocks": 200, "block_size": 4}
    record(tmp_path, SUITE, "vllm", prompts(6), policy="continuous", repeats=1, **settings)
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    beat = engine_race(Show(Settings(), SIZE))
    assert [len(beat.runs), len(beat.captions)] == [1, 1]
    assert "from its first request to its last" in beat.captions[0].phrase.text
