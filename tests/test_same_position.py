"""Same-position decoding: what the ring counts decodes, and its average is that of the steps shown."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from drawing import SIZE, draw
from tracereel.film.beats.same_position import same_position
from tracereel.film.frames import BeatFrames
from tracereel.film.layout import Kind
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.theme import CONTINUOUS, PREFILL
from tracereel.trace.analysis.batching_facts import longest_waiting_first
from tracereel.trace.analysis.queries import Run, measure
from tracereel.trace.state.columns import Trace


@pytest.fixture(scope="module")
def runs(film_recordings):
    return {case: Run(Trace.read(film_recordings / f"{case}-1.jsonl.zst")) for case in ("same-position", "continuous")}


def test_a_request_that_prefills_is_not_counted_as_decoding(runs):
    run = runs["continuous"]
    steps = run.trace.steps
    mixed = next(step for step in range(len(steps)) if len(set(steps.member_decode[steps.members(step)].tolist())) == 2)
    t_ns = int(steps.start_ns[mixed]) + 1
    members = steps.member_decode[steps.members(mixed)]
    assert (
        run.measure("decoding_in_step", t_ns=t_ns).value == int(members.sum()) < run.measure("batch", t_ns=t_ns).value
    )


def test_the_average_is_that_of_the_steps_shown(runs):
    run = runs["same-position"]
    steps = run.trace.steps
    first, last = 10, 30
    decoded = [int(steps.member_decode[steps.members(step)].sum()) for step in range(first, last + 1)]
    from_ns, to_ns = int(steps.end_ns[first - 1]), int(steps.start_ns[last]) + 1
    assert run.measure("mean_decoding", from_ns=from_ns, to_ns=to_ns).value == pytest.approx(np.mean(decoded))
    with pytest.raises(ValueError, match="no step ran"):
        run.measure("mean_decoding", from_ns=0, to_ns=0)


def test_the_group_that_waited_longest_goes_next(runs):
    run = runs["same-position"]
    assert measure("longest_waiting_decode_next", [run]).value == 1
    # With the steps' members turned round in time, those go first who waited least.
    trace = run.trace
    assert longest_waiting_first(trace)
    steps = trace.steps
    decoding = [steps.members(step) for step in range(len(steps)) if steps.member_decode[steps.members(step)].any()]
    one, other = next(
        (a, b)
        for a, b in pairwise(decoding[20:])
        if (a.stop - a.start) == (b.stop - b.start)
        and not set(steps.member_request[a].tolist()) & set(steps.member_request[b].tolist())
        and steps.member_decode[a].all()
        and steps.member_decode[b].all()
    )
    swapped = steps.member_request.copy()
    swapped[one], swapped[other] = steps.member_request[other], steps.member_request[one]
    unfair = dataclasses.replace(trace, steps=dataclasses.replace(steps, member_request=swapped))
    assert not longest_waiting_first(unfair)


@pytest.mark.slow
def test_the_rings_say_how_many_decode_and_of_which_steps_the_average_is():
    show = Show(Settings(), SIZE)
    beat = same_position(show)
    _, phrases = draw(lambda canvas: beat.picture(canvas, beat.clock.film_s - 0.1), SIZE)
    queries = {piece.source.query for phrase in phrases for piece in phrase.figures}
    assert {"decoding_in_step", "mean_decoding"} <= queries
    assert "batch" not in queries
    assert sum("per step shown" in phrase.text for phrase in phrases) == len(beat.runs)


def test_the_spoke_of_a_prompt_that_is_read_is_not_one_of_those_that_are_counted():
    """The middle said 7 of 8, and eight spokes led to it, all of one colour."""
    show = Show(Settings(device="cpu"), SIZE)
    beat = same_position(show)
    run, at_s = beat.runs[1], beat.clock.film_s - 0.1
    t_ns = beat.clock.engine_ns(at_s) - beat.runs[0].timeline.begin_ns + run.timeline.begin_ns
    state = run.timeline.at(t_ns)
    reading = [occupant.request for occupant in state.occupancy if occupant is not None and occupant.prefill]
    assert len(reading) == 1
    drawn = []
    BeatFrames(beat, show, watch=drawn.append).at(at_s)
    lines = [thing.colour for thing in drawn if thing.kind is Kind.LINE]
    counted = int(run.measure("decoding_in_step", t_ns=t_ns).value)
    assert lines.count(show.palette.rgb(PREFILL)) == 1
    assert lines.count(show.palette.rgb(CONTINUOUS)) == counted
