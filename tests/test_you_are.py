"""One request's two answers: the request that stands for all, its words at their measured times, and what is said."""

import dataclasses
import json
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from drawing import SIZE, draw
from tracereel.film.beats.you_are import _TwoAnswers
from tracereel.film.lettering import line_ends
from tracereel.film.phrases import figure
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.theme import BODY
from tracereel.trace.analysis.queries import Measured, measure

pytestmark = pytest.mark.slow

H100 = Path(__file__).parent / "data" / "h100"


@pytest.fixture(scope="module", params=["package", "h100"])
def scene(request):
    settings = Settings()
    if request.param == "h100":
        settings = dataclasses.replace(settings, recordings=H100)
    return _TwoAnswers(Show(settings, SIZE))


def by_hand(run):
    """Each request's token times since its arrival: tokens from the file, ends of steps from the trace."""
    arrivals, times, ends = {}, {}, iter(run.trace.steps.end_ns.tolist())
    with zstandard.open(run.trace.path, "rt") as lines:
        for row in map(json.loads, lines):
            if row["event"] == "arrival":
                arrivals[row["request"]] = row["arrival_ns"]
            if row["event"] == "step":
                end_ns = next(ends)
                for request, sampled in zip(row["requests"], row["sampled"], strict=True):
                    times.setdefault(request, []).extend([end_ns] * sampled)
    return [[t - at for t in times.get(name, [])] for name, at in arrivals.items()]


def test_the_request_has_the_median_gain(scene):
    static, continuous = by_hand(scene.static), by_hand(scene.continuous)
    both = [i for i, (one, other) in enumerate(zip(static, continuous, strict=True)) if min(len(one), len(other)) > 1]
    gain = {i: static[i][-1] - continuous[i][-1] for i in both}
    chosen = scene.request
    less = sum(gain[i] < gain[chosen] for i in both)
    more = sum(gain[i] > gain[chosen] for i in both)
    assert chosen in both
    assert less <= len(both) // 2
    assert more <= len(both) // 2
    for run, answer in ((scene.static, static[chosen]), (scene.continuous, continuous[chosen])):
        assert run.measure("request_e2el_s", request=chosen).value == pytest.approx(answer[-1] / 1e9)
        gaps = sorted(b - a for a, b in pairwise(answer))
        middle = (gaps[(len(gaps) - 1) // 2] + gaps[len(gaps) // 2]) / 2
        assert run.measure("request_itl_ms", request=chosen).value == pytest.approx(middle / 1e6)


def test_it_is_called_by_its_number(scene):
    chosen = measure("median_gain_request_name", [scene.static, scene.continuous]).value
    assert chosen == f"R{scene.request + 1}"


def test_each_word_is_seen_from_the_instant_at_which_its_token_was_measured(scene):
    arrived = scene.continuous.trace.arrivals[scene.request].arrival_ns
    answers = {id(run): by_hand(run)[scene.request] for run in (scene.static, scene.continuous)}
    seen_some = 0
    for i in range(1, 30):
        second = scene.done_s * i / 30
        since = scene.clock.engine_ns(second) - arrived
        _, phrases = draw(lambda canvas, s=second: scene.paint(canvas, s), SIZE)
        shown = {
            p.figures[0].source.args: p for p in phrases if p.figures and p.figures[0].source.query == "output_text"
        }
        wanted = {sum(t <= since for t in times) for times in answers.values()} - {0}
        assert {dict(args)["end"] for args in shown} == wanted, second
        seen_some += len(wanted)
    assert seen_some > 5


def test_while_it_waits_those_ahead_are_counted(scene):
    run, request = scene.continuous, scene.request
    at = (run.trace.arrivals[request].arrival_ns + run.timeline.token_times_of(request)[0]) // 3
    state = run.timeline.at(at)
    assert run.measure("ahead_in_line", request=request, t_ns=at).value == list(state.waiting).index(request)
    with pytest.raises(ValueError, match="does not wait"):
        run.measure("ahead_in_line", request=request, t_ns=run.timeline.end_ns)


@pytest.mark.parametrize(
    ("static", "continuous", "said"),
    [(2.0, 1.0, "shorter"), (1.0, 2.0, "longer"), (1.001, 1.004, "equal"), (1.0, 1.0, "equal")],
)
def test_the_sentence_is_that_of_the_printed_figures(scene, static, continuous, said):
    values = tuple(Measured(value, "request_e2el_s", (), (), (1, 1)) for value in (static, continuous))
    figures = {"static": figure(values[0], ".2f"), "continuous": figure(values[1], ".2f")}
    scene._values = {"request_e2el_s": values}.__getitem__
    try:
        assert scene._compared("answer", "request_e2el_s") == scene.say(f"you_are.answer_{said}", **figures)
    finally:
        del scene._values


def test_real_time_where_the_answer_can_be_watched(scene):
    passage = scene.clock.passage_at(0.0)
    if 4 <= passage.engine_s <= 15:
        assert passage.film_s == passage.engine_s
    else:
        assert passage.film_s == 9


def test_no_line_of_an_answer_is_shortened():
    text = "one two three " + "x" * 200 + " four"
    ends = line_ends(text, BODY, 300.0)
    assert ends[-1] == len(text)
    assert list(ends) == sorted(ends)
    assert len(ends) >= 3
