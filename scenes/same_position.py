"""Same-position batch decoding: what it costs when only sequences of equal length can share a step.

What the viewer should understand: batching is not one thing. Beat one: an engine whose attention takes one length for
the whole batch may refill its slots at once and still decode them one group after the other, for the sequences in them
are never at the same position. Beat two: beside it, on the same clock, continuous batching advances every slot in every
step. The sequences a step advances on average, over the whole run, are the measure of both.
"""

import numpy as np
from tracereel.scenes.clock import Script, ease
from tracereel.scenes.components.canvas import Canvas
from tracereel.scenes.components.ring import Ring
from tracereel.scenes.phrases import figure
from tracereel.scenes.reel import ReelScene
from tracereel.scenes.stage import Box, Caption, Chrome
from tracereel.scenes.theme import CONTINUOUS, SAME_POSITION, STRONG, TEXT
from tracereel.trace.measured import Run


def same_position(reel: ReelScene) -> None:
    """Tell the beat with the same-position run, the continuous run beside it."""
    same, continuous = reel.run("same-position"), reel.run("continuous")
    say, stage = reel.say.say, reel.stage
    steps = same.trace.steps
    begin = int(steps.start_ns[_first_decoding(same)])
    span = int(steps.end_ns[min(_first_decoding(same) + 26, len(steps) - 1)]) - begin
    clock = Script(begin).run(begin + span, 8.0).hold(3.0).clock()
    turn = 4.2
    captions = (
        Caption(0.0, say("same_position.why")),
        Caption(turn, say("same_position.turns")),
    )
    chrome = Chrome(stage, reel.say, say("same_position.name"), captions, clock, (same, continuous))
    rings = (
        Ring(same, clock, reel.say, "same", SAME_POSITION),
        Ring(continuous, clock, reel.say, "continuous", CONTINUOUS),
    )
    content = stage.content
    foot = Box(content.x, content.y, content.w, content.h - 50)
    boxes = foot.columns((1, 1), 60) if stage.wide else foot.rows(2, 90)

    def paint(canvas: Canvas, film_s: float) -> None:
        shown = ease((film_s - 8.0) / 0.5)
        for ring, box, run in zip(rings, boxes, (same, continuous), strict=True):
            ring.paint(canvas, box, film_s)
            if shown:
                mean = say("same_position.mean", mean=figure(run.measure("mean_batch"), ".1f"))
                canvas.text(mean, box.x + box.w / 2, box.bottom + 40, STRONG, TEXT, shown, align=0.5)
        chrome.paint(canvas, film_s)

    reel.replay(paint, clock.film_s, [same, continuous])


def _first_decoding(run: Run) -> int:
    """The first step after the slots have been filled for the first time in which nobody prefills."""
    steps = run.trace.steps
    full = int(np.argmax(steps.running == steps.running.max())) if len(steps) else 0
    prefills = np.ones(len(steps), dtype=bool)
    prefills[steps.member_step[steps.member_decode]] = False
    prefills[steps.member_step[~steps.member_decode]] = True
    later = np.flatnonzero(~prefills[full:])
    return full + int(later[0]) if len(later) else 0


class SamePosition(ReelScene):
    """Same-position batch decoding, alone."""

    def construct(self) -> None:
        """Tell it."""
        same_position(self)
