"""The life of one request as a bar: each stage as wide as it lasted, filled up to now.

A pure function of engine time. Knows a run, a request of it and a box; not which chapter the bar stands in.
"""

from tracereel.film.canvas import Canvas
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrase, Phrasebook, figure
from tracereel.film.stage import Box
from tracereel.film.theme import DIM, GROUND, PANEL, PREFILL, SMALL, SMALL_STRONG, TEXT, Colour, mix
from tracereel.film.time_axis import TimeAxis, View
from tracereel.trace.analysis.life import CHUNKS, DECODE, QUEUE, Stretch
from tracereel.trace.analysis.life import PREFILL as READ
from tracereel.trace.analysis.queries import Run

_AHEAD, _PAST = 0.1, 0.3
"""How much of a stage's colour is in its part of the bar that is still to come, and in that of the past."""
_SLIVER, _AHEAD_OF_SLIVER = 12.0, 0.45
"""A narrower part is in its whole colour once it is past, and so much of it before."""
_EDGE, _DOT = 5.0, 7.0
"""How high the line under what has passed is, and the radius of the dot at now."""
_LEAST = 3.0
"""A stage that lasted a moment is drawn so wide."""
_BASELINE, _INSET = 23.0, 14.0
"""From the bar's top to the baseline of its words, and from a stage's left edge to them."""
_IN_SECONDS_NS = 10**9
"""A life of that length is said in seconds, a shorter one in milliseconds."""


class LifeBar:
    """Draws the life of one request of a run in the request's colour."""

    def __init__(self, run: Run, request: int, colour: Colour, say: Phrasebook):
        self._run, self._request, self._say = run, request, say
        self._colours = {QUEUE: DIM, READ: PREFILL, CHUNKS: PREFILL, DECODE: colour}

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """The stages of the request's life, one after the other."""
        return self._run.life(self._request)

    def axis(self, box: Box) -> TimeAxis:
        """The request's life along a box: from its arrival to its end."""
        begin_ns = self._run.trace.arrivals[self._request].arrival_ns
        end_ns = self.stretches[-1].to_ns if self.stretches else begin_ns
        return View(begin_ns, max(end_ns, begin_ns + 1)).along(box)

    def parts(self, box: Box) -> list[Box]:
        """The part of a box that each stage has."""
        axis = self.axis(box)
        sides = ((axis.x(stretch.from_ns), axis.x(stretch.to_ns)) for stretch in self.stretches)
        return [Box(left, box.y, max(right - left, _LEAST), box.h) for left, right in sides]

    def paint(self, canvas: Canvas, box: Box, now_ns: int) -> None:
        """Draw the stages, those of the past brighter, what each has taken so far, and a dot at now."""
        x = self.axis(box).within(now_ns)
        parts = self.parts(box)
        for stretch, part in zip(self.stretches, parts, strict=True):
            colour = self._colours[stretch.stage]
            ahead, behind = (_AHEAD, _PAST) if part.w > _SLIVER else (_AHEAD_OF_SLIVER, 1.0)
            canvas.box(*part.sides, mix(PANEL, colour, ahead))
            past = min(part.right, x) - part.x if now_ns < stretch.to_ns else part.w
            if now_ns > stretch.from_ns and past > 0:
                canvas.box(part.x, part.y, past, part.h, mix(PANEL, colour, behind))
                canvas.box(part.x, part.bottom - _EDGE, past, _EDGE, colour)
        for nth, part in enumerate(parts):
            self._words(canvas, part, nth, now_ns)
        if self.stretches and now_ns >= self.stretches[0].from_ns:
            with canvas.moving():
                # Below the words, so that it hides no figure.
                canvas.disc(x, box.bottom + 1, _DOT + 2, GROUND)
                canvas.disc(x, box.bottom + 1, _DOT, TEXT)

    def _words(self, canvas: Canvas, part: Box, nth: int, now_ns: int) -> None:
        """A stage's name, with the time that it has taken once it has begun; as much of it as its part has room for."""
        stretch = self.stretches[nth]
        begun, runs = now_ns >= stretch.from_ns, stretch.from_ns <= now_ns < stretch.to_ns
        style = SMALL_STRONG if runs else SMALL
        room, name = part.w - 2 * _INSET, self._say.say(f"follow.{stretch.stage}")
        # What it takes in the end decides, so that no word comes or goes while a figure grows.
        whole = self._say.say(f"follow.{stretch.stage}_for", time=self._time(nth, stretch.to_ns))
        if width(whole.text, SMALL_STRONG) <= room:
            said = self._say.say(f"follow.{stretch.stage}_for", time=self._time(nth, now_ns)) if begun else name
        elif width(name.text, SMALL_STRONG) <= room:
            said = name
        else:
            return
        canvas.text(said, part.x + _INSET, part.y + _BASELINE, style, TEXT if begun else DIM)

    def _time(self, nth: int, t_ns: int) -> Phrase:
        """For how long the request has been in the nth stage by an instant."""
        asked = {"request": self._request, "nth": nth, "t_ns": min(t_ns, self.stretches[nth].to_ns)}
        begin_ns, end_ns = self.stretches[0].from_ns, self.stretches[-1].to_ns
        if end_ns - begin_ns >= _IN_SECONDS_NS:
            return self._say.say("latency.s", value=figure(self._run.measure("time_in_stage_s", **asked), ".2f"))
        return self._say.say("latency.ms", value=figure(self._run.measure("time_in_stage_ms", **asked), ".1f"))
