"""Pipeline flow: requests arrive, wait, are read once, write together, and leave.

What the viewer should understand: a request goes through four stages, and they are not four places but four states of
one loop. Beat one: requests come by the clock and find the queue. Beat two: a free slot takes the first of them, and
Prefill reads its prompt. Beat three: Decode advances all slots together, a token each, step by step. Beat four:
whoever has ended leaves at once, and its slot is taken again, while the queue breathes with the load: the batch changes
while it runs. Of a run whose batches are closed the words say that instead.
"""

from tracereel.film.beat import Beat, Caption
from tracereel.film.beats.stretch import require_all_slots, shown_stretch
from tracereel.film.clock import FilmClock, Script
from tracereel.film.colours import RequestColours
from tracereel.film.components.pipeline import PipelineView
from tracereel.film.phrases import Phrase, figure
from tracereel.film.registry import CONTINUOUS_BATCHING, FULL_LENGTH, scene
from tracereel.film.show import Show
from tracereel.trace.analysis.batching_facts import Refill, all_advance, came_together, refill
from tracereel.trace.analysis.queries import Run

_AT_ONCE_NS = 10_000_000
_LONGEST_S = 14.0
_ENDS = {
    Refill.RUNNING: "leave",
    Refill.CLOSED: "leave_closed",
    Refill.ALONE: "leave_next",
    Refill.NEVER: "leave_alone",
}
"""What is said of those that end, by what becomes of their slots."""


def stretch_of_the_pipeline(show: Show) -> Beat:
    """The beat of the stretch that the settings ask for. Raises WindowError where it cannot be shown."""
    require_all_slots(show, "pipeline_flow")
    shown = shown_stretch(show, "online", "continuous")
    run, say = shown.run, show.say.say
    captions = (Caption(0.0, shown.name), Caption(shown.runs_s, say("pipeline_flow.stretch_sum", **shown.counted)))

    def live(t_ns: int) -> Phrase:
        return say("pipeline_flow.tokens", count=figure(run.measure("output_tokens", t_ns=t_ns), ",d"))

    view = PipelineView(run, shown.clock, show.stage, show.say, RequestColours([run.trace]))
    name, still_s = say("pipeline_flow.name"), shown.runs_s + 1
    return Beat("pipeline_flow", name, captions, shown.clock, (run,), view.paint, live, still_s=still_s)


@scene("pipeline_flow", order=10, films=(CONTINUOUS_BATCHING, FULL_LENGTH), stretch=stretch_of_the_pipeline)
def pipeline_flow(show: Show) -> Beat:
    """The beat of the recording of requests that come by the clock, else of the continuous run, else of any."""
    run = show.run(show.recordings.preferred("online", "continuous"))
    clock, turns = _clock(run)
    say = show.say.say
    # Who was all there at the start did not come by the clock.
    first = "waits" if came_together(run.trace) else "arrive"
    writes = "write" if (run.trace.steps.member_sampled <= 1).all() else "write_several"
    refilled = refill(run.trace)
    keys = [first, "read", writes, _ENDS[refilled]]
    if refilled is Refill.RUNNING and all_advance(run.trace):
        keys.append("changes")
    captions = tuple(Caption(start, say(f"pipeline_flow.{key}")) for start, key in zip(turns, keys, strict=False))

    def live(t_ns: int) -> Phrase:
        return say("pipeline_flow.tokens", count=figure(run.measure("output_tokens", t_ns=t_ns), ",d"))

    view = PipelineView(run, clock, show.stage, show.say, show.colours())
    name = say("pipeline_flow.name")
    return Beat("pipeline_flow", name, captions, clock, (run,), view.paint, live, still_s=clock.film_s - 10)


def _clock(run: Run) -> tuple[FilmClock, tuple[float, ...]]:
    """Slowly through the first request's prefill and first tokens, then as fast as it was measured."""
    steps, begin, end = run.trace.steps, run.timeline.begin_ns, run.timeline.end_ns
    last = len(steps) - 1
    if last < 0:
        return Script(begin).hold(4.0).clock(), (0.0,)
    first_start, first_end = int(steps.start_ns[0]), int(steps.end_ns[0])
    # An engine that had nothing to do takes up its first request at once: that instant is shown held, not stretched.
    at_once = first_start - begin < _AT_ONCE_NS
    script = Script(begin).hold(1.6) if at_once else Script(begin).run(first_start, 1.6)
    read = script.film_s
    script.run(first_end, 1.8)
    wrote = int(steps.end_ns[min(8, last)])
    write = script.film_s
    script.run(wrote, 4.0)
    first_ended = run.timeline.ended_times[0] if run.timeline.ended_times else end
    script.run(min(max(first_ended, wrote), end), 3.0)
    leave = script.film_s
    # From here on as fast as it was measured, where that is not too long to watch.
    script.run(end, min(max((end - first_ended) / 1e9, 1.0), _LONGEST_S))
    changes = leave + max((script.film_s - leave) * 0.4, 3.0)
    script.hold(1.2)
    turns = (0.0, read, write, leave, *([changes] if changes + 2.5 < script.film_s else []))
    return script.clock(), turns
