"""The cards at the beginning and the end of a film: what it is, where it comes from, and how to make it again.

Beats like any other, without the strip: pure functions of film time. Know the brand.
"""

from dataclasses import dataclass

from tracereel.film.beat import Beat, Caption
from tracereel.film.canvas import Canvas
from tracereel.film.clock import Script, ease
from tracereel.film.components.slot_grid import SlotGrid, View
from tracereel.film.lettering import width, wrap
from tracereel.film.phrases import Phrase, figure, quote
from tracereel.film.show import Show
from tracereel.film.stage import Box, Shape
from tracereel.film.theme import ACCENT, BODY, CAPTION, DIM, HUGE, LEAST_SIZE, MONO, TEXT, Type
from tracereel.trace.analysis.queries import measure

_TITLE_S, _END_S = 5.4, 6.0
_RISE = 26.0
"""Units that a line rises while it comes."""


@dataclass(frozen=True)
class _Row:
    """What something is called, and what it is; in the face of typed commands where `typed`."""

    name: Phrase
    value: Phrase
    typed: bool = False


def title_card(show: Show) -> Beat:
    """The film's name, and the provenance of what follows: of the continuous run, or the one there is."""
    run = show.run(show.recordings.preferred("continuous", "online"))
    say, stage, brand = show.say.say, show.stage, show.settings.brand
    name = brand.title or say("title.name")
    claim = brand.claim or say("title.claim")
    room = stage.width - 2 * stage.margin
    # In a narrow frame the name stands in as many lines as make it large.
    lines = (name.text,) if stage.wide else tuple(wrap(name.text, Type(HUGE.size * 0.8, HUGE.weight), room))
    style = _fitting(lines, HUGE, room)
    top = stage.height * {Shape.WIDE: 0.27, Shape.TALL: 0.3, Shape.SQUARE: 0.2}[stage.shape]
    below = top + (len(lines) - 1) * style.size * 1.08
    rows = [
        _Row(say("title.engine"), show.quote(run, "engine")),
        _Row(say("title.model"), show.quote(run, "model")),
        _Row(say("title.device"), show.quote(run, "device")),
        _Row(
            say("title.workload"),
            say(
                "title.workload_is",
                requests=figure(run.measure("num_requests"), ",d"),
                name=quote(run.measure("header", field="workload.name")),
                slots=figure(run.measure("slots")),
            ),
        ),
        _Row(
            say("title.recorded"),
            say("title.recorded_is", day=quote(run.measure("recorded_on")), digest=quote(run.measure("digest"))),
        ),
    ]
    table = _Table(show, rows, below + (200 if stage.shape is not Shape.SQUARE else 150))
    bottom = stage.safe[3] - (0 if stage.shape is not Shape.TALL else 60)
    band = Box(stage.margin, bottom - 132, room, 120)
    grid, timeline = SlotGrid(run, show.say), run.timeline
    view = View.of_run(run)

    def picture(canvas: Canvas, film_s: float) -> None:
        if brand.logo:
            canvas.image(brand.logo, Box(stage.margin, stage.safe[1] + 12, room, 110).sides, ease(film_s / 0.6))
        for i, line in enumerate(lines):
            shown = ease((film_s - 0.15 * i) / 0.9)
            y = top + i * style.size * 1.08 + _RISE * (1 - shown)
            canvas.text(name, stage.margin, y, style, TEXT, shown, part=line)
        shown = ease((film_s - 0.7) / 0.6)
        canvas.text(claim, stage.margin, below + 78 + _RISE * (1 - shown), CAPTION, ACCENT, shown, room=room)
        table.paint(canvas, film_s - 1.2)
        # The run that follows, in one look: drawn from left to right.
        drawn = ease((film_s - 1.4) / 1.8)
        if drawn and table.bottom < band.y - 10:
            grid.paint(canvas, band, view, round(view.from_ns + (timeline.end_ns + 1 - view.from_ns) * drawn))

    clock = Script(timeline.begin_ns).hold(_TITLE_S).clock()
    return Beat("opening", name, (Caption(0.0, name), Caption(0.9, claim)), clock, (run,), picture, framed=False)


def end_card(show: Show) -> Beat:
    """What the film rests on, in words and as a QR code, and the commands that make it again."""
    compared = [case for case in ("static", "same-position", "continuous") if show.recordings.has(case)]
    runs = [run for case in compared or [show.recordings.preferred()] for run in show.runs(case)]
    say, stage, brand = show.say.say, show.stage, show.settings.brand
    room = stage.width - 2 * stage.margin
    head = say("end.name")
    # A square frame has no height to spare: its code stands right below the table.
    heads = wrap(head.text, Type(92, 700), room) if stage.shape is Shape.TALL else (head.text,)
    style = _fitting(heads, Type(92, 700), room)
    top = stage.height * {Shape.WIDE: 0.2, Shape.TALL: 0.2, Shape.SQUARE: 0.15}[stage.shape]
    below = top + (len(heads) - 1) * style.size * 1.1
    claim = say(
        "end.same_tokens" if len(runs) > 1 else "end.one_run",
        runs=figure(measure("num_runs", runs)),
        same=figure(measure("requests_with_same_tokens", runs)),
        requests=figure(runs[0].measure("num_requests")),
    )
    claims = wrap(claim.text, CAPTION, room)
    rows = [
        _Row(say("end.record"), say("end.record_command"), typed=True),
        _Row(say("end.render"), say("end.render_command"), typed=True),
        _Row(say("title.engine"), show.quote(runs[0], "engine")),
        _Row(say("title.model"), show.quote(runs[0], "model")),
        _Row(say("title.device"), show.quote(runs[0], "device")),
    ]
    if len(runs) == 1:
        rows = rows[1:]
    side = {Shape.WIDE: 500.0, Shape.TALL: 500.0, Shape.SQUARE: 400.0}[stage.shape]
    foot = stage.safe[3] - (stage.height * 0.08 if stage.shape is Shape.TALL else 16)
    code = Box(stage.width - stage.margin - side, foot - side, side, side)
    beside = stage.wide
    table = _Table(show, rows, below + 96 + 50 * len(claims) + 24, room - side - 60 if beside else room)
    evidence = quote(measure("provenance", runs))
    notes = [*brand.end, say("end.link") if brand.url else say("end.scan")]

    def picture(canvas: Canvas, film_s: float) -> None:
        for i, line in enumerate(heads):
            shown = ease((film_s - 0.1 * i) / 0.8)
            y = top + i * style.size * 1.1 + _RISE * (1 - shown)
            canvas.text(head, stage.margin, y, style, TEXT, shown, part=line)
        shown = ease((film_s - 0.4) / 0.6)
        for i, line in enumerate(claims):
            canvas.text(claim, stage.margin, below + 84 + i * 50, CAPTION, ACCENT, shown, part=line)
        table.paint(canvas, film_s - 0.8)
        canvas.code(evidence, code.sides, ease((film_s - 1.6) / 0.6), url=brand.url)
        shown = ease((film_s - 1.8) / 0.6)
        for i, words in enumerate(reversed(notes)):
            canvas.text(words, code.x - 28, foot - 8 - 44 * i, BODY, DIM, shown, align=1, room=room - side - 40)

    clock = Script(runs[0].timeline.begin_ns).hold(_END_S).clock()
    return Beat("closing", head, (Caption(0.0, head), Caption(1.2, claim)), clock, tuple(runs), picture, framed=False)


class _Table:
    """Rows of a name and what it is; in a frame that is not wide one under the other."""

    def __init__(self, show: Show, rows: list[_Row], y: float, room: float | None = None):
        stage = show.stage
        self._rows, self._left, self._y = rows, stage.margin, y
        room = stage.width - 2 * stage.margin if room is None else room
        stacked = stage.shape is Shape.TALL
        self._column = 0.0 if stacked else max(width(row.name.text, BODY) for row in rows) + 48
        self._below = 44.0 if stacked else 0.0
        self._pitch = {Shape.WIDE: 60.0, Shape.TALL: 108.0, Shape.SQUARE: 52.0}[stage.shape]
        self._room = room - self._column
        self.bottom = y + self._pitch * (len(rows) - 1) + self._below

    def paint(self, canvas: Canvas, since_s: float) -> None:
        """Draw them, come for `since_s` seconds."""
        for i, row in enumerate(self._rows):
            shown = ease((since_s - 0.12 * i) / 0.5)
            y = self._y + i * self._pitch + _RISE * (1 - shown)
            style = _fitting((row.value.text,), MONO if row.typed else BODY, self._room)
            canvas.text(row.name, self._left, y, BODY, DIM, shown)
            canvas.text(row.value, self._left + self._column, y + self._below, style, TEXT, shown, room=self._room)


def _fitting(lines: tuple[str, ...], style: Type, room: float) -> Type:
    """The style, smaller where the longest line would not fit, but never too small to read."""
    while (longest := max(width(line, style) for line in lines)) > room and style.size > LEAST_SIZE:
        # Small letters are wider in proportion, so one division is not enough.
        size = max(style.size * min(room / longest, 0.98), LEAST_SIZE)
        style = Type(size, style.weight, style.mono)
    return style
