"""How long the others wait for their next token while a prompt is read: a sawtooth over engine time.

The height is the engine time since a request's newest token; it falls to nothing when the next one is out, so that each
peak is a gap between tokens. A pure function of engine time. Knows a run and a box; not how the view moves.
"""

from functools import cached_property
from itertools import pairwise

import numpy as np
from tracereel.film.canvas import Canvas
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrase, Phrasebook, figure
from tracereel.film.rounding import gap_style
from tracereel.film.stage import Box
from tracereel.film.theme import LINE, SMALL_STRONG, TEXT, Colour
from tracereel.film.time_axis import View
from tracereel.trace.analysis.gaps import gaps_beside
from tracereel.trace.analysis.queries import Run

HEAD = 40.0
"""Units above the highest peak: its figure stands there."""


def longest_gap(run: Run, request: int) -> Phrase:
    """The longest gap of the others while a request waits and is read, in ms."""
    value = run.measure("gap_beside_ms", request=request, percentile=100)
    return figure(value, gap_style(value))


class Waits:
    """Draws the waits of all requests but one into a box."""

    def __init__(self, run: Run, request: int, say: Phrasebook):
        self._run, self._request, self._say = run, request, say

    @cached_property
    def _gaps(self) -> tuple[tuple[int, int], ...]:
        """Every gap between consecutive tokens of the others, those of several requests at once only once."""
        timeline = self._run.timeline
        found: set[tuple[int, int]] = set()
        for other in range(len(self._run.trace.arrivals)):
            if other != self._request:
                times = timeline.token_times_of(other)
                found.update(pairwise(times))
        return tuple(sorted(found, key=lambda gap: gap[1]))

    @cached_property
    def longest(self) -> tuple[int, int] | None:
        """The longest gap while the request waits and is read: its begin and end, ns."""
        begins, ends = gaps_beside(self._run.timeline, self._request)
        if not len(ends):
            return None
        i = int(np.argmax(ends - begins))
        return int(begins[i]), int(ends[i])

    def point(self, box: Box, view: View, most_ns: int, t_ns: float, wait_ns: float) -> tuple[float, float]:
        """The place of an instant at which a request has waited for so long."""
        return view.along(box).x(t_ns), box.bottom - (box.h - HEAD) * min(wait_ns / max(most_ns, 1), 1.0)

    def paint(
        self,
        canvas: Canvas,
        box: Box,
        view: View,
        most_ns: int,
        now_ns: int,
        colour: Colour,
        free_of: float | None = None,
    ) -> None:
        """Draw what has happened by now; a wait of `most_ns` is as high as the box.

        The longest wait's figure keeps off a line that stands at `free_of`.
        """
        canvas.line([(box.x, box.bottom), (box.right, box.bottom)], LINE, thickness=3)
        for begin, end in self._gaps:
            if end <= view.from_ns or begin >= min(view.to_ns, now_ns):
                continue
            first, last = max(begin, view.from_ns), min(end, now_ns, view.to_ns)
            peak = self.point(box, view, most_ns, last, last - begin)
            foot = self.point(box, view, most_ns, first, first - begin)
            canvas.area([foot, peak, (peak[0], box.bottom), (foot[0], box.bottom)], colour, 0.32)
            canvas.line([foot, peak], colour, thickness=2)
            canvas.disc(*peak, 4, colour)
        if self.longest and self.longest[1] <= now_ns:
            begin, end = self.longest
            x, y = self.point(box, view, most_ns, end, end - begin)
            longest = self._say.say(
                "chunked_prefill.ms",
                ms=longest_gap(self._run, self._request),
            )
            half = width(longest.text, SMALL_STRONG) / 2
            x = min(max(x, box.x + half), box.right - half)
            if free_of is not None and abs(x - free_of) < half + 12:
                x = free_of + half + 12
            y = min(y, self._highest(box, view, most_ns, now_ns, x - half - 10, x + half + 10))
            canvas.text(longest, x, y - 14, SMALL_STRONG, TEXT, align=0.5)

    def _highest(self, box: Box, view: View, most_ns: int, now_ns: int, left: float, right: float) -> float:
        """How high the sawtooth reaches between two places, as far as it has been drawn; a figure stands above it."""
        reached = [box.bottom]
        for begin, end in self._gaps:
            if begin < now_ns:
                until = min(end, now_ns)
                foot, _ = self.point(box, view, most_ns, begin, 0)
                peak, y = self.point(box, view, most_ns, until, until - begin)
                if foot < right and peak > left:
                    reached.append(y)
        return min(reached)
