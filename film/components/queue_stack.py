"""The waiting queue as a stack of cards, the first in line on top: requests with their prompts, and how many more.

A pure function of the engine time. Knows a run and a box; not what becomes of the requests.
"""

from tracereel.film.canvas import Canvas
from tracereel.film.colours import RequestColours
from tracereel.film.phrases import Phrasebook, figure, quote
from tracereel.film.stage import Box
from tracereel.film.theme import (
    AFTER_NAME,
    CARD_BAR,
    CARD_END,
    CARD_INSET,
    COUNTED,
    DIM,
    HEADING,
    HEADING_LINE,
    IN_ROW,
    LEAST_PROMPT,
    PANEL,
    SMALL,
    SMALL_STRONG,
    TEXT,
    Letters,
    mix,
)
from tracereel.trace.analysis.queries import Run

_CARD, _GAP, _MORE = 66.0, 10.0, 44.0


class QueueStack:
    """Draws the waiting queue of one run."""

    def __init__(self, run: Run, say: Phrasebook, colours: RequestColours):
        self._run, self._say, self._colours = run, say, colours

    def card(self, box: Box, place: int) -> Box:
        """The place of the card of the request that is `place` in line, 0 the first."""
        return Box(box.x, box.y + COUNTED + place * (_CARD + _GAP), box.w, _CARD)

    def room(self, box: Box) -> int:
        """How many cards the box has room for, the line below them left out."""
        return max(int((box.h - COUNTED - _MORE + _GAP) // (_CARD + _GAP)), 1)

    def paint(self, canvas: Canvas, box: Box, t_ns: int, *, without: int | None = None) -> None:
        """Draw the queue at engine time t; the card of the request `without` is drawn elsewhere."""
        say, run = self._say.say, self._run
        state = run.timeline.at(t_ns)
        count = figure(run.measure("waiting", t_ns=t_ns), ",d")
        canvas.text(say("two_of_eight.waiting", count=count), box.x, box.y + HEADING_LINE, HEADING, TEXT, room=box.w)
        room = self.room(box)
        for place, request in enumerate(state.waiting[:room]):
            if request != without:
                self.paint_card(canvas, self.card(box, place), request)
        if len(state.waiting) > room:
            more = figure(run.measure("waiting_beyond", t_ns=t_ns, shown=room), ",d")
            canvas.text(say("pipeline_flow.more", count=more), box.x + 4, box.bottom - 8, SMALL, DIM, room=box.w)

    def paint_card(self, canvas: Canvas, box: Box, request: int) -> None:
        """Draw the card of a request: its name and its prompt."""
        run, colour = self._run, self._colours[request]
        canvas.card(*box.sides, mix(PANEL, colour, 0.1))
        canvas.card(box.x, box.y, CARD_BAR, box.h, colour, radius=5)
        y = box.y + box.h / 2 + IN_ROW
        name = quote(run.measure("request_name", request=request))
        wide = canvas.text(
            name, box.x + CARD_INSET, y, SMALL_STRONG, Letters(colour), room=box.w - CARD_INSET - CARD_BAR
        )
        room = box.w - CARD_INSET - wide - AFTER_NAME - CARD_END
        if room > LEAST_PROMPT:
            prompt = quote(run.measure("prompt", request=request))
            canvas.text(prompt, box.x + CARD_INSET + wide + AFTER_NAME, y, SMALL, DIM, room=room)
