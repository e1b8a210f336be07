"""Throughput: the same requests under each policy, raced on one clock, then the ratio from all repeats.

What the viewer should understand: the same engine, the same model and the same requests give their tokens sooner, and
by how much. Beat one: output tokens over engine time, every run on the same clock, from the start to the end of the
slowest batch run. Beat two: output throughput against static batching, which is the unit: the median of pairs of runs
made one right after the other, each pair a dot, with the spread and how many there were.
"""

from tracereel.scenes.clock import Script, ease
from tracereel.scenes.components.canvas import Canvas
from tracereel.scenes.components.race import Bars, Contender, Curves
from tracereel.scenes.reel import ReelScene
from tracereel.scenes.stage import Caption, Chrome
from tracereel.scenes.theme import CONTINUOUS, SAME_POSITION, STATIC

RACE_S = 9.0


def throughput_comparison(reel: ReelScene) -> None:
    """Tell the beat with all repeats of the static and the continuous case, and of same-position where it is there."""
    say, stage = reel.say.say, reel.stage
    cases = [("static", "static", STATIC), ("continuous", "continuous", CONTINUOUS)]
    if reel.recordings.has("same-position"):
        cases.insert(1, ("same-position", "same_position", SAME_POSITION))
    contenders = [
        Contender(say(f"throughput_comparison.{key}"), colour, reel.run(case), tuple(reel.runs(case)))
        for case, key, colour in cases
    ]
    shown = tuple(reel.run(case) for case in ("continuous", "static"))
    end_ns = max(run.timeline.end_ns for run in shown)
    clock = Script().hold(0.8).run(end_ns, RACE_S).hold(5.2).clock()
    captions = (
        Caption(0.0, say("throughput_comparison.race")),
        Caption(RACE_S + 1.2, say("throughput_comparison.verdict")),
    )
    chrome = Chrome(stage, reel.say, say("throughput_comparison.name"), captions, clock, shown)
    left, right = stage.content.columns((58, 42), 70) if stage.wide else stage.content.rows(2, 70)
    curves = Curves(contenders, end_ns, reel.say)
    bars = Bars(contenders, right, reel.say)

    def paint(canvas: Canvas, film_s: float) -> None:
        aside = ease((film_s - RACE_S - 0.9) / 0.9)
        curves.paint(canvas, stage.content.towards(left, aside), clock.engine_ns(film_s))
        bars.paint(canvas, film_s - RACE_S - 1.6)
        chrome.paint(canvas, film_s)

    reel.replay(paint, clock.film_s, [run for contender in contenders for run in contender.runs])


class ThroughputComparison(ReelScene):
    """The race and the ratio, alone."""

    def construct(self) -> None:
        """Tell it."""
        throughput_comparison(self)
