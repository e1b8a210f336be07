"""Engines: tracereel, vLLM and transformers with the same requests, weights and limits, raced on one clock.

What the viewer should understand: what these engines did on this machine with this workload, whoever is first, and that
it is the same kind of work, slot by slot. Recorded by `tracereel record --engine tracereel,vllm,transformers`, in turns
and each alone on the machine. Beat one: the slots of each engine's median run, all from their own beginning on one
clock, until the slowest is done. Beat two: output throughput against the first lane's, which is the unit: the median of
pairs of runs of the same turn, each pair a dot, with the spread and how many there were.
"""

from tracereel.film.beat import Beat, Caption
from tracereel.film.canvas import Canvas
from tracereel.film.clock import Script, ease
from tracereel.film.components.lanes import Lanes
from tracereel.film.components.race import Bars, Contender
from tracereel.film.phrases import figure, quote
from tracereel.film.registry import FULL_LENGTH, scene
from tracereel.film.rounding import seconds_figure
from tracereel.film.show import Show
from tracereel.film.stage import Shape, Spot
from tracereel.film.theme import case_colour
from tracereel.trace.analysis.comparable import require_comparable
from tracereel.trace.analysis.pairs import apart, pairs_of
from tracereel.trace.analysis.queries import Run
from tracereel.trace.recordings.index import ENGINES, FILM

SUITE = FILM + ENGINES
RACE_S = 12.0
_ASIDE_S, _VERDICT_S = 0.9, 6.0
_CASES = ("transformers-static", "transformers", "vllm", "tracereel")


@scene("engine_race", suite=SUITE, order=110, films=(FULL_LENGTH,))
def engine_race(show: Show) -> Beat:
    """The beat of all repeats of the engines that were recorded side by side.

    Raises TraceError where there is no such recording, NotComparableError where they do not belong together.
    """
    say, stage = show.say.say, show.stage
    contenders = _contenders(show)
    require_comparable([contender.run.trace for contender in contenders])
    ordered = sorted(contenders, key=lambda contender: _span_ns(contender))
    first, last = ordered[0], ordered[-1]
    begin_ns, span_ns = last.run.timeline.begin_ns, max(_span_ns(last), 1)
    compared = len(contenders) > 1
    script = Script(begin_ns).run(begin_ns + span_ns, RACE_S)
    captions = _captions(show, contenders, script.clock().film_second(begin_ns + _span_ns(first)))
    end_s = max(RACE_S + (_VERDICT_S if compared else 2.0), captions[-1].read_s)
    clock = script.hold(end_s - RACE_S).clock()
    content = stage.content
    # A square frame has no room for both: there the one takes the other's place.
    beside = stage.shape is not Shape.SQUARE
    left, right = content, content
    if beside:
        left, right = content.columns((56, 44), 60) if stage.wide else content.shares((46, 54), 60)
    lanes = Lanes(contenders, span_ns, show.say, show.colours(SUITE))
    bars = Bars(contenders, right, show.say) if compared else None

    def aside_at(film_s: float) -> float:
        return ease((film_s - RACE_S - 0.7) / _ASIDE_S) if bars else 0.0

    def paint(canvas: Canvas, film_s: float) -> None:
        aside = aside_at(film_s)
        since_ns = clock.engine_ns(film_s) - begin_ns
        with canvas.faded(1.0 if beside else 1 - min(aside * 2, 1)):
            if beside or aside < 0.5:
                # Side by side the bars name the lanes.
                lanes.paint(canvas, content.towards(left, aside), since_ns, 1 - aside if stage.wide else 1.0)
        if bars:
            bars.paint(canvas, film_s - RACE_S - 0.7 - _ASIDE_S)

    def where(run: Run, request: int, film_s: float) -> list[Spot]:
        aside = aside_at(film_s)
        if not beside and aside:
            return []
        return lanes.where(run, request, content.towards(left, aside), clock.engine_ns(film_s) - begin_ns)

    runs = tuple(contender.run for contender in reversed(ordered))
    behind = tuple(run for contender in contenders for run in contender.runs)
    name = say("engine_race.name")
    return Beat("engine_race", name, tuple(captions), clock, runs, paint, compared=behind, where=where)


def _captions(show: Show, contenders: list[Contender], first_s: float) -> list[Caption]:
    """What is said: who is first is said at `first_s`, when it is so, or once the sentence before it has been read."""
    say, compared, first = show.say.say, len(contenders) > 1, min(contenders, key=_span_ns)
    traces = [run.trace for contender in contenders for run in contender.runs]
    opening = say("engine_race.alone", engine=first.name)
    if compared:
        opening = say("engine_race.race" if apart(traces) else "engine_race.race_together")
    captions = [Caption(0.0, opening)]
    if compared:
        told = say(
            "engine_race.first",
            engine=first.name,
            requests=figure(first.run.measure("num_requests")),
            seconds=seconds_figure(first.run.measure("duration_s")),
        )
        captions.append(Caption(max(first_s, captions[0].read_s), told))
        repeats = [[run.trace for run in contender.runs] for contender in contenders]
        paired = all(pairs_of(repeats[0], others) for others in repeats[1:])
        verdict = "verdict" if paired else "verdict_other"
        verdict_s = max(RACE_S + 0.8, captions[-1].read_s)
        captions.append(Caption(verdict_s, say(f"engine_race.{verdict}", engine=contenders[0].name)))
    return captions


def _contenders(show: Show) -> list[Contender]:
    """The engines that were recorded, by the cases there are, else by the first one."""
    recordings = show.recordings_of(SUITE)
    cases = [case for case in _CASES if recordings.has(case)] or [recordings.preferred()]
    contenders = []
    for case in cases:
        run = show.run(case, SUITE)
        key = f"engine_race.{case.replace('-', '_')}"
        engine = quote(run.measure("engine"))
        name = show.say.say(key, engine=engine) if show.say.has(key) else engine
        contenders.append(Contender(name, case_colour(case), run, tuple(show.runs(case, SUITE))))
    return contenders


def _span_ns(contender: Contender) -> int:
    return contender.run.timeline.end_ns - contender.run.timeline.begin_ns
