"""The cards at the beginning and the end of a film: what it is, where it comes from, and how to make it again."""

from manim import DOWN, FadeIn, FadeOut, LaggedStart, VGroup, Write
from tracereel.scenes.components.layer import Layer
from tracereel.scenes.components.lettered import Lettered, unit
from tracereel.scenes.components.lettering import width, wrap
from tracereel.scenes.components.slot_grid import SlotGrid, View
from tracereel.scenes.phrases import Phrase, figure, quote
from tracereel.scenes.reel import ReelScene
from tracereel.scenes.stage import Box
from tracereel.scenes.theme import BODY, CAPTION, DECODE, DIM, HUGE, MONO, TEXT, Type
from tracereel.trace.measured import Run, measure

_ROW = 62.0


def title_card(reel: ReelScene, run: Run) -> None:
    """The film's name, and the provenance of what follows."""
    say, stage = reel.say.say, reel.stage
    name = say("title.name")
    lines = [Phrase((part,)) for part in name.text.split(" ")] if not stage.wide else [name]
    style = _fitting(lines, HUGE, stage.width - 2 * stage.margin)
    top = stage.height * 0.3
    titles = VGroup()
    for i, line in enumerate(lines):
        titles.add(reel.place(Lettered(line, style), stage.margin, top + i * style.size * 1.08))
    y = top + (len(lines) - 1) * style.size * 1.08 + 78
    claim = reel.place(Lettered(say("title.claim"), CAPTION, DECODE), stage.margin, y)
    workload = say(
        "title.workload_is",
        requests=figure(run.measure("num_requests")),
        name=quote(run.measure("header", field="workload.name")),
        slots=figure(run.measure("slots")),
    )
    recorded = say("title.recorded_is", day=quote(run.measure("recorded_on")), digest=quote(run.measure("digest")))
    facts = (
        ("engine", reel.quote(run, "engine")),
        ("model", reel.quote(run, "model")),
        ("device", reel.quote(run, "device")),
        ("workload", workload),
        ("recorded", recorded),
    )
    rows = _table(reel, [(say(f"title.{key}"), value) for key, value in facts], y + 118)
    reel.play(LaggedStart(*(Write(title, run_time=1.3) for title in titles), lag_ratio=0.25))
    reel.play(FadeIn(claim, shift=DOWN * 20 * unit()), run_time=0.5)
    band = Box(stage.margin, stage.height - stage.margin - 120, stage.width - 2 * stage.margin, 120)
    grid, whole = SlotGrid(run, reel.say), View(0, max(run.timeline.end_ns, 1))
    picture = Layer(lambda canvas: grid.paint(canvas, band, whole, run.timeline.end_ns + 1), run.trace.digest)
    reel.play(LaggedStart(*(FadeIn(row) for row in rows), lag_ratio=0.25), FadeIn(picture), run_time=1.2)
    reel.wait(2.2)
    reel.play(FadeOut(titles, claim, rows, picture), run_time=0.5)


def end_card(reel: ReelScene, runs: list[Run]) -> None:
    """What the film rests on, and the commands that make it again."""
    say, stage = reel.say.say, reel.stage
    top = stage.height * (0.28 if stage.wide else 0.26)
    head = say("end.name")
    title = reel.place(
        Lettered(head, _fitting([head], Type(92, 700), stage.width - 2 * stage.margin)), stage.margin, top
    )
    claim = say(
        "end.same_tokens",
        runs=figure(measure("num_runs", runs)),
        same=figure(measure("requests_with_same_tokens", runs)),
        requests=figure(runs[0].measure("num_requests")),
    )
    lines = wrap(claim.text, CAPTION, stage.width - 2 * stage.margin)
    same = VGroup(
        *(
            reel.place(Lettered(claim, CAPTION, DECODE, part=line), stage.margin, top + 84 + i * 50)
            for i, line in enumerate(lines)
        )
    )
    facts = [
        (say("end.record"), say("end.record_command")),
        (say("end.render"), say("end.render_command")),
        (say("title.model"), reel.quote(runs[0], "model")),
        (say("title.device"), reel.quote(runs[0], "device")),
    ]
    rows = _table(reel, facts, top + 180 + 50 * len(lines), mono=2)
    reel.play(FadeIn(title), FadeIn(same), run_time=0.7)
    reel.play(LaggedStart(*(FadeIn(row) for row in rows), lag_ratio=0.25), run_time=1.2)
    reel.wait(3.2)
    reel.play(FadeOut(title, same, rows), run_time=0.6)


def _table(reel: ReelScene, facts: list[tuple[Phrase, Phrase]], y: float, mono: int = 0) -> VGroup:
    """Rows of a name and what it is, the first `mono` as one types them; in a tall frame one under the other."""
    stage = reel.stage
    rows = VGroup()
    tall = not stage.wide
    column = 0.0 if tall else max(width(name.text, BODY) for name, _ in facts) + 48
    for i, (name, value) in enumerate(facts):
        at = y + i * (_ROW + (46 if tall else 0))
        style = MONO if i < mono else BODY
        room = stage.width - 2 * stage.margin - column
        fit = _fitting([value], style, room)
        below = 44 if tall else 0
        rows.add(
            VGroup(
                reel.place(Lettered(name, BODY, DIM), stage.margin, at),
                reel.place(Lettered(value, fit, TEXT), stage.margin + column, at + below),
            )
        )
    return rows


def _fitting(lines: list[Phrase], style: Type, room: float) -> Type:
    """The style, smaller where the longest line would not fit."""
    while (longest := max(width(line.text, style) for line in lines)) > room:
        # Small letters are wider in proportion, so one division is not enough.
        style = Type(style.size * min(room / longest, 0.98), style.weight, style.mono)
    return style
