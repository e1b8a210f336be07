"""Slots as rows in which answers are written: the request's name, and the end of its text as it grows.

A row whose request has ended is dark. A pure function of the engine time. Knows a run and a box.
"""

from collections.abc import Sequence

from tracereel.film.canvas import Canvas
from tracereel.film.clock import FilmClock, ease
from tracereel.film.colours import RequestColours
from tracereel.film.phrases import Phrasebook, figure, quote
from tracereel.film.stage import Box
from tracereel.film.theme import CARD_BAR, CARD_INSET, IDLE_SLOT, IN_ROW, PANEL, SMALL, SMALL_STRONG, TEXT, Letters, mix
from tracereel.trace.analysis.queries import Run
from tracereel.trace.state.columns import ABSENT

_TAIL_TOKENS = 48
_DARK_S = 0.5
"""Seconds of film in which a row goes dark."""


class AnswerRows:
    """Draws some slots of a run, the first of `slots` on top."""

    def __init__(self, run: Run, clock: FilmClock, say: Phrasebook, colours: RequestColours, slots: Sequence[int]):
        self._run, self._clock, self._say, self._colours, self.slots = run, clock, say, colours, tuple(slots)
        self._has_texts = bool((run.trace.steps.token_text != ABSENT).any())

    def boxes(self, box: Box) -> list[Box]:
        """The row of each slot that is shown."""
        return box.rows(len(self.slots), 10.0)

    def paint(self, canvas: Canvas, box: Box, film_s: float) -> None:
        """Draw the rows at a second of film."""
        t_ns = self._clock.engine_ns(film_s)
        occupancy = self._run.timeline.at(t_ns).occupancy
        for slot, row in zip(self.slots, self.boxes(box), strict=True):
            occupant = occupancy[slot]
            if occupant is None:
                dark = ease((film_s - self._clock.film_second(self._freed_ns(slot, t_ns))) / _DARK_S)
                canvas.card(*row.sides, mix(PANEL, IDLE_SLOT, dark))
                idle = self._say.say("two_of_eight.idle")
                canvas.text(
                    idle, row.x + CARD_INSET, row.y + row.h / 2 + IN_ROW, SMALL, TEXT, dark, room=row.w - 2 * CARD_INSET
                )
            else:
                self._answer(canvas, row, occupant.request, occupant.output_tokens, t_ns)

    def _freed_ns(self, slot: int, t_ns: int) -> int:
        """When the slot was left for the last time before t; the run's beginning where it never was."""
        residencies = self._run.trace.residencies
        left = residencies.to_ns[(residencies.slot == slot) & (residencies.to_ns <= t_ns)]
        return int(left.max()) if len(left) else self._run.timeline.begin_ns

    def _answer(self, canvas: Canvas, row: Box, request: int, tokens: int, t_ns: int) -> None:
        run, colour = self._run, self._colours[request]
        ground = mix(PANEL, colour, 0.16)
        canvas.card(*row.sides, ground)
        canvas.card(row.x, row.y, CARD_BAR, row.h, colour, radius=5)
        y = row.y + row.h / 2 + IN_ROW
        name = quote(run.measure("request_name", request=request))
        wide = canvas.text(
            name, row.x + CARD_INSET, y, SMALL_STRONG, Letters(colour), room=row.w - CARD_INSET - CARD_BAR
        )
        count = figure(run.measure("request_output_tokens", request=request, t_ns=t_ns), ",d")
        right = canvas.text(count, row.right - 20, y, SMALL_STRONG, TEXT, align=1)
        left = row.x + CARD_INSET + wide + 18
        room = row.right - 20 - right - 20 - left
        if tokens and self._has_texts and room > 80:
            first = max(0, tokens - _TAIL_TOKENS)
            text = quote(run.measure("output_text", request=request, first=first, end=tokens))
            canvas.tail(text, left, y, SMALL, TEXT, room=room, ground=ground)
