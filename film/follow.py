"""The request that a long film follows: marked wherever it is seen, its life as a bar at the foot of each chapter.

Each chapter says it of the trace that it plays; the request is the film's own where the trace has it. A pure function
of engine time. Knows a beat's runs, a line, and where the beat shows the request; not what else the chapter shows.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

from tracereel.film.canvas import Canvas
from tracereel.film.colours import RequestColours
from tracereel.film.components.life_bar import LifeBar
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrase, Phrasebook, figure, quote
from tracereel.film.stage import Box, Spot
from tracereel.film.theme import GROUND, SMALL, SMALL_STRONG, TEXT, Colour, Letters
from tracereel.trace.analysis.life import BLOCKS, STAGES
from tracereel.trace.analysis.queries import Measured, Run

_LEGEND, _CLEAR = 9.0, 16.0
"""The radius of the marked disc before the request's name, and the units between what stands side by side."""
FOOT = 24.0
"""What is kept free above the strip for the bar, in units."""
_BAR, _UP = 32.0, 23.0
"""How high the bar is, and how far its top is above the line of the words."""
_LEAST_BAR = 330.0
"""What else is said gives way to a bar of that width."""
_RING, _GAP = 4.0, 3.0
"""How thick the mark is, and what is between it and the place that it marks."""


@dataclass(frozen=True)
class Follow:
    """The request `request` of a run, in a chapter of several runs whose clock is that of `main`."""

    run: Run
    main: Run
    request: int
    names: tuple[Phrase, ...]
    """What it is called, the fullest first."""
    colour: Colour
    seen: tuple[tuple[Run, int], ...]
    """The same request in each run of the chapter that has it."""
    say: Phrasebook

    @classmethod
    def of(
        cls, runs: Sequence[Run], request_id: str, workload: str, say: Phrasebook, colours: RequestColours
    ) -> "Follow":
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
        own = run.trace.arrivals[request].id
        ids = {each: [arrival.id for arrival in each.trace.arrivals] for each in runs}
        seen = tuple((each, own_ids.index(own)) for each, own_ids in ids.items() if own in own_ids)
        return cls(run, runs[0], request, (fullest, plain, briefly), colours[request], seen, say)

    def own_ns(self, t_ns: int) -> int:
        """The instant of the request's run at an instant of the main run's clock."""
        return t_ns - self.main.timeline.begin_ns + self.run.timeline.begin_ns

    def stage(self, t_ns: int) -> Measured:
        """The stage that the request is in at an instant of the main run's clock."""
        return self.run.measure("stage_of_request", request=self.request, t_ns=self.own_ns(t_ns))

    def lit(self, t_ns: int) -> frozenset[str]:
        """What is said of the request at an instant of the main run's clock: its stage, and whether it holds blocks."""
        measured, own_ns = self.stage(t_ns), self.own_ns(t_ns)
        holds = self.run.measure("is_in_stage", request=self.request, t_ns=own_ns, stage=BLOCKS).value
        return frozenset([str(measured.value), *([BLOCKS] if holds else [])])

    @cached_property
    def bar(self) -> LifeBar:
        """The request's life."""
        return LifeBar(self.run, self.request, self.colour, self.say)

    def paint(self, canvas: Canvas, left: float, right: float, y: float, t_ns: int) -> None:
        """Draw from `left` to `right`, the words on the line `y`: the marked request, what it does, and its life."""
        disc = Box(left + _GAP + _RING, y - _LEGEND * 2, _LEGEND * 2, _LEGEND * 2)
        canvas.disc(disc.x + _LEGEND, y - _LEGEND, _LEGEND, self.colour)
        self._ring(canvas, Spot(disc, round=True))
        x = disc.right + _GAP + _RING + _CLEAR
        name, doing, blocks = self._fitting(right - x)
        canvas.text(name, x, y, SMALL_STRONG, TEXT)
        x += width(name.text, SMALL_STRONG) + _CLEAR
        stage, lit = self.stage(t_ns), self.lit(t_ns)
        if stage.value in STAGES:
            said = self.say.say(f"follow.is_{stage.value}", stage=quote(stage))
            canvas.text(said, x, y, SMALL, Letters(self.colour))
        x += doing + _CLEAR
        if blocks:
            if BLOCKS in lit:
                canvas.text(self._blocks(t_ns), x, y, SMALL, TEXT)
            x += blocks + _CLEAR
        self.bar.paint(canvas, Box(x, y - _UP, right - x, _BAR), self.own_ns(t_ns))

    def _blocks(self, t_ns: int) -> Phrase:
        held = self.run.measure("blocks_of_request", request=self.request, t_ns=self.own_ns(t_ns))
        return self.say.say("follow.is_blocks", stage=quote(self.stage(t_ns)), blocks=figure(held))

    def _fitting(self, room: float) -> tuple[Phrase, float, float]:
        """The name, and what is kept free for what the request does and for its blocks (0: they are not said)."""
        for name in self.names:
            for blocks in (self._widest_blocks, 0.0):
                taken = width(name.text, SMALL_STRONG) + self._widest_doing + blocks + 3 * _CLEAR
                if room - taken >= _LEAST_BAR:
                    return name, self._widest_doing, blocks
        return self.names[-1], self._widest_doing, 0.0

    @cached_property
    def _widest_doing(self) -> float:
        """What the words on its stage take at most, so that nothing moves when the stage changes."""
        stage = quote(self.stage(self.main.timeline.begin_ns))
        return max(width(self.say.say(f"follow.is_{each}", stage=stage).text, SMALL) for each in STAGES)

    @cached_property
    def _widest_blocks(self) -> float:
        """What the words on its KV blocks take: it holds most at the end of a stage."""
        shift_ns = self.main.timeline.begin_ns - self.run.timeline.begin_ns
        ends = [stretch.to_ns - 1 + shift_ns for stretch in self.bar.stretches]
        return max((width(self._blocks(t_ns).text, SMALL) for t_ns in ends if BLOCKS in self.lit(t_ns)), default=0.0)

    def mark(self, canvas: Canvas, spots: Sequence[Spot]) -> None:
        """Draw the mark around each place at which the request is seen."""
        for spot in spots:
            with canvas.moving() if spot.moving else nullcontext():
                self._ring(canvas, spot)

    @staticmethod
    def _ring(canvas: Canvas, spot: Spot) -> None:
        """The mark: a gap in the ground's colour around the place, and a ring around the gap."""
        box = spot.box
        for by, colour, thick in ((_GAP / 2, GROUND, _GAP), (_GAP + _RING / 2, TEXT, _RING)):
            if spot.round:
                radius = box.w / 2 + by
                canvas.disc(box.x + box.w / 2, box.y + box.h / 2, radius, colour, spot.alpha, outline=thick)
            else:
                canvas.card(*box.grown(by).sides, colour, spot.alpha, radius=spot.radius + by, outline=thick)
