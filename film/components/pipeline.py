"""The pipeline as a picture: requests as cards that wait, prefill, decode and end, each at its measured time.

A pure function of film time. Knows a run, its clock and a stage.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np
from tracereel.film.canvas import Canvas
from tracereel.film.clock import FilmClock, ease
from tracereel.film.colours import RequestColours
from tracereel.film.components.pipeline_places import DECODING, ENDED, PREFILLING, WAITING, Places
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrase, Phrasebook, figure, quote
from tracereel.film.stage import Box, Stage
from tracereel.film.theme import (
    DECODE,
    DIM,
    FINISHED,
    LINE,
    PANEL,
    PREFILL,
    SMALL,
    SMALL_STRONG,
    TEXT,
    Colour,
    Letters,
    mix,
)
from tracereel.trace.analysis.queries import Run
from tracereel.trace.state.columns import ABSENT
from tracereel.trace.state.timeline import SlotOccupancy, State

MOVE_S = 0.4
"""Film seconds that a card's way from one stage to the next takes."""
FLASH_S = 0.4
_TAIL_TOKENS = 24


@dataclass(frozen=True)
class _Visit:
    """A request comes to a stage at a second of film."""

    from_s: float
    stage: int
    slot: int


def _from_s(visit: _Visit) -> float:
    return visit.from_s


class PipelineView:
    """Draws the whole pipeline at a second of film."""

    def __init__(self, run: Run, clock: FilmClock, stage: Stage, say: Phrasebook, colours: RequestColours):
        self._run, self._clock, self._say, self._colours = run, clock, say, colours
        header = run.trace.header
        self.places = Places(stage, [replica.slots for replica in header.replicas] or [header.slots])
        steps = run.trace.steps
        self._ends = [np.sort(steps.end_ns[steps.replica == i]) for i in range(len(self.places.rings))]
        """When each replica's steps ended."""
        self._wide = stage.wide
        self._has_texts = bool((run.trace.steps.token_text != ABSENT).any())
        self._names = [quote(run.measure("request_name", request=i)) for i in range(len(run.trace.arrivals))]
        self._prompts = [quote(run.measure("prompt", request=i)) for i in range(len(run.trace.arrivals))]
        self._visits = [self._visits_of(request) for request in range(len(run.trace.arrivals))]
        self._leaves_queue = sorted(
            (visits[i + 1].from_s, visits[i].from_s, request)
            for request, visits in enumerate(self._visits)
            for i in range(len(visits) - 1)
            if visits[i].stage == WAITING
        )
        self._ended_rank = {request: rank for rank, request in enumerate(run.timeline.ended_order)}

    def _second(self, at_ns: int) -> float:
        """The film second of an instant; what was before the film moves no more when it begins."""
        return -MOVE_S if at_ns < self._clock.passages[0].from_ns else self._clock.film_second(at_ns)

    def _visits_of(self, request: int) -> list[_Visit]:
        """A request's way through the stages, in film time."""
        trace, second = self._run.trace, self._second
        visits = [_Visit(second(trace.arrivals[request].arrival_ns), WAITING, 0)]
        residencies = trace.residencies
        steps = trace.steps
        rows = (residencies.request == request).nonzero()[0]
        members = (steps.member_request == request).nonzero()[0]
        for row in rows.tolist():
            slot = int(residencies.slot[row])
            visits.append(_Visit(second(int(residencies.from_ns[row])), PREFILLING, slot))
            # It decodes from the end of the step that gave its first token of this residency.
            gave = members[
                (steps.member_step[members] >= residencies.first_step[row]) & (steps.member_sampled[members] > 0)
            ]
            if len(gave) and steps.end_ns[steps.member_step[gave[0]]] < residencies.to_ns[row]:
                visits.append(_Visit(second(int(steps.end_ns[steps.member_step[gave[0]]])), DECODING, slot))
            if residencies.preempted[row]:
                visits.append(_Visit(second(int(residencies.to_ns[row])), WAITING, 0))
        ending = trace.endings.get(request)
        if ending is not None:
            visits.append(_Visit(second(ending[0]), ENDED, 0))
        return visits

    def _visit(self, request: int, film_s: float) -> _Visit:
        """Where a request that has come is at a second of film."""
        visits = self._visits[request]
        return visits[bisect_right(visits, film_s, key=_from_s) - 1]

    def paint(self, canvas: Canvas, film_s: float) -> None:
        """Draw the pipeline."""
        t_ns = self._clock.engine_ns(film_s)
        state = self._run.timeline.at(t_ns)
        self._paint_frames(canvas, film_s, state)
        occupancy = {occupant.request: occupant for occupant in state.occupancy if occupant is not None}
        first_chip = max(0, state.num_finished - self.places.chips)
        present = [request for request, visits in enumerate(self._visits) if visits[0].from_s <= film_s]
        # Those on their way pass over those that stand.
        moving = [request for request in present if self._moves(request, film_s, state)]
        for request in sorted(set(present) - set(moving)):
            self._card(canvas, request, film_s, state, occupancy.get(request), first_chip)
        with canvas.moving():
            for request in moving:
                self._card(canvas, request, film_s, state, occupancy.get(request), first_chip)
        self._paint_overflow(canvas, state, first_chip)

    def _moves(self, request: int, film_s: float, state: State) -> bool:
        """Is its card on its way to another stage, or up the queue or the list of the ended?"""
        visit = self._visit(request, film_s)
        if film_s - visit.from_s < MOVE_S:
            return True
        if visit.stage == WAITING:
            index = self._queue_index(request, visit, film_s)
            return abs(index - round(index)) > 0.01
        return False

    def _paint_frames(self, canvas: Canvas, film_s: float, state: State) -> None:
        places, say, t_ns = self.places, self._say, state.t_ns
        colours: tuple[Colour, ...] = (DIM, PREFILL, DECODE, FINISHED)
        keys = ("waiting", "prefill", "decode", "finished")
        counts = self._counts(state)
        for head, key, colour, count in zip(places.heads, keys, colours, counts, strict=True):
            style = places.heading
            number = width(count.text, style)
            wide = canvas.text(
                say.say(f"pipeline_flow.{key}"), head.x, head.y + 30, style, colour, room=head.w - number - 14
            )
            canvas.text(count, head.x + wide + 14, head.y + 30, style, TEXT)
        for row in places.prefill_rows:
            canvas.card(*row.sides, PANEL, 0.55)
        for row in places.decode_rows:
            canvas.card(*row.sides, PANEL)
        # The ring around Decode brightens with every step that ends.
        for i, ring in enumerate(places.rings):
            ended = int(np.searchsorted(self._ends[i], t_ns, side="right"))
            age = film_s - self._clock.film_second(int(self._ends[i][ended - 1])) if ended else FLASH_S
            glow = max(0.0, 1 - age / FLASH_S) if state.num_running else 0.0
            canvas.card(*ring.sides, LINE, radius=20, outline=3)
            canvas.card(*ring.sides, DECODE, 0.85 * glow, radius=20, outline=3)
            if len(places.rings) > 1:
                replica = figure(self._run.measure("replica", index=i))
                canvas.text(say.say("pipeline_flow.replica", number=replica), *places.names[i], SMALL, DIM)
        rows = places.decode_rows
        if self._wide:
            middle = (places.rings[0].right + places.ended.x) / 2
            y = rows[0].y + (rows[-1].bottom - rows[0].y) / 2
            for x in ((places.waiting.right + places.prefill.x) / 2, middle):
                canvas.line([(x - 7, y - 12), (x + 7, y), (x - 7, y + 12)], LINE, thickness=4)

    def _counts(self, state: State) -> tuple[Phrase, ...]:
        run, t_ns = self._run, state.t_ns
        return (
            figure(run.measure("waiting", t_ns=t_ns)),
            figure(run.measure("prefilling", t_ns=t_ns)),
            figure(run.measure("decoding", t_ns=t_ns)),
            figure(run.measure("finished", t_ns=t_ns)),
        )

    def _paint_overflow(self, canvas: Canvas, state: State, first_chip: int) -> None:
        places, say, run = self.places, self._say, self._run
        hidden = state.num_waiting - places.cards
        if hidden > 0:
            count = figure(run.measure("waiting_beyond", t_ns=state.t_ns, shown=places.cards))
            y = places.waiting_at(places.cards - 1).bottom + 36
            canvas.text(
                say.say("pipeline_flow.more", count=count), places.waiting.x, y, SMALL, DIM, room=places.waiting.w
            )
        if not places.lanes_are_all:
            count = figure(run.measure("slots_beyond", shown=places.lanes))
            y = places.decode_rows[-1].bottom + 46
            more = say.say("pipeline_flow.more_slots", count=count)
            canvas.text(more, places.decode.x, y, SMALL, DIM, room=places.decode.w)
        if first_chip:
            count = figure(run.measure("finished_beyond", t_ns=state.t_ns, shown=places.chips))
            y = places.ended_at(places.chips - 1).bottom + 34
            canvas.text(
                say.say("pipeline_flow.earlier", count=count), places.ended.x, y, SMALL, DIM, room=places.ended.w
            )

    def _queue_index(self, request: int, visit: _Visit, film_s: float) -> float:
        """How many stand before it in the queue, those that are just leaving counted in part."""
        before = 0.0
        # Whoever has left for longer counts no more.
        gone = bisect_left(self._leaves_queue, (film_s - MOVE_S,))
        for left_s, came_s, other in self._leaves_queue[gone:]:
            if other != request and came_s <= film_s and (came_s, other) < (visit.from_s, request):
                before += 1 - ease((film_s - left_s) / MOVE_S) if left_s <= film_s else 1
        return before

    def _box(self, request: int, film_s: float, first_chip: int) -> Box | None:
        """Where a request's card is: on its way from each stage to the next, the newest way counting most."""
        visits = self._visits[request]
        come = bisect_right(visits, film_s, key=_from_s)
        # Whatever was before a stage that it has reached no longer counts.
        reached = max(bisect_right(visits, film_s - MOVE_S, key=_from_s) - 1, 0)
        box: Box | None = None
        for visit in visits[reached:come]:
            target = self._target(request, visit, film_s, first_chip)
            if target is None:
                return None  # only whoever has ended, and so stays away
            if box is None:
                box = Box(target.x - 80, target.y, target.w, target.h) if film_s and visit.from_s > 0 else target
            box = box.towards(target, ease((film_s - visit.from_s) / MOVE_S))
        return box

    def _target(self, request: int, visit: _Visit, film_s: float, first_chip: int) -> Box | None:
        places = self.places
        if visit.stage == WAITING:
            return places.waiting_at(self._queue_index(request, visit, film_s))
        if visit.stage == ENDED:
            index = self._ended_rank[request] - first_chip
            return places.ended_at(index) if index >= 0 else None
        row = places.row_of(visit.slot)
        if row is None:
            return places.beyond(visit.stage)
        return (places.prefill_rows if visit.stage == PREFILLING else places.decode_rows)[row]

    def _seen(self, request: int, film_s: float) -> float:
        """How much of a card is to be seen: nothing of one in a slot without a row, less and less on the way there."""
        newest = bisect_right(self._visits[request], film_s, key=_from_s)
        here, before = (
            visit.stage in (PREFILLING, DECODING) and self.places.row_of(visit.slot) is None
            for visit in (self._visits[request][newest - 1], self._visits[request][max(newest - 2, 0)])
        )
        come = ease((film_s - self._visits[request][newest - 1].from_s) / MOVE_S)
        return (1 - before) * (1 - come) + (1 - here) * come

    def _card(
        self, canvas: Canvas, request: int, film_s: float, state: State, occupant: SlotOccupancy | None, first_chip: int
    ) -> None:
        box = self._box(request, film_s, first_chip)
        if box is None:
            return
        visits = self._visits[request]
        now = self._visit(request, film_s)
        colour = self._colours[request]
        alpha = ease((film_s - visits[0].from_s) / MOVE_S) if visits[0].from_s > 0 else 1.0
        if now.stage == WAITING:
            room = self.places.waiting_at(self.places.cards - 1).bottom - box.bottom
            alpha *= min(max(1 + room / (box.h * 0.6), 0.0), 1.0)  # fades where the queue is longer than its place
        alpha *= self._seen(request, film_s)
        if not alpha:
            return
        with canvas.faded(alpha):
            arrived = film_s - now.from_s >= MOVE_S * 0.6
            if now.stage == ENDED and arrived:
                self._chip(canvas, box, request, colour)
                return
            canvas.card(*box.sides, _tinted(colour, now.stage))
            canvas.card(box.x, box.y, 10, box.h, colour, radius=5)
            self._card_text(canvas, box, request, now.stage, state, occupant, colour)

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
        tall = box.h >= 72
        first = box.y + (34 if tall else box.h / 2 + 10)
        left = box.x + 26
        letters = Letters(colour)
        name = canvas.text(self._names[request], left, first, SMALL_STRONG, letters, room=max(box.w - 36, 1))
        room = box.w - 26 - name - 14 - 18
        if stage == DECODING and occupant is not None:
            count = figure(self._run.measure("request_output_tokens", request=request, t_ns=state.t_ns))
            wide = canvas.text(count, box.right - 18, first, SMALL_STRONG, TEXT, align=1)
            room -= wide + 14
            if tall:
                self._tail(canvas, Box(left, box.y + 66, box.w - 44, 0), request, occupant, state, colour)
            elif self._has_texts and room > 60:
                self._tail(canvas, Box(left + name + 14, first, room, 0), request, occupant, state, colour)
                return
        elif stage == PREFILLING and occupant is not None:
            known = self._run.trace.arrivals[request].prompt_tokens + occupant.output_tokens
            share = min(self._share_prefilled(request, occupant, state, max(known, 1)), 1.0)
            high = 8 if tall else 5
            canvas.card(left, box.bottom - high * 1.6, box.w - 44, high, LINE, radius=4)
            canvas.card(left, box.bottom - high * 1.6, max((box.w - 44) * share, high), high, PREFILL, radius=4)
        elif tall and stage == WAITING:
            canvas.text(self._prompts[request], left, box.y + 66, SMALL, DIM, room=box.w - 44)
            return
        if room > 60:
            canvas.text(self._prompts[request], left + name + 14, first, SMALL, DIM, room=room)

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

    def _tail(
        self, canvas: Canvas, box: Box, request: int, occupant: SlotOccupancy, state: State, colour: Colour
    ) -> None:
        """The end of what a request has written, on the baseline `box.y`; its newest token lit up for a moment."""
        count = occupant.output_tokens
        if not count or not self._has_texts:
            return
        first = max(0, count - _TAIL_TOKENS)
        text = quote(self._run.measure("output_text", request=request, first=first, end=count))
        newest = quote(self._run.measure("output_text", request=request, first=count - 1, end=count)).text
        baseline = box.y
        shown = canvas.tail(text, box.x, baseline, SMALL, TEXT, room=box.w, ground=_tinted(colour, DECODING))
        born = self._clock.film_second(self._run.timeline.token_times_of(request)[count - 1])
        glow = 1 - (self._clock.film_second(state.t_ns) - born) / FLASH_S
        wide = width(newest, SMALL)
        if glow > 0 and newest.strip() and wide < box.w:
            canvas.glow(box.x + shown - wide - 3, baseline - 25, wide + 6, 33, colour, 0.45 * glow)

    def _chip(self, canvas: Canvas, box: Box, request: int, colour: Colour) -> None:
        canvas.card(*box.sides, PANEL, radius=8)
        canvas.card(box.x, box.bottom - 5, box.w, 5, colour, radius=2)
        canvas.text(
            self._names[request], box.x + box.w / 2, box.y + box.h / 2 + 7, SMALL, DIM, align=0.5, room=box.w - 4
        )


def _tinted(colour: Colour, stage: int) -> Colour:
    return mix(PANEL, colour, 0.16 if stage in (PREFILLING, DECODING) else 0.07)
