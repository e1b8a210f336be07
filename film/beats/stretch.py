"""A stretch of one run: some slots from one instant to another, as a reader of the player asked for them.

What the viewer should understand: what happened just there, step by step. One beat: the stretch fills, its whole width
in view, a step a column where there is room; then its steps, tokens and ends are counted.
"""

from tracereel.film.beat import Beat, Caption
from tracereel.film.canvas import Canvas
from tracereel.film.clock import Script
from tracereel.film.colours import RequestColours
from tracereel.film.components.slot_grid import SlotGrid
from tracereel.film.phrases import figure
from tracereel.film.show import Show
from tracereel.film.stage import Box
from tracereel.film.theme import HEADING, SMALL_STRONG, TEXT
from tracereel.film.time_axis import View
from tracereel.film.window import Window

_STEP_S, _LEAST_S, _MOST_S, _HELD_S = 0.6, 4.0, 30.0, 3.0
_HEAD = 62.0


def stretch_of_slots(show: Show) -> Beat:
    """The beat of the stretch that the settings ask for. Raises WindowError where the run has nothing there."""
    window = show.settings.window or Window()
    case = show.recordings.preferred("continuous", "online")
    run = show.chosen(window.run) if window.run else show.run(case)
    case = run.trace.header.run.case if run.trace.header.run else case
    stretch = window.of(run.trace, run.timeline)
    grid = SlotGrid(run, show.say, RequestColours([run.trace]), stretch.slots)
    span = {"from_ns": stretch.from_ns, "to_ns": stretch.to_ns}
    rows = {"first_slot": stretch.slots[0], "last_slot": stretch.slots[-1]}
    steps = run.measure("steps_between", **span)
    assert isinstance(steps.value, int)
    runs_s = min(max(steps.value * _STEP_S, _LEAST_S), _MOST_S)
    clock = Script(stretch.from_ns).run(stretch.to_ns, runs_s).hold(_HELD_S).clock()
    say, content = show.say.say, show.stage.content
    name, view = show.case_name(case, run), View(stretch.from_ns, stretch.to_ns)
    counted = say(
        "decode_batching.stretch_sum",
        steps=figure(steps, ",d"),
        tokens=figure(run.measure("output_tokens_between", **span, **rows), ",d"),
        ended=figure(run.measure("ended_between", **span, **rows), ",d"),
    )
    captions = (
        Caption(0.0, say("decode_batching.row", slots=figure(run.measure("slots")))),
        Caption(runs_s, counted),
    )

    def picture(canvas: Canvas, film_s: float) -> None:
        now_ns = clock.engine_ns(film_s)
        tokens = say("decode_batching.tokens", count=figure(run.measure("output_tokens", t_ns=now_ns), ",d"))
        y = content.y + _HEAD - 20
        wide = canvas.text(tokens, content.right, y, SMALL_STRONG, TEXT, align=1)
        canvas.text(name, content.x, y, HEADING, TEXT, room=content.w - wide - 40)
        grid.paint(canvas, Box(content.x, content.y + _HEAD, content.w, content.h - _HEAD), view, now_ns)

    return Beat("decode_batching", say("decode_batching.name"), captions, clock, (run,), picture, still_s=runs_s + 1)
