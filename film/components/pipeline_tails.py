"""The end of what each request has written, in its row of Decode, its newest token lit up for a moment.

Knows a run and its clock; not where the rows stand.
"""

from tracereel.film.canvas import Canvas
from tracereel.film.clock import FilmClock
from tracereel.film.colours import RequestColours
from tracereel.film.components.pipeline_places import DECODING, PREFILLING
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrase, quote
from tracereel.film.theme import PANEL, SMALL, TEXT, Colour, mix
from tracereel.trace.analysis.queries import Run
from tracereel.trace.state.columns import ABSENT

FLASH_S = 0.4
_TOKENS = 24


def tinted(colour: Colour, stage: int) -> Colour:
    """The ground of a request's card in a stage."""
    return mix(PANEL, colour, 0.16 if stage in (PREFILLING, DECODING) else 0.07)


class Tails:
    """Letters the newest tokens of the requests of one run."""

    def __init__(self, run: Run, clock: FilmClock, colours: RequestColours):
        self._run, self._clock, self._colours = run, clock, colours
        self.are_known = bool((run.trace.steps.token_text != ABSENT).any())
        """Does the trace hold its tokens' texts?"""
        self._newest: dict[int, tuple[int, Phrase, str]] = {}
        """Of each request the number of its tokens, the last of them, and the newest: they stand for many frames."""

    def paint(
        self, canvas: Canvas, start: tuple[float, float], room: float, request: int, count: int, t_ns: int
    ) -> None:
        """Draw the end of a request's first `count` tokens from `start` on its baseline on."""
        if not count or not self.are_known:
            return
        left, baseline = start
        text, newest = self._texts(request, count)
        colour = self._colours[request]
        shown = canvas.tail(text, left, baseline, SMALL, TEXT, room=room, ground=tinted(colour, DECODING))
        born = self._clock.film_second(self._run.timeline.token_times_of(request)[count - 1])
        glow = 1 - (self._clock.film_second(t_ns) - born) / FLASH_S
        wide = width(newest, SMALL)
        if glow > 0 and newest.strip() and wide < room:
            canvas.glow(left + shown - wide - 3, baseline - 25, wide + 6, 33, colour, 0.45 * glow)

    def _texts(self, request: int, count: int) -> tuple[Phrase, str]:
        """The last of a request's first `count` tokens, and the newest of them."""
        known = self._newest.get(request)
        if known is None or known[0] != count:
            first = max(0, count - _TOKENS)
            text = quote(self._run.measure("output_text", request=request, first=first, end=count))
            newest = quote(self._run.measure("output_text", request=request, first=count - 1, end=count)).text
            known = self._newest[request] = count, text, newest
        return known[1:]
