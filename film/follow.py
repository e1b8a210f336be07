"""The request that a long film follows: at the foot of each chapter the stages of its life, those that it is in lit.

Each chapter says it of the trace that it plays; the request is the film's own where the trace has it. A pure function
of engine time. Knows a beat's runs and a line; not what the chapter shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tracereel.film.canvas import Canvas
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrase, Phrasebook, quote
from tracereel.film.theme import ACCENT, DIM, LINE, SMALL, SMALL_STRONG, TEXT, Letters
from tracereel.trace.analysis.life import BLOCKS, CHUNKS, DECODE, FINISHED, PREFILL, QUEUE
from tracereel.trace.analysis.queries import Measured, Run

_ORDER = (QUEUE, PREFILL, CHUNKS, BLOCKS, DECODE, FINISHED)
_CLEAR = 14.0
"""Units between a word and the line before and after it."""
_LEAST_LINE = 10.0


@dataclass(frozen=True)
class Follow:
    """The request `name` of a run, in a chapter of several runs whose clock is that of `main`."""

    run: Run
    main: Run
    request: int
    names: tuple[Phrase, ...]
    """What it is called, the fullest first."""

    @classmethod
    def of(cls, runs: Sequence[Run], request_id: str, workload: str, say: Phrasebook) -> "Follow":
        """The request to follow in a chapter of these runs: of the first that batches continuously, else the first.

        `workload` is the name of the workload that the request of that id belongs to. Raises ValueError where the
        run has no request.
        """
        run = next((run for run in runs if run.trace.header.policy == "continuous"), runs[0])
        request = int(run.measure("followed_request", request_id=request_id).value)
        name = quote(run.measure("followed_request_name", request_id=request_id))
        briefly, plain = say.say("follow.briefly", request=name), say.say("follow.request", request=name)
        header = run.trace.header
        if header.workload.name != workload:
            name_of = quote(run.measure("header", field="workload.name"))
            fullest = say.say("follow.of_workload", request=name, workload=name_of)
        elif any(each.trace.header.engine.name != header.engine.name for each in runs):
            fullest = say.say("follow.of_engine", request=name, engine=quote(run.measure("engine")))
        elif any(each.trace.header.policy != header.policy for each in runs):
            fullest = say.say("follow.of_policy", request=name, policy=quote(run.measure("policy")))
        else:
            fullest = plain
        return cls(run, runs[0], request, (fullest, plain, briefly))

    def stage(self, t_ns: int) -> Measured:
        """The stage that the request is in at an instant of the main run's clock."""
        own_ns = t_ns - self.main.timeline.begin_ns + self.run.timeline.begin_ns
        return self.run.measure("stage_of_request", request=self.request, t_ns=own_ns)

    def lit(self, t_ns: int) -> frozenset[str]:
        """The stages that are lit at an instant of the main run's clock."""
        measured = self.stage(t_ns)
        own_ns = int(dict(measured.args)["t_ns"])
        holds = self.run.measure("is_in_stage", request=self.request, t_ns=own_ns, stage=BLOCKS).value
        return frozenset([str(measured.value), *([BLOCKS] if holds else [])])

    def paint(self, canvas: Canvas, say: Phrasebook, left: float, right: float, y: float, t_ns: int) -> None:
        """Draw the request's name and the stages of its life from `left` to `right`, the letters on the line `y`."""
        stage, lit = quote(self.stage(t_ns)), self.lit(t_ns)
        # A lit word is the wider one: nothing moves when it is lit.
        widths = [width(say.say(f"follow.{each}").text, SMALL_STRONG) for each in _ORDER]
        least = sum(widths) + len(_ORDER) * (2 * _CLEAR + _LEAST_LINE)
        fits = (name for name in self.names if width(name.text, SMALL_STRONG) + least <= right - left)
        name = next(fits, self.names[-1])
        x = left + canvas.text(name, left, y, SMALL_STRONG, TEXT)
        line = (right - x - sum(widths)) / len(_ORDER) - 2 * _CLEAR
        for each, wide in zip(_ORDER, widths, strict=True):
            canvas.line([(x + _CLEAR, y - 9), (x + _CLEAR + line, y - 9)], LINE)
            x += 2 * _CLEAR + line
            if each in lit:
                canvas.text(say.say(f"follow.is_{each}", stage=stage), x, y, SMALL_STRONG, Letters(ACCENT))
            else:
                canvas.text(say.say(f"follow.{each}"), x, y, SMALL, DIM)
            x += wide
