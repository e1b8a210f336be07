"""Throughput: the same requests under each policy, raced on one clock, then the ratio from all repeats.

What the viewer should understand: the same engine, the same model and the same requests give their tokens sooner, and
by how much. Beat one: output tokens over engine time, every run on the same clock, from the start to the end of the
slowest batch run. Beat two: output throughput against static batching, which is the unit: the median of pairs of runs
made one right after the other, each pair a dot, with the spread and how many there were.
"""

from tracereel.film.beat import Beat, Caption
from tracereel.film.canvas import Canvas
from tracereel.film.clock import Script, ease
from tracereel.film.components.race import Bars, Contender, Curves
from tracereel.film.registry import CONTINUOUS_BATCHING, FULL_LENGTH, scene
from tracereel.film.show import Show
from tracereel.film.stage import Box, Spot
from tracereel.film.theme import case_colour
from tracereel.trace.analysis.batching_facts import came_together
from tracereel.trace.analysis.pairs import pairs_of
from tracereel.trace.analysis.queries import Run
from tracereel.trace.state.columns import Trace

RACE_S = 9.8
_CASES = ("static", "same-position", "continuous")


@scene("throughput_comparison", order=40, films=(CONTINUOUS_BATCHING, FULL_LENGTH))
def throughput_comparison(show: Show) -> Beat:
    """The beat of all repeats of the static, the same-position and the continuous case, of those that are there.

    Where none is, the first case of the recordings runs alone, without a ratio. Raises NotComparableError where the
    cases do not belong together.
    """
    say, stage = show.say.say, show.stage
    cases = [case for case in _CASES if show.recordings.has(case)] or [show.recordings.preferred()]
    contenders = [
        Contender(
            show.case_name(case, show.run(case)),
            case_colour(case),
            show.run(case),
            tuple(show.runs(case)),
        )
        for case in cases
    ]
    compared = len(contenders) > 1
    # The slowest of the two that are raced sets the pace; same-position may be left far behind.
    raced = [c.run for c, case in zip(contenders, cases, strict=True) if case != "same-position"] or [contenders[0].run]
    main = raced[-1]
    span_ns = max(run.timeline.end_ns - run.timeline.begin_ns for run in raced)
    end_ns = main.timeline.begin_ns + max(span_ns, 1)
    clock = Script(main.timeline.begin_ns).run(end_ns, RACE_S).hold(5.2 if compared else 2.0).clock()
    traces = [run.trace for contender in contenders for run in contender.runs]
    captions = [Caption(0.0, say(f"throughput_comparison.{_opening(traces) if compared else 'alone'}"))]
    if compared:
        told = say("throughput_comparison.verdict_other", baseline=contenders[0].name)
        if cases[0] == "static":
            told = say(f"throughput_comparison.{_verdict(contenders)}", baseline=contenders[0].name)
        captions.append(Caption(RACE_S + 0.4, told))
    content = stage.content
    left, right = content.columns((58, 42), 70) if stage.wide else content.shares((42, 58), 30)
    curves = Curves(contenders, main, span_ns, show.say)
    bars = Bars(contenders, right, show.say) if compared else None

    def place(film_s: float) -> Box:
        return content.towards(left, ease((film_s - RACE_S - 0.1) / 0.9) if bars else 0.0)

    def since(film_s: float) -> int:
        return clock.engine_ns(film_s) - main.timeline.begin_ns

    def where(run: Run, request: int, film_s: float) -> list[Spot]:
        return curves.where(run, request, place(film_s), since(film_s))

    def paint(canvas: Canvas, film_s: float) -> None:
        curves.paint(canvas, place(film_s), since(film_s))
        if bars:
            bars.paint(canvas, film_s - RACE_S - 0.8)

    shown = tuple(dict.fromkeys([main, *raced]))
    repeats = tuple(run for contender in contenders for run in contender.runs)
    name = say("throughput_comparison.name")
    return Beat("throughput_comparison", name, tuple(captions), clock, shown, paint, compared=repeats, where=where)


def _opening(traces: list[Trace]) -> str:
    return "race" if all(came_together(trace) for trace in traces) else "race_by_clock"


def _verdict(contenders: list[Contender]) -> str:
    """What the ratios are: of pairs, of the medians where no runs are pairs, or of single runs."""
    cases = [[run.trace for run in contender.runs] for contender in contenders]
    if all(len(case) == 1 for case in cases):
        return "verdict_once"
    pairs = [pairs_of(cases[0], case) for case in cases[1:]]
    if any(pairs):
        return "verdict" if all(len(some) > 1 for some in pairs) else "verdict_other"
    return "verdict_medians"
