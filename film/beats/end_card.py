"""Closing: what the film rests on, and how to make it again.

What the viewer should understand: nothing had to be believed. Beat one: how many runs gave the same tokens. Beat two:
the commands that measure and render it again, and the provenance in words and, where it can be scanned, as a QR code.
"""

from tracereel.film.beat import Beat, Caption
from tracereel.film.canvas import Canvas
from tracereel.film.clock import Script, ease
from tracereel.film.components.fact_table import RISE, Fact, FactTable, fitting
from tracereel.film.components.small_run import SmallRun
from tracereel.film.lettering import wrap
from tracereel.film.phrases import Phrase, figure, quote, words
from tracereel.film.registry import CONTINUOUS_BATCHING, FULL_LENGTH, scene
from tracereel.film.show import Show
from tracereel.film.stage import Box, Shape
from tracereel.film.theme import ACCENT, BODY, CAPTION, DIM, SMALL, TEXT, Type
from tracereel.trace.analysis.comparable import NotComparableError, require_comparable
from tracereel.trace.analysis.pairs import throughput_ratio
from tracereel.trace.analysis.queries import Run, measure
from tracereel.trace.recordings.index import FILM

_TOLD_S, _PLAY_S, _HELD_S = 1.8, 5.4, 0.7
"""When it is said on what the film rests; in how many seconds at least the run plays once; how long its end is held."""
_NUMBER = Type(110, 700)
_OVER_CODE, _UNDER_NUMBER, _LINE = 34.0, 44.0, 36.0
"""From what is said of the number to the code, from the number's baseline to that, and from line to line of it."""


@scene("closing", order=1000, films=(CONTINUOUS_BATCHING, FULL_LENGTH))
def end_card(show: Show) -> Beat:
    """What the film rests on, in words and as a QR code, and the commands that make it again."""
    return _EndCard(show).beat()


class _EndCard:
    """The words, the places, and what is drawn when."""

    def __init__(self, show: Show):
        self.show, self.stage, self.say = show, show.stage, show.say.say
        compared = [case for case in ("static", "same-position", "continuous") if show.recordings.has(case)]
        self.played = show.run(show.recordings.preferred("continuous", "online"))
        others = [run for case in compared or [show.recordings.preferred()] for run in show.runs(case)]
        self.runs = [self.played, *(run for run in others if run is not self.played)]
        self._lay_out()
        self._write_script()

    def _write_script(self) -> None:
        """The run plays while it is read on what the film rests."""
        headed = Caption(0.0, self.head)
        claimed = Caption(max(_TOLD_S, headed.read_s), self.claim)
        self.captions = headed, claimed
        timeline = self.played.timeline
        plays_s = max(_PLAY_S, claimed.read_s - _HELD_S)
        script = Script(timeline.begin_ns).run(max(timeline.end_ns, timeline.begin_ns + 1), plays_s)
        self.clock = script.hold(_HELD_S).clock()
        self.small = SmallRun(self.played, self.clock, self.show)

    def _lay_out(self) -> None:
        """Where everything stands. An upright frame is watched on the phone that would scan it: it has no code."""
        stage, say, brand = self.stage, self.say, self.show.settings.brand
        tall, room = stage.shape is Shape.TALL, stage.room
        self.head, self.claim = say("end.name"), _claim(self.show, self.runs)
        self.heads = wrap(self.head.text, Type(92, 700), room) if tall else (self.head.text,)
        self.style = fitting(self.heads, Type(92, 700), room)
        self.top = stage.clear[1] + 44 + self.style.size if tall else stage.height * (0.2 if stage.wide else 0.15)
        below = self.top + (len(self.heads) - 1) * self.style.size * 1.1
        self.claims = wrap(self.claim.text, CAPTION, room)
        self.claim_y = below + 84
        side = 0.0 if tall else 500.0 if stage.wide else 400.0
        foot = stage.clear[3] - 16
        self.code = Box(stage.right - side, foot - side, side, side)
        facts, self.result = _facts(self.show, self.runs), _result(self.show)
        if self.result is not None and tall:  # a square has no room for it
            facts.insert(0, Fact(say("end.result"), self.result[0] + words(" ") + self.result[1]))
        self.notes = list(brand.end)
        if tall and brand.address:
            facts.append(Fact(say("end.more"), brand.address))
        if not tall:
            self.notes.append(say("end.link") if brand.url else say("end.scan"))
        self.evidence = quote(measure("provenance", self.runs))
        y = below + 96 + 50 * len(self.claims) + 24
        self.table = FactTable(stage, facts, y, room - side - 60 if stage.wide else room)
        self.notes_right, self.notes_y = (stage.right, foot - 8) if tall else (self.code.x - 28, foot - 8)
        top = max(self.table.bottom + 96, self.code.y + 40 if side else 0)
        right = self.code.x - 44 if side else stage.right
        factor_h = 0 if stage.wide else 40
        self.grid = Box(stage.margin, top, right - stage.margin, foot - 44 * len(self.notes) - 24 - factor_h - top)

    def beat(self) -> Beat:
        """All of it."""
        runs = tuple(self.runs)
        return Beat("closing", self.head, self.captions, self.clock, runs, self.paint, framed=False)

    def paint(self, canvas: Canvas, film_s: float) -> None:
        """Draw what the film rests on, and the run once more."""
        left, style = self.stage.margin, self.style
        for i, line in enumerate(self.heads):
            # There from the first frame on: nothing is black before it.
            shown = 0.25 + 0.75 * ease((film_s - 0.1 * i) / 0.8)
            y = self.top + i * style.size * 1.1 + RISE * (1 - shown)
            canvas.text(self.head, left, y, style, TEXT, shown, part=line)
        shown = ease((film_s - 0.4) / 0.6)
        for i, line in enumerate(self.claims):
            canvas.text(self.claim, left, self.claim_y + i * 50, CAPTION, ACCENT, shown, part=line)
        self.table.paint(canvas, film_s - 0.8)
        if self.code.w:
            shown = ease((film_s - 1.6) / 0.6)
            canvas.code(self.evidence, self.code.sides, shown, url=self.show.settings.brand.url)
        if self.result is not None and self.stage.wide:
            with canvas.faded(ease((film_s - 1.2) / 0.6)):
                self._number(canvas, *self.result)
        self.small.paint(canvas, self.grid, film_s)
        shown = ease((film_s - 1.8) / 0.6)
        for i, note in enumerate(reversed(self.notes)):
            room = self.notes_right - left
            canvas.text(note, self.notes_right, self.notes_y - 44 * i, BODY, DIM, shown, align=1, room=room)

    def _number(self, canvas: Canvas, ratio: Phrase, of: Phrase) -> None:
        """The film's one number, over the code."""
        lines = wrap(of.text, SMALL, self.code.w)
        below = self.code.y - _OVER_CODE - _LINE * (len(lines) - 1)
        for i, line in enumerate(lines):
            canvas.text(of, self.code.right, below + _LINE * i, SMALL, DIM, align=1, part=line)
        canvas.text(ratio, self.code.right, below - _UNDER_NUMBER, _NUMBER, TEXT, align=1, room=self.code.w)


def _result(show: Show) -> tuple[Phrase, Phrase] | None:
    """How many times static batching's tokens a second, and of how many pairs; None where no two runs are pairs."""
    if not (show.recordings.has("static") and show.recordings.has("continuous")):
        return None
    after, before = show.runs("continuous"), show.runs("static")
    try:
        require_comparable([run.trace for run in (*after, *before)], across=("policy",))
    except NotComparableError:
        return None
    if len(throughput_ratio([run.trace for run in after], [run.trace for run in before]).pairs) < 2:
        return None
    ratio, pairs = (
        show.ask(f"throughput_ratio_{part}", after, before, style) for part, style in (("median", ".2f"), ("pairs", ""))
    )
    return show.say.say("throughput_comparison.times", ratio=ratio), show.say.say("end.ratio_of", pairs=pairs)


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
        Fact(say("end.render"), say(f"end.render_{show.film or CONTINUOUS_BATCHING}{_of_runs(first)}"), typed=True),
        Fact(say("title.recorded"), when),
        Fact(say("title.model"), show.quote(first, "model")),
        Fact(say("title.device"), show.quote(first, "device")),
    ]


def _of_runs(run: Run) -> str:
    """The end of the command's key: plain `manim` plays the film's own suite, other runs have to be named."""
    header = run.trace.header
    own = header.run is not None and header.run.suite == FILM and header.engine.name == "tracereel"
    return "" if own else "_of_runs"


def _recorded(show: Show, run: Run) -> list[Fact]:
    """The command that records these runs again, where there is one."""
    try:
        command = quote(run.measure("record_command"))
    except ValueError:
        return []
    return [Fact(show.say.say("end.record"), command, typed=True)]
