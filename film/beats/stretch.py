"""A stretch of one run: from one instant to another, as a reader of the player asked for it.

What the viewer should understand: what happened just there, step by step. One beat: the stretch runs, a step in about
the same time wherever there are not too many; then its steps, tokens and ends are counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tracereel.film.beat import Beat, Caption
from tracereel.film.canvas import Canvas
from tracereel.film.clock import FilmClock, Script
from tracereel.film.colours import RequestColours
from tracereel.film.components.slot_grid import SlotGrid
from tracereel.film.phrases import Phrase, figure
from tracereel.film.reading import reading_s
from tracereel.film.show import Show
from tracereel.film.stage import Box
from tracereel.film.theme import HEADING, SMALL_STRONG, TEXT
from tracereel.film.time_axis import View
from tracereel.film.window import Stretch, Window, WindowError
from tracereel.trace.analysis.queries import Run
from tracereel.trace.recordings.index import FILM

_STEP_S, _LEAST_S, _MOST_S, _HELD_S = 0.6, 4.0, 30.0, 2.4
_HEAD = 62.0


@dataclass(frozen=True)
class ShownStretch:
    """The run and the stretch that are shown, the clock that runs through it in `runs_s`, and what is counted of it."""

    run: Run
    name: Phrase
    stretch: Stretch
    clock: FilmClock
    runs_s: float
    counted: Mapping[str, Phrase]

    def captions(self, first: Phrase, counted: Phrase) -> tuple[Caption, Caption]:
        """What is said at its beginning; and at its end, or as much earlier as reading takes, what was counted."""
        return Caption(0.0, first), Caption(min(self.runs_s, self.clock.film_s - reading_s(counted)), counted)


def shown_stretch(show: Show, *cases: str, suite: str = FILM) -> ShownStretch:
    """The stretch that the settings ask for, of the run that they name, else of the first of `cases` that was recorded.

    Raises WindowError where the run has nothing there, TraceError where there is no such run.
    """
    window = show.settings.window or Window()
    case = show.recordings_of(suite).preferred(*cases)
    run = show.chosen(window.run, suite) if window.run else show.run(case, suite)
    case = run.trace.header.run.case if run.trace.header.run else case
    stretch = window.of(run.trace, run.timeline)
    span = {"from_ns": stretch.from_ns, "to_ns": stretch.to_ns}
    rows = {"first_slot": stretch.slots[0], "last_slot": stretch.slots[-1]}
    steps = run.measure("steps_between", **span)
    assert isinstance(steps.value, int)
    runs_s = min(max(steps.value * _STEP_S, _LEAST_S), _MOST_S)
    counted = {
        "steps": figure(steps, ",d"),
        "tokens": figure(run.measure("output_tokens_between", **span, **rows), ",d"),
        "ended": figure(run.measure("ended_between", **span, **rows), ",d"),
    }
    clock = Script(stretch.from_ns).run(stretch.to_ns, runs_s).hold(_HELD_S).clock()
    return ShownStretch(run, show.case_name(case, run), stretch, clock, runs_s, counted)


def require_all_slots(show: Show, scene: str) -> None:
    """Raise WindowError where some slots are asked for of a scene that draws all."""
    if show.settings.window is not None and show.settings.window.slots is not None:
        raise WindowError(f"--slots: {scene} shows every slot; decode_batching shows some")


def stretch_of_slots(show: Show) -> Beat:
    """The beat of the stretch in the slots grid. Raises WindowError where the run has nothing there."""
    shown = shown_stretch(show, "continuous", "online")
    run, stretch, clock = shown.run, shown.stretch, shown.clock
    grid = SlotGrid(run, show.say, RequestColours([run.trace]), stretch.slots)
    say, content = show.say.say, show.stage.content
    view = View(stretch.from_ns, stretch.to_ns)
    captions = shown.captions(
        say("decode_batching.row", slots=figure(run.measure("slots"))),
        say("decode_batching.stretch_sum", **shown.counted),
    )

    def picture(canvas: Canvas, film_s: float) -> None:
        now_ns = clock.engine_ns(film_s)
        tokens = say("decode_batching.tokens", count=figure(run.measure("output_tokens", t_ns=now_ns), ",d"))
        y = content.y + _HEAD - 20
        wide = canvas.text(tokens, content.right, y, SMALL_STRONG, TEXT, align=1)
        canvas.text(shown.name, content.x, y, HEADING, TEXT, room=content.w - wide - 40)
        grid.paint(canvas, Box(content.x, content.y + _HEAD, content.w, content.h - _HEAD), view, now_ns)

    still_s = shown.runs_s + 1
    return Beat("decode_batching", say("decode_batching.name"), captions, clock, (run,), picture, still_s=still_s)
