"""Pipeline flow: requests arrive, wait, are read once, write together, and leave.

What the viewer should understand: a request goes through four stages, and they are not four places but four states of
one loop. Beat one: requests come by the clock and find the queue. Beat two: a free slot takes the first of them, and
Prefill reads its prompt in one go. Beat three: Decode advances all slots together, a token each, step by step. Beat
four: whoever has ended leaves at once, and its slot is taken again, while the queue breathes with the load.
"""

from tracereel.scenes.clock import FilmClock, Script
from tracereel.scenes.components.canvas import Canvas
from tracereel.scenes.components.pipeline import PipelineView
from tracereel.scenes.phrases import Phrase, figure
from tracereel.scenes.reel import ReelScene
from tracereel.scenes.stage import Caption, Chrome
from tracereel.trace.measured import Run

_LONGEST_S = 14.0


def pipeline_flow(reel: ReelScene) -> None:
    """Tell the beat with the recording of requests that come by the clock, else with the continuous or the only run."""
    run = reel.run(reel.recordings.preferred("online", "continuous"))
    clock, turns = _clock(run)
    say = reel.say.say
    captions = tuple(
        Caption(start, say(f"pipeline_flow.{key}"))
        for start, key in zip(turns, ("arrive", "read", "write", "leave"), strict=True)
    )

    def live(t_ns: int) -> Phrase:
        return say("pipeline_flow.tokens", count=figure(run.measure("output_tokens", t_ns=t_ns), ",d"))

    chrome = Chrome(reel.stage, reel.say, say("pipeline_flow.name"), captions, clock, (run,), live)
    view = PipelineView(run, clock, reel.stage, reel.say)

    def paint(canvas: Canvas, film_s: float) -> None:
        view.paint(canvas, film_s)
        chrome.paint(canvas, film_s)

    reel.replay(paint, clock.film_s, [run])


def _clock(run: Run) -> tuple[FilmClock, tuple[float, ...]]:
    """Slowly through the first request's prefill and first tokens, then as fast as it was measured."""
    steps, end = run.trace.steps, run.timeline.end_ns
    first_start, first_end = int(steps.start_ns[0]), int(steps.end_ns[0])
    script = Script().run(first_start, 1.6)
    read = script.film_s
    script.run(first_end, 1.8)
    wrote = int(steps.end_ns[min(8, len(steps) - 1)])
    write = script.film_s
    script.run(wrote, 4.0)
    first_ended = run.timeline.ended_times[0] if run.timeline.ended_times else end
    script.run(min(max(first_ended, wrote), end), 3.0)
    leave = script.film_s
    # From here on as fast as it was measured, where that is not too long to watch.
    script.run(end, min(max((end - first_ended) / 1e9, 1.0), _LONGEST_S))
    script.hold(1.2)
    return script.clock(), (0.0, read, write, leave)


class PipelineFlow(ReelScene):
    """The pipeline, alone."""

    def construct(self) -> None:
        """Tell it."""
        pipeline_flow(self)
