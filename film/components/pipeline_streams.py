"""Requests on their way between two stages of the pipeline as dots, where there are too many to follow each.

A dot crosses the space between the stages alone, so that it is never over words. Knows places and moves.
"""

from tracereel.film.canvas import Canvas
from tracereel.film.clock import ease
from tracereel.film.components.pipeline_moves import MOVE_S, Move
from tracereel.film.components.pipeline_places import ENDED, WAITING, Places
from tracereel.film.stage import Box
from tracereel.film.theme import Colour

_RADIUS, _TRAIL = 7.0, 0.35
_BESIDE = 14.0

Point = tuple[float, float]


def paint_dot(canvas: Canvas, places: Places, move: Move, film_s: float, there: Box | None, colour: Colour) -> None:
    """Draw the dot of a move at a second of film; `there` is the place that it leads to."""
    share = (film_s - move.from_s) / MOVE_S
    if there is None or not 0 <= share <= 1:
        return
    if move.before is None and there.h < places.card_height:
        return  # into the midst of the queue
    begin, end = _way(places, move, there)

    def at(part: float) -> Point:
        return begin[0] + (end[0] - begin[0]) * part, begin[1] + (end[1] - begin[1]) * part

    reached = ease(share)
    alpha = min(1.0, 5 * (1 - share))
    canvas.line([at(max(reached - _TRAIL, 0.0)), at(reached)], colour, 0.4 * alpha, thickness=4)
    canvas.disc(*at(reached), _RADIUS, colour, alpha)


def _way(places: Places, move: Move, there: Box) -> tuple[Point, Point]:
    """From the edge of the stage that a request leaves to the edge of that which it comes to."""
    y = there.y + there.h / 2
    stage = move.now.stage
    if move.before is None:
        return (there.x - 56, y), (there.x - 12, y)
    slot_place = places.slots.get(move.before.slot if move.before.stage != WAITING else move.now.slot)
    from_y = y if slot_place is None else slot_place.decode.y + slot_place.decode.h / 2
    if stage == WAITING:
        return (places.prefill.x - 12, from_y), (places.waiting.right + 12, y)
    if stage == ENDED:
        if places.tall:
            x = places.decode.right - _BESIDE
            return (x, places.rings[-1].bottom + 8), (x, places.ended.y - 8)
        return (places.decode.right + 24, from_y), (places.ended.x - 12, y)
    if move.before.stage == WAITING:
        if places.tall:
            x = places.prefill.right - _BESIDE
            return (x, places.waiting.bottom + 8), (x, places.prefill.y - 8)
        return (places.waiting.right + 12, places.waiting.y + places.card_height / 2), (places.prefill.x - 12, y)
    return (places.prefill.right + 8, y), (places.decode.x - 20, y)
