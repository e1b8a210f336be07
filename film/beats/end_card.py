"""Closing: what the film rests on, and how anybody makes it again.

What the viewer should understand: nothing had to be believed. Beat one: how many runs gave the same tokens. Beat two:
the commands that measure and render it again, and the provenance in words and as a QR code.
"""

from tracereel.film.beat import Beat, Caption, factor_phrase
from tracereel.film.canvas import Canvas
from tracereel.film.clock import Script, ease
from tracereel.film.components.fact_table import RISE, Fact, FactTable, fitting
from tracereel.film.components.slot_grid import SlotGrid
from tracereel.film.lettering import wrap
from tracereel.film.phrases import Phrase, figure, quote
from tracereel.film.registry import CONTINUOUS_BATCHING, FULL_LENGTH, scene
from tracereel.film.show import Show
from tracereel.film.stage import Box, Shape
from tracereel.film.theme import ACCENT, BODY, CAPTION, DIM, SMALL, TEXT, Type
from tracereel.film.time_axis import View
from tracereel.trace.analysis.queries import Run, measure

_TOLD_S, _PLAY_S, _END_S = 1.5, 4.0, 6.5
"""First the card says what the run is; then the run plays once, in so many seconds, to the beat's end."""
_LEAST_GRID = 60.0


@scene("closing", order=1000, films=(CONTINUOUS_BATCHING, FULL_LENGTH))
def end_card(show: Show) -> Beat:
    """What the film rests on, in words and as a QR code, and the commands that make it again."""
    compared = [case for case in ("static", "same-position", "continuous") if show.recordings.has(case)]
    played = show.run(show.recordings.preferred("continuous", "online"))
    others = [run for case in compared or [show.recordings.preferred()] for run in show.runs(case)]
    runs = [played, *(run for run in others if run is not played)]
    say, stage, brand = show.say.say, show.stage, show.settings.brand
    room = stage.width - 2 * stage.margin
    head = say("end.name")
    # A square frame has no height to spare: its code stands right below the table.
    heads = wrap(head.text, Type(92, 700), room) if stage.shape is Shape.TALL else (head.text,)
    style = fitting(heads, Type(92, 700), room)
    top = stage.height * {Shape.WIDE: 0.2, Shape.TALL: 0.2, Shape.SQUARE: 0.15}[stage.shape]
    below = top + (len(heads) - 1) * style.size * 1.1
    claim = _claim(show, runs)
    claims = wrap(claim.text, CAPTION, room)
    side = {Shape.WIDE: 500.0, Shape.TALL: 500.0, Shape.SQUARE: 400.0}[stage.shape]
    foot = stage.safe[3] - (stage.height * 0.08 if stage.shape is Shape.TALL else 16)
    code = Box(stage.width - stage.margin - side, foot - side, side, side)
    beside = stage.wide
    table = FactTable(
        stage, _facts(show, runs), below + 96 + 50 * len(claims) + 24, room - side - 60 if beside else room
    )
    evidence = quote(measure("provenance", runs))
    notes = [*brand.end, say("end.link") if brand.url else say("end.scan")]
    top_y = max(table.bottom + 96, code.y + 40)
    factor_h = 0 if stage.wide else 40
    grid = Box(stage.margin, top_y, code.x - 44 - stage.margin, foot - 44 * len(notes) - 24 - factor_h - top_y)
    begin_ns = played.timeline.begin_ns
    script = Script(begin_ns).hold(_TOLD_S).run(max(played.timeline.end_ns, begin_ns + 1), _PLAY_S)
    clock = script.hold(_END_S - _TOLD_S - _PLAY_S).clock()
    slots = SlotGrid(played, show.say, show.colours())

    def picture(canvas: Canvas, film_s: float) -> None:
        for i, line in enumerate(heads):
            shown = ease((film_s - 0.1 * i) / 0.8)
            y = top + i * style.size * 1.1 + RISE * (1 - shown)
            canvas.text(head, stage.margin, y, style, TEXT, shown, part=line)
        shown = ease((film_s - 0.4) / 0.6)
        for i, line in enumerate(claims):
            canvas.text(claim, stage.margin, below + 84 + i * 50, CAPTION, ACCENT, shown, part=line)
        table.paint(canvas, film_s - 0.8)
        canvas.code(evidence, code.sides, ease((film_s - 1.6) / 0.6), url=brand.url)
        if grid.h >= _LEAST_GRID:
            now_ns = clock.engine_ns(film_s)
            time = say("strip.engine_time", seconds=figure(played.measure("engine_time_s", t_ns=now_ns), ".2f"))
            factor = factor_phrase(show.say, clock, film_s)
            if stage.shape is Shape.WIDE:
                canvas.text(factor, grid.right, grid.y - 18, SMALL, DIM, align=1)
            else:
                canvas.text(factor, grid.x, grid.bottom + 38, SMALL, DIM, room=grid.w)
            canvas.text(time, grid.x, grid.y - 18, SMALL, TEXT)
            slots.paint(canvas, grid, View.of_run(played), now_ns)
        shown = ease((film_s - 1.8) / 0.6)
        for i, words in enumerate(reversed(notes)):
            canvas.text(words, code.x - 28, foot - 8 - 44 * i, BODY, DIM, shown, align=1, room=room - side - 40)

    return Beat("closing", head, (Caption(0.0, head), Caption(1.2, claim)), clock, tuple(runs), picture, framed=False)


def _claim(show: Show, runs: list[Run]) -> Phrase:
    """How many runs gave the same tokens."""
    return show.say.say(
        "end.same_tokens" if len(runs) > 1 else "end.one_run",
        runs=figure(measure("num_runs", runs)),
        same=figure(measure("requests_with_same_tokens", runs)),
        requests=figure(runs[0].measure("num_requests")),
    )


def _facts(show: Show, runs: list[Run]) -> list[Fact]:
    """How the runs and the film are made again, and where they come from."""
    say, first = show.say.say, runs[0]
    when = say("title.recorded_is", day=show.quote(first, "recorded_on"), digest=show.quote(first, "digest"))
    return [
        *_recorded(show, first),
        Fact(say("end.render"), say("end.render_command"), typed=True),
        Fact(say("title.recorded"), when),
        Fact(say("title.model"), show.quote(first, "model")),
        Fact(say("title.device"), show.quote(first, "device")),
    ]


def _recorded(show: Show, run: Run) -> list[Fact]:
    """The command that records these runs again, where there is one."""
    try:
        command = quote(run.measure("record_command"))
    except ValueError:
        return []
    return [Fact(show.say.say("end.record"), command, typed=True)]
