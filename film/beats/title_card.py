"""Opening: the film's name, and where everything that follows comes from.

What the viewer should understand: this is a recording. Beat one: the name, and one line of what it is. Beat two: the
engine, model, device, workload and trace by their own names, with what only some engines say of a run, and under them
the whole run in one look.
"""

from tracereel.film.beat import Beat, Caption
from tracereel.film.canvas import Canvas
from tracereel.film.clock import Script, ease
from tracereel.film.components.fact_table import RISE, Fact, FactTable, fitting
from tracereel.film.components.small_run import ABOVE, BELOW, SmallRun
from tracereel.film.components.special_facts import special_rows
from tracereel.film.lettering import wrap
from tracereel.film.phrases import figure, quote
from tracereel.film.registry import CONTINUOUS_BATCHING, FULL_LENGTH, scene
from tracereel.film.show import Show
from tracereel.film.stage import Box, Shape
from tracereel.film.theme import ACCENT, CAPTION, HUGE, TEXT, Type

_TITLE_S = 5.4
_NAMES = 240.0
"""What the names of facts take at most of a row in which values stand next to them."""
_APART = 54.0
"""Between what is said of the run and the run."""


@scene("opening", order=1, films=(CONTINUOUS_BATCHING, FULL_LENGTH))
def title_card(show: Show) -> Beat:
    """The film's name, and the provenance of what follows: of the continuous run, or the one there is."""
    run = show.run(show.recordings.preferred("continuous", "online"))
    say, stage, brand = show.say.say, show.stage, show.settings.brand
    name = brand.title or say("title.name")
    claim = brand.claim or say("title.claim")
    room = stage.room
    # In a narrow frame the name stands in as many lines as make it large.
    tall = stage.shape is Shape.TALL
    lines = (name.text,) if stage.wide else tuple(wrap(name.text, Type(HUGE.size * 0.8, HUGE.weight), room))
    style = fitting(lines, HUGE, room)
    top = stage.height * {Shape.WIDE: 0.24, Shape.TALL: 0.19, Shape.SQUARE: 0.18}[stage.shape]
    below = top + (len(lines) - 1) * style.size * 1.08
    rows = [
        Fact(say("title.engine"), show.quote(run, "engine")),
        Fact(say("title.model"), show.quote(run, "model")),
        Fact(say("title.device"), show.quote(run, "device")),
        Fact(
            say("title.workload"),
            say(
                "title.workload_is",
                requests=figure(run.measure("num_requests"), ",d"),
                name=quote(run.measure("header", field="workload.name")),
                slots=figure(run.measure("slots")),
            ),
        ),
        *special_rows(run, say, room if tall else room - _NAMES),
        Fact(
            say("title.recorded"),
            say("title.recorded_is", day=quote(run.measure("recorded_on")), digest=quote(run.measure("digest"))),
        ),
    ]
    table = FactTable(stage, rows, below + (200 if stage.shape is not Shape.SQUARE else 150))
    bottom = stage.clear[3]
    high = bottom - (0.0 if stage.wide else BELOW) - table.bottom - ABOVE - _APART
    band = Box(stage.margin, table.bottom + ABOVE + _APART, room, high)
    named = Caption(0.0, name)
    claimed = Caption(named.read_s, claim)
    begin_ns, plays_s = run.timeline.begin_ns, max(_TITLE_S, claimed.read_s)
    clock = Script(begin_ns).run(max(run.timeline.end_ns, begin_ns + 1), plays_s).clock()
    # The run that follows, in one look.
    small = SmallRun(run, clock, show)

    def picture(canvas: Canvas, film_s: float) -> None:
        if brand.logo:
            canvas.image(brand.logo, Box(stage.margin, stage.clear[1] + 12, room, 110).sides, ease(film_s / 0.6))
        for i, line in enumerate(lines):
            # There from the first frame on, which many see alone.
            canvas.text(name, stage.margin, top + i * style.size * 1.08, style, TEXT, part=line)
        shown = ease((film_s - 0.3) / 0.6)
        canvas.text(claim, stage.margin, below + 78 + RISE * (1 - shown), CAPTION, ACCENT, shown, room=room)
        table.paint(canvas, film_s - 0.6)
        small.paint(canvas, band, film_s)
        small.explain(canvas, band)

    return Beat("opening", name, (named, claimed), clock, (run,), picture, framed=False)
