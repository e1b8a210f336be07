"""Same-position batch decoding: what it costs when only sequences of equal length can share a step.

What the viewer should understand: batching is not one thing. Beat one: an engine whose attention takes one length for
the whole batch may refill its slots at once and still decode them one group after the other, for the sequences in them
are never at the same position. Beat two: on the same clock, continuous batching advances every slot in every step.
The sequences that the steps shown decode on average are the measure of both.
"""

import numpy as np
from tracereel.film.beat import Beat, Caption
from tracereel.film.canvas import Canvas
from tracereel.film.clock import Script, ease
from tracereel.film.components.ring import LINE_OF_WORDS, Ring
from tracereel.film.lettering import wrap
from tracereel.film.phrases import figure
from tracereel.film.registry import CONTINUOUS_BATCHING, FULL_LENGTH, scene
from tracereel.film.show import Show
from tracereel.film.stage import Box, Shape, Spot, Stage
from tracereel.film.theme import HEADING_LINE, STRONG, TEXT, UNDER_PLOT, case_colour
from tracereel.trace.analysis.batching_facts import longest_waiting_first
from tracereel.trace.analysis.queries import Run, measure
from tracereel.trace.format.storage import TraceError

_RUN_S = 5.6
_STEPS = 26
_LINE = 40.0


@scene("same_position", order=30, films=(CONTINUOUS_BATCHING, FULL_LENGTH), needs=("same-position", "continuous"))
def same_position(show: Show) -> Beat:
    """The beat of the same-position run and the continuous run. Raises TraceError where one is not there."""
    same, continuous = show.run("same-position"), show.run("continuous")
    if not len(same.trace.steps):
        raise TraceError(same.trace.path, "holds no step")
    if not measure("decode_at_one_position", [same, continuous]).value:
        raise TraceError(same.trace.path, "its steps decode requests at different positions")
    say, stage = show.say.say, show.stage
    steps = same.trace.steps
    first = _first_decoding(same)
    begin = int(steps.start_ns[first])
    last = min(first + _STEPS, len(steps) - 1)
    # It stops within a step, while a request is being computed.
    script = Script(begin).run((int(steps.start_ns[last]) + int(steps.end_ns[last])) // 2, _RUN_S).hold(2.4)
    clock = script.clock()
    captions = [Caption(0.0, say("same_position.why"))]
    if measure("take_turns", [same, continuous]).value:
        key = "turns_in_order" if longest_waiting_first(same.trace) else "turns"
        captions.append(Caption(4.1, say(f"same_position.{key}")))
    shift = continuous.timeline.begin_ns - same.timeline.begin_ns
    rings = (
        Ring(same, clock, show.say, "same", case_colour("same-position"), show.colours()),
        Ring(continuous, clock, show.say, "continuous", case_colour("continuous"), show.colours(), shift),
    )
    places = ring_places(stage)

    def paint(canvas: Canvas, film_s: float) -> None:
        shown = ease((film_s - _RUN_S) / 0.5)
        for ring, (box, words), run, shift_ns in zip(rings, places, (same, continuous), (0, shift), strict=True):
            ring.paint(canvas, box, film_s, words)
            if not shown:
                continue
            until_ns = clock.engine_ns(clock.film_s) + shift_ns
            if run.timeline.end_ns <= begin + shift_ns:
                continue  # It was done before the steps that are shown.
            measured = run.measure("mean_decoding", from_ns=begin + shift_ns, to_ns=until_ns)
            mean = say("same_position.mean", mean=figure(measured, ".1f"))
            if words is None:
                y = box.bottom + UNDER_PLOT
                canvas.text(mean, box.x + box.w / 2, y, STRONG, TEXT, shown, align=0.5, room=box.w)
            else:
                for i, part in enumerate(wrap(mean.text, STRONG, words.w)):
                    y = words.y + HEADING_LINE + LINE_OF_WORDS * 2 + _LINE * i
                    canvas.text(mean, words.x, y, STRONG, TEXT, shown, part=part)

    def where(run: Run, request: int, film_s: float) -> list[Spot]:
        rung = zip(rings, places, (same, continuous), strict=True)
        found = (
            ring.where(request, box, film_s, worded=words is None) for ring, (box, words), own in rung if own is run
        )
        return [spot for spots in found for spot in spots]

    name = say("same_position.name")
    return Beat("same_position", name, tuple(captions), clock, (same, continuous), paint, where=where)


def ring_places(stage: Stage) -> list[tuple[Box, Box | None]]:
    """The box of each ring, and that of its words where they stand next to it: in an upright frame."""
    content = stage.content
    if stage.shape is not Shape.TALL:
        above = Box(content.x, content.y, content.w, content.h - 50)
        return [(box, None) for box in above.columns((1, 1), 60 if stage.wide else 30)]
    found: list[tuple[Box, Box | None]] = []
    for row in content.rows(2, 44):
        ring = Box(row.x, row.y, min(row.h, row.w * 0.56), row.h)
        left = ring.right + 36
        found.append((ring, Box(left, row.y + row.h / 2 - LINE_OF_WORDS * 2, row.right - left, row.h / 2)))
    return found


def _first_decoding(run: Run) -> int:
    """The first step after the slots have been filled for the first time that prefills none."""
    steps = run.trace.steps
    full = int(np.argmax(steps.running == steps.running.max())) if len(steps) else 0
    prefills = np.zeros(len(steps), dtype=bool)
    prefills[steps.member_step[~steps.member_decode]] = True
    later = np.flatnonzero(~prefills[full:])
    return full + int(later[0]) if len(later) else 0
