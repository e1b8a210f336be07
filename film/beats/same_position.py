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
from tracereel.film.components.ring import Ring
from tracereel.film.phrases import figure
from tracereel.film.registry import CONTINUOUS_BATCHING, FULL_LENGTH, scene
from tracereel.film.show import Show
from tracereel.film.stage import Box, Shape
from tracereel.film.theme import STRONG, TEXT, UNDER_PLOT, case_colour
from tracereel.trace.analysis.batching_facts import longest_waiting_first
from tracereel.trace.analysis.queries import Run

_RUN_S = 5.6
_STEPS = 26


@scene("same_position", order=30, films=(CONTINUOUS_BATCHING, FULL_LENGTH), needs=("same-position", "continuous"))
def same_position(show: Show) -> Beat:
    """The beat of the same-position run and the continuous run. Raises TraceError where one is not there."""
    same, continuous = show.run("same-position"), show.run("continuous")
    say, stage = show.say.say, show.stage
    steps = same.trace.steps
    first = _first_decoding(same)
    begin = int(steps.start_ns[first])
    last = min(first + _STEPS, len(steps) - 1)
    # It stops within a step, while somebody is being computed.
    script = Script(begin).run((int(steps.start_ns[last]) + int(steps.end_ns[last])) // 2, _RUN_S).hold(2.4)
    clock = script.clock()
    captions = (
        Caption(0.0, say("same_position.why")),
        Caption(4.1, say(f"same_position.{'turns_in_order' if longest_waiting_first(same.trace) else 'turns'}")),
    )
    shift = continuous.timeline.begin_ns - same.timeline.begin_ns
    rings = (
        Ring(same, clock, show.say, "same", case_colour("same-position"), show.colours()),
        Ring(continuous, clock, show.say, "continuous", case_colour("continuous"), show.colours(), shift),
    )
    content = stage.content
    foot = Box(content.x, content.y, content.w, content.h - 50)
    boxes = foot.rows(2, 90) if stage.shape is Shape.TALL else foot.columns((1, 1), 60 if stage.wide else 30)

    def paint(canvas: Canvas, film_s: float) -> None:
        shown = ease((film_s - _RUN_S) / 0.5)
        for ring, box, run, shift_ns in zip(rings, boxes, (same, continuous), (0, shift), strict=True):
            ring.paint(canvas, box, film_s)
            if shown:
                until_ns = clock.engine_ns(clock.film_s) + shift_ns
                measured = run.measure("mean_decoding", from_ns=begin + shift_ns, to_ns=until_ns)
                mean = say("same_position.mean", mean=figure(measured, ".1f"))
                canvas.text(
                    mean, box.x + box.w / 2, box.bottom + UNDER_PLOT, STRONG, TEXT, shown, align=0.5, room=box.w
                )

    name = say("same_position.name")
    return Beat("same_position", name, captions, clock, (same, continuous), paint)


def _first_decoding(run: Run) -> int:
    """The first step after the slots have been filled for the first time in which nobody prefills."""
    steps = run.trace.steps
    full = int(np.argmax(steps.running == steps.running.max())) if len(steps) else 0
    prefills = np.zeros(len(steps), dtype=bool)
    prefills[steps.member_step[~steps.member_decode]] = True
    later = np.flatnonzero(~prefills[full:])
    return full + int(later[0]) if len(later) else 0
