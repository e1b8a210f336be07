"""What a frame may say about time: engine time and the film's pace are those of the frame; others are refused.

Knows clocks, runs and phrases. Draws nothing.
"""

from collections.abc import Callable, Sequence

from tracereel.film.clock import FilmClock, Passage
from tracereel.film.phrases import Figure, Phrase
from tracereel.trace.analysis.queries import Run

ENGINE_TIME, SLOWDOWN, SPEEDUP = "engine_time_s", "slowdown", "speedup"
TIMES = (ENGINE_TIME, SLOWDOWN, SPEEDUP)
"""The queries that state what the film's clock says."""


_PACES: dict[str, Callable[[Passage], bool]] = {
    "strip.held": lambda passage: passage.engine_s == 0,
    "strip.even": lambda passage: passage.even,
}
"""What words say of the clock that have no figure."""


class LyingClockError(Exception):
    """A figure states another time than that of its frame; the message is one line."""


def refuse_other_times(phrase: Phrase, clock: FilmClock, runs: Sequence[Run], film_s: float) -> None:
    """Raise LyingClockError where a phrase states another time, or another pace, than a second of a beat shows.

    Every run counts from its own beginning, as in the pictures; the clock is that of the first.
    """
    for stated in phrase.stated:
        if stated.key in _PACES and not _PACES[stated.key](clock.passage_at(film_s)):
            raise LyingClockError(f"second {film_s:.2f} of a beat: {phrase.text!r} is not what its clock does")
    for figure in phrase.figures:
        query = figure.source.query
        if query == ENGINE_TIME:
            begin_ns = {run.trace.digest: run.timeline.begin_ns for run in runs}
            (trace,), first = figure.source.traces, runs[0].timeline.begin_ns
            shown_ns = clock.engine_ns(film_s) - first + begin_ns.get(trace, first)
            if trace not in begin_ns or dict(figure.source.args)["t_ns"] != shown_ns:
                raise _lie(figure, film_s, f"the frame shows {shown_ns / 1e9:.3f} s")
        elif query in (SLOWDOWN, SPEEDUP):
            passage = clock.passage_at(film_s)
            if dict(figure.source.args) != {"film_s": passage.film_s, "engine_s": passage.engine_s}:
                shown = f"the frame shows {passage.engine_s:.3f} s within {passage.film_s:.3f} s"
                raise _lie(figure, film_s, shown)


def _lie(figure: Figure, film_s: float, shown: str) -> LyingClockError:
    return LyingClockError(f"second {film_s:.2f} of a beat: {figure.source.query} says {figure.text!r}, but {shown}")
