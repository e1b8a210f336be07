"""One request's answer as it appears: its words at their measured times, and what keeps the request meanwhile.

Below the words its run's slots, dimmed but for those stays that are the request's own. The answer is broken into lines
once, so that no word moves after it has come. A pure function of the engine time. Knows a run, a request and a box.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from tracereel.film.canvas import Canvas
from tracereel.film.colours import RequestColours
from tracereel.film.components.slot_grid import SlotGrid
from tracereel.film.lettering import line_ends, width
from tracereel.film.phrases import Phrase, Phrasebook, figure, quote
from tracereel.film.rounding import style
from tracereel.film.stage import Box
from tracereel.film.theme import BODY, CARD_BAR, DIM, HEADING, PANEL, SMALL, SMALL_STRONG, TEXT, Colour, Type, mix
from tracereel.film.time_axis import View
from tracereel.trace.analysis.batching_facts import Refill, refill
from tracereel.trace.analysis.queries import Run

_HEAD, _LINE, _PAD = 58.0, 42.0, 26.0
_DIMMED = 0.3
_COUNT = Type(96, 650)
_LEAST_ROW = 7.0
"""A stay of the request is drawn so high at least."""


@dataclass(frozen=True)
class Case:
    """A run and what it is called; `shift_ns` is how far its clock is ahead of the film's."""

    run: Run
    name: Phrase
    colour: Colour
    shift_ns: int = 0


class AnswerPanel:
    """Draws one request of one run; `span_ns` is how much engine time fills the grid's width."""

    def __init__(self, case: Case, request: int, span_ns: int, say: Phrasebook, colours: RequestColours):
        self._case, self._run, self._request, self._say = case, case.run, request, say.say
        self._colour = colours[request]
        self._grid = SlotGrid(case.run, say, colours)
        begin = case.run.timeline.begin_ns
        self._view = View(begin, begin + max(span_ns, 1))
        self._times = case.run.timeline.token_times_of(request)

    def answer(self, tokens: int) -> Phrase:
        """The request's first so many tokens as text."""
        return quote(self._run.measure("output_text", request=self._request, first=0, end=tokens))

    @cached_property
    def whole(self) -> str:
        """The whole answer as it is lettered."""
        return self.answer(len(self._times)).text

    def paint(self, canvas: Canvas, box: Box, grid: Box, film_ns: int) -> None:
        """Draw the words into `box` and the slots into `grid` at an engine time of the film's clock."""
        t_ns = film_ns + self._case.shift_ns
        head, state = box.y + 36, self._state(t_ns)
        right = canvas.text(state, box.right - _PAD, head, SMALL_STRONG, TEXT, align=1, room=box.w * 0.66)
        canvas.text(self._case.name, box.x, head, HEADING, self._case.colour, room=box.w - right - _PAD - 24)
        self._words(canvas, Box(box.x, box.y + _HEAD, box.w, box.h - _HEAD), t_ns)
        self._slots(canvas, grid, t_ns)

    def _state(self, t_ns: int) -> Phrase:
        """Where the request is: in line, in prefill, writing, or done."""
        run, say, request = self._run, self._say, self._request
        state = run.timeline.at(t_ns)
        if t_ns >= self._times[-1]:
            took = run.measure("request_e2el_s", request=request)
            return say("you_are.done", seconds=figure(took, style(took, digits=2)))
        if request in state.waiting:
            return say("you_are.in_line")
        if t_ns < self._times[0]:
            return say("you_are.prefill")
        count = figure(run.measure("request_output_tokens", request=request, t_ns=t_ns), ",d")
        return say("you_are.writes", count=count)

    def _words(self, canvas: Canvas, box: Box, t_ns: int) -> None:
        """The lines that have come, the newest ones where there is no room for all."""
        canvas.card(*box.sides, mix(PANEL, self._colour, 0.08))
        canvas.card(box.x, box.y, CARD_BAR, box.h, self._colour, radius=5)
        tokens = self._run.timeline.at(t_ns).output_tokens_of(self._request)
        if not tokens:
            self._line(canvas, box, t_ns)
            return
        room = box.w - 2 * _PAD - CARD_BAR
        phrase, lines, begin = self.answer(tokens), [], 0
        reached = len(phrase.text)
        for end in _ends(self.whole, room):
            if begin < reached:
                lines.append(phrase.text[begin : min(end, reached)].rstrip(" ↵"))
            begin = end
        most = max(int((box.h - 1.2 * _PAD) // _LINE), 1)
        for i, line in enumerate(lines[-most:]):
            if line:
                y = box.y + _PAD + 24 + i * _LINE
                canvas.text(phrase, box.x + CARD_BAR + _PAD, y, BODY, TEXT, part=line, room=room)

    def _line(self, canvas: Canvas, box: Box, t_ns: int) -> None:
        """While it waits: how many are before it, large."""
        if self._request not in self._run.timeline.at(t_ns).waiting:
            return
        ahead = figure(self._run.measure("ahead_in_line", request=self._request, t_ns=t_ns), ",d")
        middle = box.x + box.w / 2
        canvas.text(ahead, middle, box.y + box.h / 2 + 14, _COUNT, TEXT, align=0.5)
        canvas.text(self._why(box, t_ns), middle, box.y + box.h / 2 + 60, SMALL, DIM, align=0.5, room=box.w)

    def _why(self, box: Box, t_ns: int) -> Phrase:
        """What its place in line is: where it is the next, a slot is free and the batch is closed, that is said."""
        state, ahead = self._run.timeline.at(t_ns), self._say("you_are.ahead")
        next_and_free = state.waiting[0] == self._request and None in state.occupancy
        static = self._run.trace.header.policy == "static" and refill(self._run.trace) is Refill.CLOSED
        if not next_and_free or not static:
            return ahead
        closed = self._say("you_are.closed")
        return closed if width(closed.text, SMALL) <= box.w else ahead

    def _slots(self, canvas: Canvas, box: Box, t_ns: int) -> None:
        """The run's slots so far, dimmed, and the request's own stays."""
        with canvas.faded(_DIMMED):
            self._grid.paint(canvas, box, self._view, t_ns)
        for stay in self._grid.residencies:
            if stay.request == self._request and stay.from_ns < t_ns:
                to_ns = min(stay.to_ns, t_ns)
                place = self._grid.residency_box(box, self._view, stay.slot, stay.from_ns, to_ns)
                high = max(place.h, _LEAST_ROW)
                top = min(max(place.y + (place.h - high) / 2, box.y), box.bottom - high)
                stayed = Box(place.x, top, max(place.w, 3), high)
                canvas.box(*stayed.sides, self._colour)
                canvas.card(*stayed.grown(4).sides, TEXT, radius=4, outline=2.5)


def _ends(text: str, room: float) -> Iterator[int]:
    """Where the lines of an answer end, as many characters from its beginning; a line break of its own ends one too."""
    begin = 0
    for paragraph in re.findall("[^↵]*(?:↵ ?)+|[^↵]+", text):
        *ends, _ = line_ends(paragraph.rstrip(" ↵"), BODY, room) or (0,)
        yield from (begin + end for end in ends)
        begin += len(paragraph)
        yield begin
