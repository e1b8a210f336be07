"""You are one of them: one request's two answers on one clock, each word when it came, and what the difference costs.

What the viewer should understand: what batching does to one person who waits. Beat one: the request stands in line in
both runs; in each its words come at their measured times. Beat two: how long the whole answer took in each, and the
gaps between its tokens. The request is the one with the median gain, neither the best nor the worst.
"""

from tracereel.film.beat import Beat, Caption
from tracereel.film.canvas import Canvas
from tracereel.film.clock import Script, ease
from tracereel.film.components.answer_panel import AnswerPanel, Case
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrase, figure, quote
from tracereel.film.registry import CONTINUOUS_BATCHING, scene
from tracereel.film.rounding import ms_style, style
from tracereel.film.show import Show
from tracereel.film.stage import Box, Shape
from tracereel.film.theme import (
    CARD_BAR,
    DIM,
    IN_ROW,
    PANEL,
    SMALL,
    SMALL_STRONG,
    STRONG,
    TEXT,
    Colour,
    Letters,
    case_colour,
    mix,
)
from tracereel.trace.analysis.comparable import require_comparable
from tracereel.trace.analysis.queries import Measured, Run, measure
from tracereel.trace.format.storage import TraceError
from tracereel.trace.state.columns import ABSENT

REAL_FROM_S, REAL_TO_S = 4.0, 11.3
"""An answer that takes so long is shown as fast as it was measured; with a longer one the film would take over 90 s."""
_OTHERWISE_S = 9.0
"""Seconds of film for any other answer."""
_SECOND_S = 4.2
_FACTS_S, _GAPS_S, _END_S = 0.2, 3.9, 7.6
"""When it is said how long the answers took, and their gaps are; and when the beat ends: after the last token."""
_PROMPT_INSET = 36.0
"""From the left edge of the prompt's card to its words."""
_PROMPT, _GRID, _FACTS = 74.0, 120.0, 96.0


@scene("you_are", order=25, films=(CONTINUOUS_BATCHING,), needs=("static", "continuous"))
def you_are(show: Show) -> Beat:
    """The beat of the static and the continuous run. Raises TraceError or NotComparableError where they are not two."""
    return _TwoAnswers(show).beat()


class _TwoAnswers:
    """The clock, the places, and what is drawn when."""

    def __init__(self, show: Show):
        self.show, self.stage, self.say = show, show.stage, show.say.say
        self.static, self.continuous = show.run("static"), show.run("continuous")
        runs = (self.static, self.continuous)
        require_comparable([run.trace for run in runs], across=("policy",))
        if any(not (run.trace.steps.token_text != ABSENT).any() for run in runs):
            raise TraceError(self.static.trace.path, "the answers' texts are not recorded")
        try:
            chosen = measure("median_gain_request", runs).value
        except ValueError as error:
            raise TraceError(self.static.trace.path, str(error)) from None
        assert isinstance(chosen, int)
        self.request = chosen
        self._write_script()
        span_ns = max(run.timeline.end_ns - run.timeline.begin_ns for run in runs)
        cases = [
            Case(run, self.say(f"decode_batching.{key}"), case_colour(key), self._shift(run))
            for run, key in zip(runs, ("static", "continuous"), strict=True)
        ]
        self.panels = [AnswerPanel(case, chosen, span_ns, show.say, show.colours()) for case in cases]
        self.cases = cases

    def _shift(self, run: Run) -> int:
        return run.timeline.begin_ns - self.continuous.timeline.begin_ns

    def _write_script(self) -> None:
        """From the arrival to the later of both last tokens, in real time where that can be watched."""
        arrived = self.continuous.trace.arrivals[self.request].arrival_ns
        ends = [
            run.timeline.token_times_of(self.request)[-1] - self._shift(run) for run in (self.static, self.continuous)
        ]
        seconds = (max(ends) - arrived) / 1e9
        self.done_s = seconds if REAL_FROM_S <= seconds <= REAL_TO_S else _OTHERWISE_S
        self.clock = Script(arrived).run(max(ends), self.done_s).hold(_END_S).clock()

    def beat(self) -> Beat:
        """All of it."""
        say = self.say
        runs = [self.static, self.continuous]
        name, one = figure(measure("median_gain_request_name", runs)), measure("are_of_one_engine", runs)
        captions = (
            Caption(0.0, self._compared("who", "request_e2el_s", name=name)),
            Caption(_SECOND_S, say("you_are.clock" if one.value else "you_are.clock_of_engines")),
            Caption(self.done_s + _FACTS_S, self._answered()),
            Caption(self.done_s + _GAPS_S, self._gaps()),
        )
        return Beat(
            "you_are",
            say("you_are.name", name=name),
            captions,
            self.clock,
            (self.continuous, self.static),
            self.paint,
            still_s=self.done_s + _END_S - 0.4,
            heard=self.request,
        )

    def _values(self, query: str) -> tuple[Measured, Measured]:
        static, continuous = (run.measure(query, request=self.request) for run in (self.static, self.continuous))
        return static, continuous

    def _answered(self) -> Phrase:
        """How long the answer took in both runs: the sentence that the printed figures bear out."""
        return self._compared("answer", "request_e2el_s")

    def _gaps(self) -> Phrase:
        """How long the gaps between its tokens are: a price where the answer came sooner, and they are longer."""
        (took, takes), (gap, longer) = (
            [float(printed.text) for printed in self._printed(query)] for query in ("request_e2el_s", "request_itl_ms")
        )
        return self._compared("price" if longer > gap and takes < took else "gap", "request_itl_ms")

    def _printed(self, query: str) -> tuple[Phrase, Phrase]:
        """The value of both runs with as many digits."""
        static, continuous = values = self._values(query)
        digits = style(*values, digits=2) if query == "request_e2el_s" else ms_style(*values)
        return figure(static, digits), figure(continuous, digits)

    def _compared(self, about: str, query: str, **more: Phrase) -> Phrase:
        """The sentence that says what the figures say as they are printed."""
        static, continuous = self._printed(query)
        one, other = float(static.text), float(continuous.text)
        key = "equal" if one == other else "longer" if other > one else "shorter"
        return self.say(f"you_are.{about}_{key}", static=static, continuous=continuous, **more)

    def places(self) -> tuple[Box, list[tuple[Box, Box, Box]]]:
        """Where the prompt stands, and for each run its words, its slots and its bars."""
        content = self.stage.content
        tall = self.stage.shape is Shape.TALL
        prompt = Box(content.x, content.y, content.w, _PROMPT)
        below = Box(content.x, prompt.bottom + 16, content.w, content.h - _PROMPT - 16)
        sides = below.rows(2, 24) if tall else below.columns((1, 1), 40)
        slots = _GRID * (0.5 if tall else 1.0)  # one above the other, the words need the height
        found = []
        for side in sides:
            facts = Box(side.x, side.bottom - _FACTS, side.w, _FACTS)
            grid = Box(side.x, facts.y - 16 - slots, side.w, slots)
            found.append((Box(side.x, side.y, side.w, grid.y - 18 - side.y), grid, facts))
        return prompt, found

    def paint(self, canvas: Canvas, film_s: float) -> None:
        """Draw the prompt and both answers."""
        now_ns = self.clock.engine_ns(film_s)
        prompt, sides = self.places()
        self._prompt(canvas, prompt)
        for panel, case, (words, grid, facts) in zip(self.panels, self.cases, sides, strict=True):
            panel.paint(canvas, words, grid, now_ns)
            self._bars(canvas, facts, case, film_s - self.done_s)

    def _prompt(self, canvas: Canvas, box: Box) -> None:
        run, colour = self.continuous, self.show.colours()[self.request]
        canvas.card(*box.sides, mix(PANEL, colour, 0.16))
        canvas.card(box.x, box.y, CARD_BAR, box.h, colour, radius=5)
        y = box.y + box.h / 2 + 11
        name = quote(run.measure("request_name", request=self.request))
        wide = canvas.text(name, box.x + _PROMPT_INSET, y, STRONG, Letters(colour))
        prompt = quote(run.measure("prompt", request=self.request))
        canvas.text(
            prompt, box.x + _PROMPT_INSET + wide + 20, y, STRONG, TEXT, room=box.w - wide - _PROMPT_INSET - 20 - 24
        )

    def _bars(self, canvas: Canvas, box: Box, case: Case, since_s: float) -> None:
        """How long its answer took and its gaps are, as bars on one scale for both runs."""
        rows = box.rows(2, 12)
        for row, query, label, unit, from_s in (
            (rows[0], "request_e2el_s", "you_are.answer_bar", "you_are.s", _FACTS_S),
            (rows[1], "request_itl_ms", "you_are.gap_bar", "you_are.ms", _GAPS_S),
        ):
            shown = ease((since_s - from_s) / 0.4)
            if shown <= 0:
                continue
            values = self._values(query)
            largest = max(float(value.value) for value in values) or 1.0
            own = 0 if case.run is self.static else 1
            with canvas.faded(shown):
                self._bar(
                    canvas,
                    row,
                    self.say(label),
                    self.say(unit, value=self._printed(query)[own]),
                    float(values[own].value) / largest * ease((since_s - from_s) / 1.4),
                    case.colour,
                )

    def _bar(self, canvas: Canvas, box: Box, label: Phrase, said: Phrase, share: float, colour: Colour) -> None:
        labels = (self.say("you_are.answer_bar"), self.say("you_are.gap_bar"))
        left = max(width(words.text, SMALL) for words in labels) + 20
        y = box.y + box.h / 2 + IN_ROW
        canvas.text(label, box.x, y, SMALL, DIM)
        room = max(box.w - left - max(130, width(said.text, SMALL_STRONG) + 14), 20)
        canvas.box(box.x + left, box.y + 6, max(room * share, 2), box.h - 12, colour)
        canvas.text(said, box.x + left + room * share + 14, y, SMALL_STRONG, TEXT)
