"""What is heard: each token at its measured time, from where its row is; of one answer where a beat is about one."""

import numpy as np
import pytest
from drawing import SIZE
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.sound import RATE, pans, ticks, times_in_film
from tracereel.film.storyboards import storyboard
from tracereel.trace.analysis.queries import Run
from tracereel.trace.state.columns import Trace


@pytest.fixture(scope="module")
def run(film_recordings):
    return Run(Trace.read(film_recordings / "continuous-1.jsonl.zst"))


def test_a_token_sounds_from_where_its_row_is(run):
    steps, slots, found = run.trace.steps, run.trace.header.slots, pans(run)
    assert len(found) == len(steps.token_request)
    for token in range(0, len(found), 97):
        step = int(steps.token_step[token])
        members = steps.members(step)
        own = steps.member_request[members].tolist().index(int(steps.token_request[token]))
        assert found[token] == pytest.approx((int(steps.member_slot[members][own]) + 0.5) / slots)
    assert len(set(found.tolist())) == slots


@pytest.mark.slow
def test_you_are_sounds_like_both_answers_and_nothing_else():
    beat = storyboard("you_are", Show(Settings(device="cpu"), SIZE))[0]
    length = beat.clock.film_s
    track = ticks([(0.0, beat)], length)
    silent = np.ones(len(track), dtype=bool)
    for run in beat.runs:
        mine = run.trace.steps.token_request == beat.heard
        times = times_in_film(beat.clock, run, beat.runs[0])[mine]
        assert mine.any()
        for second in times[~np.isnan(times)].tolist():
            at = round(second * RATE)
            silent[at : at + RATE // 10] = False
            assert np.abs(track[at : at + RATE // 50]).max() > 0.01
    assert np.abs(track[silent]).max() == 0.0
    assert silent.any()


@pytest.mark.slow
def test_the_first_run_sounds_from_the_left():
    beat = storyboard("you_are", Show(Settings(device="cpu"), SIZE))[0]
    first, second = (
        times_in_film(beat.clock, run, beat.runs[0])[run.trace.steps.token_request == beat.heard] for run in beat.runs
    )
    track = ticks([(0.0, beat)], beat.clock.film_s)
    alone = next(s for s in first.tolist() if np.abs(second - s).min() > 0.2)
    heard = track[round(alone * RATE) : round(alone * RATE) + RATE // 50]
    assert np.abs(heard[:, 0]).max() > np.abs(heard[:, 1]).max()
