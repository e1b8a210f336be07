"""When each request comes to a stage of the pipeline, in film time: the ways that are shown, and as what.

A move is shown as the card itself where it is slow enough to be followed, else as a dot between the stages. Knows a
run and its clock; draws nothing.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from tracereel.film.clock import FilmClock
from tracereel.film.components.pipeline_places import DECODING, ENDED, PREFILLING, WAITING
from tracereel.trace.analysis.queries import Run

MOVE_S = 0.5
"""Film seconds that a card's way, or a dot's, from one stage to the next takes."""
_FOLLOWED = 2
"""So many moves to one stage, about as far apart as one takes, can be followed."""
_BUSY_S = 0.5
"""The film seconds before and after an instant that say how busy the queue is."""
_STILL, _BUSY = 5.0, 10.0
"""With fewer requests that leave the queue in that time its words can be read, with more they cannot."""

Spans = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Visit:
    """A request is in a stage from an instant of the engine on; `slot` where the stage has slots."""

    at_ns: int
    stage: int
    slot: int = 0


@dataclass(frozen=True)
class Move:
    """A request leaves a stage (None: it arrives) for another at a second of film."""

    from_s: float
    request: int
    before: Visit | None
    now: Visit
    followed: bool
    """Is it shown as its card?"""


class Moves:
    """All moves of a run; within the `slow` spans of film, and where few move to a stage at once, they are followed."""

    def __init__(self, run: Run, clock: FilmClock, slow: Spans = ()):
        visits = [visits_of(run, request) for request in range(len(run.trace.arrivals))]
        from_ns, to_ns = clock.passages[0].from_ns, clock.passages[-1].to_ns
        found = [
            (clock.film_second(now.at_ns), request, before, now)
            for request, own in enumerate(visits)
            for before, now in zip([None, *own], own, strict=False)
            if from_ns <= now.at_ns <= to_ns
        ]
        stages: dict[int, list[float]] = {}
        for from_s, _, _, now in sorted(found, key=lambda move: move[0]):
            stages.setdefault(now.stage, []).append(from_s)

        def followed(from_s: float, stage: int) -> bool:
            seconds = stages[stage]
            near = bisect_right(seconds, from_s + MOVE_S) - bisect_left(seconds, from_s - MOVE_S)
            return near <= _FOLLOWED and any(begin <= from_s <= end for begin, end in slow)

        moves = (Move(s, request, before, now, followed(s, now.stage)) for s, request, before, now in found)
        # Those that are there from the start come from nowhere.
        self._moves = sorted((m for m in moves if m.from_s > 0 or m.followed), key=lambda move: move.from_s)
        self._starts = [move.from_s for move in self._moves]
        self._leaves = [move.from_s for move in self._moves if move.before and move.before.stage == WAITING]

    def under_way(self, film_s: float) -> list[Move]:
        """The moves that have begun and are still shown, the newest last."""
        first, end = bisect_right(self._starts, film_s - MOVE_S), bisect_right(self._starts, film_s)
        return self._moves[first:end]

    def calm(self, film_s: float) -> float:
        """Can words in the queue be read, or do they change too quickly? 1 to 0."""
        first = bisect_left(self._leaves, film_s - _BUSY_S)
        near = self._leaves[first : bisect_right(self._leaves, film_s + _BUSY_S)]
        count = sum(1 - abs(s - film_s) / _BUSY_S for s in near) * 2
        return min(max((_BUSY - count) / (_BUSY - _STILL), 0.0), 1.0)


def visits_of(run: Run, request: int) -> list[Visit]:
    """A request's way through the stages."""
    trace = run.trace
    residencies, steps = trace.residencies, trace.steps
    visits = [Visit(trace.arrivals[request].arrival_ns, WAITING)]
    members = (steps.member_request == request).nonzero()[0]
    for row in (residencies.request == request).nonzero()[0].tolist():
        slot = int(residencies.slot[row])
        visits.append(Visit(int(residencies.from_ns[row]), PREFILLING, slot))
        # It decodes from the end of the step that gave its first token of this residency.
        gave = members[
            (steps.member_step[members] >= residencies.first_step[row]) & (steps.member_sampled[members] > 0)
        ]
        if len(gave) and steps.end_ns[steps.member_step[gave[0]]] < residencies.to_ns[row]:
            visits.append(Visit(int(steps.end_ns[steps.member_step[gave[0]]]), DECODING, slot))
        if residencies.preempted[row]:
            visits.append(Visit(int(residencies.to_ns[row]), WAITING))
    ending = trace.endings.get(request)
    if ending is not None:
        visits.append(Visit(ending[0], ENDED))
    return visits
