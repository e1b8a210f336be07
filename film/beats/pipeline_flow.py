"""Pipeline flow: requests arrive, wait, are read once, write together, and leave.

What the viewer should understand: a request goes through four stages, and they are not four places but four states of
one loop. Beat one: a request comes to the queue. Beat two: Prefill reads its prompt. Beat three: Decode advances all
slots together, a token each, step by step, and the batch fills. Beat four, as slow as it has to be: a request ends, and
the first in line takes its slot in the very next step. Beat five: the rest of the run; too many come and go to follow
each, so they stream as dots between the stages, and the queue grows and shrinks with the load. Of a run whose batches
are closed the words say that instead.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tracereel.film.beat import Beat, Caption
from tracereel.film.beats.stretch import require_all_slots, shown_stretch
from tracereel.film.clock import FilmClock, Script
from tracereel.film.colours import RequestColours
from tracereel.film.components.pipeline import PipelineView, places_of
from tracereel.film.phrases import Phrase, figure
from tracereel.film.reading import reading_s
from tracereel.film.registry import CONTINUOUS_BATCHING, FULL_LENGTH, scene
from tracereel.film.show import Show
from tracereel.film.stage import Spot
from tracereel.trace.analysis.batching_facts import Refill, all_advance, came_together, queued, refill
from tracereel.trace.analysis.moments import Handover, lone_handover
from tracereel.trace.analysis.queries import Run
from tracereel.trace.state.columns import Trace

_FEW_STEPS, _WRITES_S, _SLOWLY = 8, 5.0, 10.5
"""How many steps' tokens are seen to come at least, in how many seconds at most, and how much slower than measured.

Single cards are seen on their way then: faster, one would stand where its request is no longer."""
_AT_ONCE_NS, _AT_ONCE_S = 10_000_000, 0.7
_FILLS_S, _REST_S = (2.0, 5.0), (8.0, 14.0)
"""The least and the most seconds of film for the batch to fill, and for the rest of the run."""
_CAPTION_S = 2.5
"""What follows a handover takes at least so long."""
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
    captions = shown.captions(shown.name, say("pipeline_flow.stretch_sum", **shown.counted))
    view = PipelineView(run, shown.clock, show.stage, show.say, RequestColours([run.trace]))
    name, still_s = say("pipeline_flow.name"), shown.runs_s + 1
    return Beat("pipeline_flow", name, captions, shown.clock, (run,), view.paint, _tokens_of(run, say), still_s=still_s)


def _tokens_of(run: Run, say: Callable[..., Phrase]) -> Callable[[int], Phrase]:
    """What the strip says of a run at an engine time: how many output tokens it has given."""
    return lambda t_ns: say("pipeline_flow.tokens", count=figure(run.measure("output_tokens", t_ns=t_ns), ",d"))


@scene("pipeline_flow", order=10, films=(CONTINUOUS_BATCHING, FULL_LENGTH), stretch=stretch_of_the_pipeline)
def pipeline_flow(show: Show) -> Beat:
    """The beat of the recording of requests that come by the clock, where they wait; else of the continuous run."""
    run = show.run(show.recordings.preferred("online", "continuous"))
    if show.recordings.has("continuous") and not queued(run.trace):
        run = show.run("continuous")
    say, slots = show.say.say, places_of(run, show.stage).slots
    lettered = {slot for slot, slot_place in slots.items() if slot_place.lettered}
    said = [say(f"pipeline_flow.{key}") for key in _sentences(run.trace)]
    told = _tell(run, lettered, [reading_s(phrase) for phrase in said])
    captions = tuple(map(Caption, told.turns, said))
    view = PipelineView(run, told.clock, show.stage, show.say, show.colours(), told.slow)
    name = say("pipeline_flow.name")

    def where(shown: Run, request: int, film_s: float) -> list[Spot]:
        return view.where(request, film_s) if shown is run else []

    said_of = name, captions, told.clock, (run,)
    return Beat("pipeline_flow", *said_of, view.paint, _tokens_of(run, say), still_s=told.still_s, where=where)


def _sentences(trace: Trace) -> list[str]:
    """What is said, by its key, in order: how requests come, prefill, what a step writes, what becomes of slots."""
    # Who was all there at the start did not come by the clock; with free slots none waits for one.
    by_clock, by_queue = not came_together(trace), queued(trace)
    comes = ("arrive" if by_queue else "arrive_free") if by_clock else ("waits" if by_queue else "at_once")
    advance, refilled = all_advance(trace), refill(trace)
    writes = "write" if (trace.steps.member_sampled <= 1).all() else "write_several"
    changes = ["changes"] if refilled is Refill.RUNNING and advance else []
    return [comes, "read", writes if advance else "write_some", _ENDS[refilled], *changes]


@dataclass(frozen=True)
class _Told:
    """The clock, the second at which each caption begins, and the spans in which single cards can be followed."""

    clock: FilmClock
    turns: tuple[float, ...]
    slow: tuple[tuple[float, float], ...] = ()
    still_s: float | None = None


def _tell(run: Run, lettered: set[int], reads_s: list[float]) -> _Told:
    """Slowly through the first step and the next tokens, then through one handover in a slot that has words.

    `reads_s` are the seconds that each of the captions takes to read.
    """
    steps, begin, end = run.trace.steps, run.timeline.begin_ns, run.timeline.end_ns
    last = len(steps) - 1
    if last < 0:
        return _Told(Script(begin).hold(max(4.0, reads_s[0])).clock(), (0.0,))
    first_start, first_end = int(steps.start_ns[0]), int(steps.end_ns[0])
    # An engine that had nothing to do takes up its first request at once: that instant is short, not stretched.
    script = Script(begin).run(first_start, _AT_ONCE_S if first_start - begin < _AT_ONCE_NS else 2.4)
    read = max(2.4, reads_s[0])
    script.run(first_end, max(2.8, read + reads_s[1] - script.film_s))
    write = script.film_s
    wrote = int(steps.end_ns[_written(run)])
    script.run(wrote, max(3.6, reads_s[2], _SLOWLY * (wrote - first_end) / 1e9))
    slow = [(0.0, script.film_s)]
    handover = lone_handover(run.trace, lettered, wrote)
    if handover is not None:
        leave = _hand_over(run, script, handover)
        slow.append((leave, script.film_s))
    else:
        first_ended = run.timeline.ended_times[0] if run.timeline.ended_times else end
        script.run(min(max(first_ended, wrote), end), 3.0)
        leave = script.film_s
    rest = script.film_s
    script.run(end, _within((end - script.at_ns) / 1e9, _REST_S))
    changes = max(rest if rest - leave > _CAPTION_S else leave + (script.film_s - leave) * 0.4, leave + reads_s[3])
    script.hold(1.2)
    turns = [0.0, read, write, leave]
    if len(reads_s) > len(turns) and changes + reads_s[len(turns)] <= script.film_s:
        turns.append(changes)
    return _Told(script.clock(), tuple(turns), tuple(slow), rest - 1.5 if handover is not None else None)


def _written(run: Run) -> int:
    """The step up to which tokens are seen to come: the batch is half full by then, if that is soon."""
    steps = run.trace.steps
    half = np.flatnonzero(2 * steps.running >= run.trace.header.slots)
    wanted = int(half[0]) if len(half) else 0
    soon = wanted and _SLOWLY * int(steps.end_ns[wanted] - steps.end_ns[0]) <= _WRITES_S * 1e9
    return min(max(wanted if soon else 0, _FEW_STEPS), len(steps) - 1)


def _hand_over(run: Run, script: Script, handover: Handover) -> float:
    """Run on until a request is about to end, and slowly until another one decodes in its slot; when that begins."""
    steps, taken = run.trace.steps, handover.taken_step
    before = max(int(steps.start_ns[max(taken - 2, 0)]), script.at_ns)
    script.run(before, _within((before - script.at_ns) / 1e9, _FILLS_S))
    leaves = script.film_s
    # Next to no time passes between the two steps: held, so that one is seen to leave before the other comes.
    script.run(handover.ended_ns, 1.4).hold(0.6).run(int(steps.end_ns[taken]), 2.4)
    after = min(taken + 1, len(steps) - 1)
    script.run(int(steps.end_ns[after]), 1.0)
    return leaves


def _within(seconds: float, bounds: tuple[float, float]) -> float:
    return min(max(seconds, bounds[0]), bounds[1])
