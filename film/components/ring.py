"""The ring around Decode: the slots in a circle, lit while the running step computes them.

A pure function of film time. Knows a run, its clock and a box.
"""

import math

from tracereel.film.canvas import Canvas
from tracereel.film.clock import FilmClock
from tracereel.film.colours import RequestColours
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrasebook, figure, quote
from tracereel.film.stage import Box, Spot
from tracereel.film.theme import (
    DIM,
    FIGURE,
    HEADING,
    HEADING_LINE,
    INK,
    LINE,
    PANEL,
    PREFILL,
    SMALL,
    SMALL_STRONG,
    TEXT,
    Colour,
    mix,
)
from tracereel.trace.analysis.queries import Run
from tracereel.trace.state.timeline import SlotOccupancy, State

_AFTERGLOW_S = 0.18
_DIM = 0.16
"""How much of its request's colour is in a node that is not computed."""
_LETTERED = 34.0
"""A node with a smaller radius has no letters in it."""
_HUB, _HUB_FREE = 78.0, 24.0
"""The radius of a middle in which a count and words fit, and what is at least left between it and the nodes."""
LINE_OF_WORDS = 56.0
"""From a line of the words next to a ring to the next."""
_WITH_POSITION = 46.0
"""The least radius of a node with two lines in it: its name and its position."""


class Ring:
    """Draws one run's slots as a ring."""

    def __init__(
        self,
        run: Run,
        clock: FilmClock,
        say: Phrasebook,
        key: str,
        colour: Colour,
        colours: RequestColours,
        shift_ns: int = 0,
    ):
        """The run's own clock is `shift_ns` ahead of the film's."""
        self._run, self._clock, self._say, self._colour, self._shift_ns = run, clock, say, colour, shift_ns
        self._colours = colours
        self._title = say.say(f"same_position.{key}")
        self._nodes = run.trace.header.slots

    def paint(self, canvas: Canvas, box: Box, film_s: float, words: Box | None = None) -> None:
        """Draw the ring, what the step computes, and its tokens so far; the words are around it, or in `words`."""
        t_ns = self._clock.engine_ns(film_s) + self._shift_ns
        state = self._run.timeline.at(t_ns)
        say = self._say.say
        middle, radius, node, places = self.places(box, worded=words is None)
        canvas.disc(*middle, radius, LINE, outline=4)
        members = self._members(state)
        for slot, at in enumerate(places):
            occupant = state.occupancy[slot]
            computed = occupant is not None and occupant.request in members
            glow = 1.0 if computed else self._afterglow(occupant, state, film_s) if occupant is not None else 0.0
            if glow:
                spoke = PREFILL if occupant is not None and occupant.prefill else self._colour
                canvas.line([middle, at], spoke, 0.7 * glow, thickness=5 if node >= _LETTERED else 2.5)
            self._node(canvas, at, node, occupant, computed, glow, t_ns)
        self._hub(canvas, middle, self._hub_radius(radius, node), node, state, t_ns)
        tokens = say("same_position.tokens", count=figure(self._run.measure("output_tokens", t_ns=t_ns), ",d"))
        if words is not None:
            canvas.text(self._title, words.x, words.y + HEADING_LINE, HEADING, self._colour, room=words.w)
            canvas.text(tokens, words.x, words.y + HEADING_LINE + LINE_OF_WORDS, HEADING, TEXT, room=words.w)
            return
        canvas.text(self._title, box.x + box.w / 2, box.y + HEADING_LINE, HEADING, self._colour, align=0.5, room=box.w)
        canvas.text(tokens, box.x + box.w / 2, box.bottom - 10, HEADING, TEXT, align=0.5)

    def where(self, request: int, box: Box, film_s: float, *, worded: bool) -> list[Spot]:
        """The node of the slot that a request holds; `worded` as in `places`."""
        occupancy = self._run.timeline.at(self._clock.engine_ns(film_s) + self._shift_ns).occupancy
        _, _, node, places = self.places(box, worded=worded)
        return [
            Spot(Box(x - node, y - node, 2 * node, 2 * node), round=True)
            for occupant, (x, y) in zip(occupancy, places, strict=True)
            if occupant is not None and occupant.request == request
        ]

    @staticmethod
    def _hub_radius(radius: float, node: float) -> float:
        """Large enough for its words where the nodes leave room for that."""
        return max(radius * 0.42, 58.0, min(_HUB, radius - node - _HUB_FREE))

    def _hub(
        self, canvas: Canvas, middle: tuple[float, float], radius: float, node: float, state: State, t_ns: int
    ) -> None:
        """How many sequences the step decodes; their position, where all are at one and the nodes have no letters."""
        say, measure = self._say.say, self._run.measure
        canvas.disc(*middle, radius, PANEL)
        canvas.disc(*middle, radius, self._colour, 0.9, outline=4)
        x, y = middle
        canvas.text(figure(measure("decoding_in_step", t_ns=t_ns)), x, y + 8, FIGURE, TEXT, align=0.5)
        # As wide as the hub is where these words stand.
        room, slots = 2 * math.sqrt(max(radius**2 - 46**2, 0.0)) - 8, figure(measure("slots"))
        whole, brief = say("same_position.members", slots=slots), say("same_position.members_briefly", slots=slots)
        canvas.text(whole if width(whole.text, SMALL) <= room else brief, x, y + 44, SMALL, DIM, align=0.5, room=room)
        members = self._members(state, decoding=True)
        there = {
            occupant.computed_tokens
            for occupant in state.occupancy
            if occupant is not None and occupant.request in members
        }
        if len(there) == 1 and node < _LETTERED and radius >= 84:
            at = say("same_position.position", position=figure(measure("position", request=min(members), t_ns=t_ns)))
            canvas.text(at, x, y - 50, SMALL_STRONG, TEXT, align=0.5, room=radius * 1.4)

    def places(
        self, box: Box, *, worded: bool = True
    ) -> tuple[tuple[float, float], float, float, list[tuple[float, float]]]:
        """The ring's middle, its radius, the radius of a node, and where the slots' nodes stand.

        `worded`: do its words stand in the box too?
        """
        head, foot = (56.0, 64.0) if worded else (0.0, 0.0)
        middle = box.x + box.w / 2, box.y + head + (box.h - head - foot) / 2
        node, radius = self._sizes(box.w, box.h - head - foot)
        angles = [math.tau * (i / self._nodes) - math.pi / 2 for i in range(self._nodes)]
        return (
            middle,
            radius,
            node,
            [(middle[0] + radius * math.cos(a), middle[1] + radius * math.sin(a)) for a in angles],
        )

    def _sizes(self, w: float, h: float) -> tuple[float, float]:
        """Radius of a node and of the ring, as large as they fit without the nodes touching each other."""
        reach = min(w, h) / 2
        # Nodes of radius n on a ring of radius reach - n do not touch where n <= (reach - n) sin(pi / nodes) * 0.9.
        share = math.sin(math.pi / max(self._nodes, 3)) * 0.9
        node = max(min(reach * share / (1 + share), 62.0), 2.0)
        return node, reach - node - 4

    def _members(self, state: State, *, decoding: bool = False) -> set[int]:
        """The requests that the running step computes, or those of them that it decodes."""
        if state.step is None:
            return set()
        steps = self._run.trace.steps
        entries = steps.members(state.step)
        requests = steps.member_request[entries]
        return set((requests[steps.member_decode[entries]] if decoding else requests).tolist())

    def _afterglow(self, occupant: SlotOccupancy, state: State, film_s: float) -> float:
        """A node that was computed a moment ago is still a little lit."""
        times = self._run.timeline.token_times_of(occupant.request)
        if not occupant.output_tokens:
            return 0.0
        age = film_s - self._clock.film_second(times[occupant.output_tokens - 1] - self._shift_ns)
        return max(0.0, 0.6 * (1 - age / _AFTERGLOW_S))

    def _node(
        self,
        canvas: Canvas,
        at: tuple[float, float],
        size: float,
        occupant: SlotOccupancy | None,
        computed: bool,
        glow: float,
        t_ns: int,
    ) -> None:
        if occupant is None:
            canvas.disc(*at, size, PANEL)
            canvas.disc(*at, size, LINE, outline=3)
            return
        colour = self._colours[occupant.request]
        # What glows after is the edge: a fill between dim and lit would be too light for the one ink and too dark for
        # the other.
        canvas.disc(*at, size, colour if computed else mix(PANEL, colour, _DIM))
        canvas.disc(*at, size, PREFILL if occupant.prefill else colour, 0.35 + 0.65 * glow, outline=3)
        if size < _LETTERED:
            return
        ink = INK if computed else TEXT
        name = quote(self._run.measure("request_name", request=occupant.request))
        position = self._say.say(
            "same_position.position",
            position=figure(self._run.measure("position", request=occupant.request, t_ns=t_ns)),
        )
        both = size >= _WITH_POSITION and width(position.text, SMALL) <= size * 1.6
        canvas.text(name, at[0], at[1] + (-2 if both else 9), SMALL_STRONG, ink, align=0.5, room=size * 1.8)
        if both:
            canvas.text(position, at[0], at[1] + 28, SMALL, ink, align=0.5)
