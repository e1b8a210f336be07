"""The pipeline as a picture: requests that wait, prefill, decode and end, each where the state of that instant has it.

A request stands in the stage in which it is; its way there is an extra that is seen, its card where time is slow, a dot
between the stages where it is not. A pure function of film time. Knows a run, its clock and a stage.
"""

from collections.abc import Sequence

import numpy as np
from tracereel.film.canvas import Canvas, Sides
from tracereel.film.clock import FilmClock, ease
from tracereel.film.colours import RequestColours
from tracereel.film.components.pipeline_moves import MOVE_S, Move, Moves, Spans, Visit
from tracereel.film.components.pipeline_places import CARD_GAP, DECODING, ENDED, PREFILLING, WAITING, Places
from tracereel.film.components.pipeline_streams import paint_dot
from tracereel.film.components.pipeline_tails import FLASH_S, Tails, tinted
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrase, Phrasebook, figure, quote
from tracereel.film.stage import Box, Spot, Stage
from tracereel.film.theme import (
    AFTER_NAME,
    CARD_BAR,
    CARD_END,
    CARD_INSET,
    DECODE,
    DIM,
    FINISHED,
    LABEL_LINE,
    LEAST_PROMPT,
    LINE,
    PANEL,
    PREFILL,
    SMALL,
    SMALL_STRONG,
    TEXT,
    Colour,
    Letters,
)
from tracereel.trace.analysis.queries import Run
from tracereel.trace.state.timeline import SlotOccupancy, State

_GLOW_S = 0.5
_LEAST_LETTERED = 44.0
"""A lower card has no words."""
_LEAST_OF_TWO_LINES, _FIRST_LINE, _SECOND_LINE = 72.0, 34.0, 66.0
"""How high a card with two lines is at least; from its top to the baselines of both."""


class PipelineView:
    """Draws the whole pipeline at a second of film; within the `slow` spans single cards are seen on their way."""

    def __init__(
        self, run: Run, clock: FilmClock, stage: Stage, say: Phrasebook, colours: RequestColours, slow: Spans = ()
    ):
        self._run, self._clock, self._say, self._colours = run, clock, say, colours
        self._names = [quote(run.measure("request_name", request=i)) for i in range(len(run.trace.arrivals))]
        self._prompts = [quote(run.measure("prompt", request=i)) for i in range(len(run.trace.arrivals))]
        self.places = places_of(run, stage)
        self.moves = Moves(run, clock, slow)
        steps = run.trace.steps
        self._ends = [np.sort(steps.end_ns[steps.replica == i]) for i in range(len(self.places.rings))]
        """When each replica's steps ended."""
        unlettered = [place for place in self.places.slots.values() if not place.lettered]
        self._empty_tiles = [box.sides for place in unlettered for box in (place.prefill, place.decode)]
        self._wide = stage.wide
        self._tails = Tails(run, clock, colours)

    def paint(self, canvas: Canvas, film_s: float) -> None:
        """Draw the pipeline."""
        state = self._run.timeline.at(self._clock.engine_ns(film_s))
        under_way = self.moves.under_way(film_s)
        newest = {move.request: move for move in under_way}
        followed = {request: move for request, move in newest.items() if move.followed}
        self._paint_frames(canvas, film_s, state, under_way)
        closing = self._closing_up(film_s, followed)
        # Behind all words: a card on its way covers none.
        with canvas.moving():
            for move in followed.values():
                self._paint_followed(canvas, move, film_s, state, closing)
        self._paint_heads(canvas, state)
        self._paint_queue(canvas, film_s, state, followed, closing)
        self._paint_slots(canvas, state, followed)
        self._paint_ended(canvas, film_s, state, newest, followed)
        with canvas.moving():
            for move in under_way:
                if not move.followed:
                    paint_dot(canvas, self.places, move, film_s, self._box_of(move, state), self._colours[move.request])

    def _paint_slots(self, canvas: Canvas, state: State, followed: dict[int, Move]) -> None:
        """The requests that have a slot."""
        prefilling: list[Sides] = []
        decoding: list[tuple[int, Sides]] = []
        for slot, slot_place in self.places.slots.items():
            occupant = state.occupancy[slot]
            if occupant is None or occupant.request in followed:
                continue
            box = slot_place.prefill if occupant.prefill else slot_place.decode
            if slot_place.lettered:
                stage = PREFILLING if occupant.prefill else DECODING
                self._card(canvas, box, occupant.request, stage, state, occupant)
            elif occupant.prefill:
                prefilling.append(box.sides)
            else:
                decoding.append((occupant.request, box.sides))
        canvas.boxes(prefilling, PREFILL)
        self._paint_tiles(canvas, [request for request, _ in decoding], [sides for _, sides in decoding])

    def _paint_tiles(self, canvas: Canvas, requests: Sequence[int], places: Sequence[Sides]) -> None:
        for colour, alike in self._colours.alike(requests, places):
            canvas.boxes(alike, colour)

    def _box_of(self, move: Move, state: State) -> Box | None:
        """Where a move leads."""
        return self._place(move.request, move.now, state)

    def _place(self, request: int, visit: Visit, state: State) -> Box | None:
        """Where a request stands in a stage; None where it has no place there."""
        places = self.places
        if visit.stage == WAITING:
            return places.waiting_at(state.waiting.index(request)) if request in state.waiting else None
        if visit.stage == ENDED:
            if request not in state.finished:
                return None
            rank = state.finished.index(request) - self._first_chip(state)
            return places.ended_at(rank) if rank >= 0 else None
        slot_place = places.slots.get(visit.slot)
        return None if slot_place is None else slot_place.prefill if visit.stage == PREFILLING else slot_place.decode

    def _first_chip(self, state: State) -> int:
        return max(0, state.num_finished - self.places.chips)

    def _closing_up(self, film_s: float, followed: dict[int, Move]) -> float:
        """How many places the queue has still to move up: it closes up while a card is seen leaving it."""
        if self.places.cards_in_row > 1:
            return 0.0
        left = [move for move in followed.values() if move.before is not None and move.before.stage == WAITING]
        return sum(1 - ease((film_s - move.from_s) / MOVE_S) for move in left)

    def _in_queue(self, index: int, closing: float) -> tuple[Box, float]:
        """Where the card of a place in the queue stands while it closes up, and its opacity beyond the last place."""
        over = max(index + closing - (self.places.cards - 1), 0.0)
        # It is gone before the card above, which still moves up, touches it.
        return self.places.waiting_at(index + closing - over), max(1 - over * self.places.pitch / CARD_GAP, 0.0)

    def _paint_queue(
        self, canvas: Canvas, film_s: float, state: State, followed: dict[int, Move], closing: float
    ) -> None:
        places, tiles = self.places, self.places.queue_tiles
        calm = self.moves.calm(film_s)
        for i, request in enumerate(state.waiting[: places.cards]):
            if request not in followed:
                box, alpha = self._in_queue(i, closing)
                with canvas.faded(alpha):
                    self._card(canvas, box, request, WAITING, state, None, words=calm)
        if tiles is not None:
            self._paint_tiles(canvas, state.waiting[places.cards :], tiles.sides)

    def _paint_ended(
        self, canvas: Canvas, film_s: float, state: State, newest: dict[int, Move], followed: dict[int, Move]
    ) -> None:
        places, first = self.places, self._first_chip(state)
        shown = [(rank, request) for rank, request in enumerate(state.finished[first:]) if request not in followed]
        if (tiles := places.ended_tiles) is not None:
            self._paint_tiles(canvas, [request for _, request in shown], [tiles.sides[rank] for rank, _ in shown])
        else:
            for rank, request in shown:
                self._chip(canvas, places.ended_at(rank), request, self._colours[request])
        for rank, request in shown:
            move = newest.get(request)
            if move is not None:
                age = (film_s - move.from_s) / MOVE_S
                canvas.card(*places.ended_at(rank).grown(2).sides, TEXT, 0.7 * (1 - age), radius=8, outline=2)

    def where(self, request: int, film_s: float) -> list[Spot]:
        """Where a request stands, or where its card is on its way."""
        state = self._run.timeline.at(self._clock.engine_ns(film_s))
        newest = {move.request: move for move in self.moves.under_way(film_s)}
        followed = {each: move for each, move in newest.items() if move.followed}
        closing = self._closing_up(film_s, followed)
        if request in followed:
            way = self._way(followed[request], film_s, state, closing)
            return [Spot(*way, moving=True)] if way is not None else []
        if request in state.waiting:
            index = state.waiting.index(request)
            if index < self.places.cards:
                return [Spot(*self._in_queue(index, closing))]
        slot = next((o.slot for o in state.occupancy if o is not None and o.request == request), None)
        if slot is None:
            stage = WAITING if request in state.waiting else ENDED
        else:
            occupant = state.occupancy[slot]
            stage = PREFILLING if occupant is not None and occupant.prefill else DECODING
        box = self._place(request, Visit(state.t_ns, stage, slot or 0), state)
        return [Spot(box)] if box is not None else []

    def _way(self, move: Move, film_s: float, state: State, closing: float) -> tuple[Box, float] | None:
        """Where a card on its way is, and its opacity.

        One that joins the queue while it closes up goes to where its end is by then.
        """
        there = self._place(move.request, move.now, state)
        if there is None:
            return None
        come, alpha = ease((film_s - move.from_s) / MOVE_S), 1.0
        if move.now.stage == WAITING and state.waiting.index(move.request) < self.places.cards:
            there, alpha = self._in_queue(state.waiting.index(move.request), closing)
        if move.before is None:
            here: Box | None = Box(there.x - 80, there.y, there.w, there.h)
            alpha *= come
        else:
            here = self._place(move.request, move.before, self._run.timeline.at(move.now.at_ns - 1))
        return (here or there).towards(there, come), alpha

    def _paint_followed(self, canvas: Canvas, move: Move, film_s: float, state: State, closing: float) -> None:
        """A card on its way."""
        way = self._way(move, film_s, state, closing)
        if way is None:
            return
        box, alpha = way
        come, colour = ease((film_s - move.from_s) / MOVE_S), self._colours[move.request]
        with canvas.faded(alpha):
            if move.now.stage == ENDED and come > 0.6 and self.places.ended_tiles is None:
                self._chip(canvas, box, move.request, colour)
                return
            occupant = next((o for o in state.occupancy if o is not None and o.request == move.request), None)
            self._card(canvas, box, move.request, move.now.stage, state, occupant)

    def _paint_frames(self, canvas: Canvas, film_s: float, state: State, under_way: list[Move]) -> None:
        """The places of the requests, and the ring around Decode."""
        places = self.places
        for slot_place in places.slots.values():
            if slot_place.lettered:
                canvas.card(*slot_place.prefill.sides, PANEL, 0.55)
                canvas.card(*slot_place.decode.sides, PANEL)
        canvas.boxes(self._empty_tiles, PANEL)
        for move in under_way:
            self._afterglow(canvas, move, film_s)
        # The ring around Decode brightens with every step that ends.
        for i, ring in enumerate(places.rings):
            ended = int(np.searchsorted(self._ends[i], state.t_ns, side="right"))
            age = film_s - self._clock.film_second(int(self._ends[i][ended - 1])) if ended else FLASH_S
            glow = max(0.0, 1 - age / FLASH_S) if state.num_running else 0.0
            canvas.card(*ring.sides, LINE, radius=20, outline=3)
            canvas.card(*ring.sides, DECODE, 0.85 * glow, radius=20, outline=3)

    def _paint_heads(self, canvas: Canvas, state: State) -> None:
        """What the stages are called, how many requests are in each, and what is not lettered one by one."""
        places, say = self.places, self._say
        colours: tuple[Colour, ...] = (DIM, PREFILL, DECODE, FINISHED)
        keys = ("waiting", "prefill", "decode", "finished")
        counts = self._counts(state)
        for i, (head, key, colour, count) in enumerate(zip(places.heads, keys, colours, counts, strict=True)):
            style = places.heading
            number = width(count.text, style)
            wide = canvas.text(
                say.say(f"pipeline_flow.{key}"), head.x, head.y + LABEL_LINE, style, colour, room=head.w - number - 14
            )
            canvas.text(count, head.x + wide + 14, head.y + LABEL_LINE, style, TEXT)
            if self._wide and i:
                x, y = (places.heads[i - 1].right + head.x) / 2, head.y + 18
                canvas.line([(x - 6, y - 10), (x + 6, y), (x - 6, y + 10)], LINE, thickness=4)
        for i, name in enumerate(places.names if len(places.rings) > 1 else ()):
            replica = figure(self._run.measure("replica", index=i))
            canvas.text(say.say("pipeline_flow.replica", number=replica), *name, SMALL, DIM)
        self._paint_counts_of_more(canvas, state)

    def _afterglow(self, canvas: Canvas, move: Move, film_s: float) -> None:
        """Where a prompt has just been read: it may have taken less than a frame."""
        if move.before is None or move.before.stage != PREFILLING:
            return
        slot_place = self.places.slots.get(move.before.slot)
        alpha = 0.4 * (1 - (film_s - move.from_s) / _GLOW_S)
        if slot_place is not None and alpha > 0:
            canvas.card(*slot_place.prefill.sides, PREFILL, alpha, radius=12 if slot_place.lettered else 0)

    def _counts(self, state: State) -> tuple[Phrase, ...]:
        names = ("waiting", "prefilling", "decoding", "finished")
        return tuple(figure(self._run.measure(name, t_ns=state.t_ns)) for name in names)

    def _paint_counts_of_more(self, canvas: Canvas, state: State) -> None:
        places, say, run = self.places, self._say, self._run
        if places.queue_tiles is not None and state.num_waiting > places.cards:
            count = figure(run.measure("waiting_beyond", t_ns=state.t_ns, shown=places.cards))
            y = places.queue_tiles.box.y - 14
            canvas.text(
                say.say("pipeline_flow.more", count=count), places.waiting.x, y, SMALL, DIM, room=places.waiting.w
            )
        if places.more_slots is not None:
            shown, y = places.more_slots
            count = figure(run.measure("slots_beyond", shown=shown))
            more = say.say("pipeline_flow.more_slots", count=count)
            canvas.text(more, places.decode.x, y, SMALL, DIM, room=places.decode.w)
        if self._first_chip(state):
            count = figure(run.measure("finished_beyond", t_ns=state.t_ns, shown=places.chips))
            earlier = say.say("pipeline_flow.earlier", count=count)
            canvas.text(earlier, places.ended.x, places.ended.bottom - 10, SMALL, DIM, room=places.ended.w)

    def _card(
        self,
        canvas: Canvas,
        box: Box,
        request: int,
        stage: int,
        state: State,
        occupant: SlotOccupancy | None,
        *,
        words: float = 1.0,
    ) -> None:
        colour = self._colours[request]
        lettered = box.h >= _LEAST_LETTERED
        canvas.card(*box.sides, tinted(colour, stage), radius=12 if lettered else 4)
        canvas.card(box.x, box.y, CARD_BAR if lettered else 4, box.h, colour, radius=5)
        if lettered and words:
            with canvas.faded(words):
                self._card_text(canvas, box, request, stage, state, occupant, colour)

    def _card_text(
        self,
        canvas: Canvas,
        box: Box,
        request: int,
        stage: int,
        state: State,
        occupant: SlotOccupancy | None,
        colour: Colour,
    ) -> None:
        tall = box.h >= _LEAST_OF_TWO_LINES
        first = box.y + (_FIRST_LINE if tall else box.h / 2 + 10)
        left = box.x + CARD_INSET
        inner = box.w - CARD_INSET - CARD_END
        letters = Letters(colour)
        name = canvas.text(
            self._names[request], left, first, SMALL_STRONG, letters, room=max(box.w - CARD_INSET - CARD_BAR, 1)
        )
        room = box.w - CARD_INSET - name - AFTER_NAME - CARD_END
        if stage == DECODING and occupant is not None:
            count = figure(self._run.measure("request_output_tokens", request=request, t_ns=state.t_ns))
            wide = width(count.text, SMALL_STRONG)
            if wide <= room + AFTER_NAME:
                canvas.text(count, box.right - CARD_END, first, SMALL_STRONG, TEXT, align=1)
            room -= wide + AFTER_NAME
            if tall:
                self._tails.paint(
                    canvas, (left, box.y + _SECOND_LINE), inner, request, occupant.output_tokens, state.t_ns
                )
            elif self._tails.are_known and room > LEAST_PROMPT:
                self._tails.paint(
                    canvas, (left + name + AFTER_NAME, first), room, request, occupant.output_tokens, state.t_ns
                )
                return
        elif stage == PREFILLING and occupant is not None:
            known = self._run.trace.arrivals[request].prompt_tokens + occupant.output_tokens
            share = min(self._share_prefilled(request, occupant, state, max(known, 1)), 1.0)
            high = 8 if tall else 5
            canvas.card(left, box.bottom - high * 1.6, inner, high, LINE, radius=4)
            canvas.card(left, box.bottom - high * 1.6, max(inner * share, high), high, PREFILL, radius=4)
        elif tall and stage == WAITING:
            canvas.text(self._prompts[request], left, box.y + _SECOND_LINE, SMALL, DIM, room=inner)
            return
        if room > LEAST_PROMPT:
            canvas.text(self._prompts[request], left + name + AFTER_NAME, first, SMALL, DIM, room=room)

    def _share_prefilled(self, request: int, occupant: SlotOccupancy, state: State, known: int) -> float:
        """How much of the prompt has KV, the running step's part growing with its time."""
        steps = self._run.trace.steps
        done = occupant.computed_tokens
        for step in state.steps if occupant.computes else ():
            members = steps.members(step)
            own = (steps.member_request[members] == request).nonzero()[0]
            if len(own):
                span = max(int(steps.end_ns[step] - steps.start_ns[step]), 1)
                passed = (state.t_ns - int(steps.start_ns[step])) / span
                return (done + int(steps.member_computed[members][own[0]]) * passed) / known
        return done / known

    def _chip(self, canvas: Canvas, box: Box, request: int, colour: Colour) -> None:
        canvas.card(*box.sides, PANEL, radius=8)
        canvas.card(box.x, box.bottom - 5, box.w, 5, colour, radius=2)
        canvas.text(
            self._names[request], box.x + box.w / 2, box.y + box.h / 2 + 7, SMALL, DIM, align=0.5, room=box.w - 4
        )


def places_of(run: Run, stage: Stage) -> Places:
    """The places of a run's requests."""
    header, residencies = run.trace.header, run.trace.residencies
    slots = [replica.slots for replica in header.replicas] or [header.slots]
    # The queue is longest when a request has just come to it: by arrival, or by preemption.
    came = {arrival.arrival_ns for arrival in run.trace.arrivals}
    came.update(residencies.to_ns[residencies.preempted].tolist())
    longest = max((run.timeline.at(at_ns).num_waiting for at_ns in came), default=0)
    count = len(run.trace.arrivals)
    widest = width(quote(run.measure("request_name", request=count - 1)).text, SMALL) if count else 0.0
    return Places(stage, slots, longest, count, widest)
