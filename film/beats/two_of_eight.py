"""The cold open: slots that are idle while requests wait, and the move that continuous batching makes.

What the viewer should understand: an engine writes as many answers at once as it has slots. Beat one: in a static batch
rows end one after another and stay dark, while the queue does not move; what is idle is counted. Beat two: only a few
rows still write. Beat three: the first in line takes a freed slot, and that is the title.
"""

from dataclasses import dataclass

import numpy as np
from tracereel.film.beat import Beat, Caption
from tracereel.film.canvas import Canvas
from tracereel.film.clock import Script, ease
from tracereel.film.components.answer_rows import AnswerRows
from tracereel.film.components.queue_stack import QueueStack
from tracereel.film.components.slot_map import SlotMap
from tracereel.film.lettering import width, wrap
from tracereel.film.phrases import Phrase, figure
from tracereel.film.reading import reading_s
from tracereel.film.registry import CONTINUOUS_BATCHING, scene
from tracereel.film.show import Show
from tracereel.film.stage import Box, Shape
from tracereel.film.theme import (
    ACCENT,
    BEFORE_WORDS,
    CAPTION,
    COUNTED,
    DIM,
    FIGURE,
    GROUND,
    HEADING,
    HEADING_LINE,
    HUGE,
    IDLE_SLOT,
    SMALL_STRONG,
    SWATCH,
    TEXT,
    Type,
)
from tracereel.trace.analysis.batching_facts import Refill, refill
from tracereel.trace.analysis.comparable import require_comparable
from tracereel.trace.analysis.moments import Handover, first_handover
from tracereel.trace.analysis.queries import Run, measure, slot_ranges
from tracereel.trace.format.storage import TraceError

_MOST_ROWS = 8
_EMPTYING_S, _FEW_S, _TITLE_S = 7.4, 3.4, 3.8
_FEW_SAID_S = 0.8
"""When it is said how few write, after they have become so few."""
_MOVE_S = 0.9
_VEIL = 0.97
_MAP = 34.0
"""How high the row of all slots is, where some of them alone are lettered."""


@dataclass(frozen=True)
class _FirstBatch:
    """The first batch of a static run: its slots in the order in which they end, and the instants that matter."""

    slots: tuple[int, ...]
    begin_ns: int
    """When each of its requests has a token."""
    few_ns: int
    """When few slots still write: a quarter, two at least, where there is such an instant."""
    later_ns: int
    """An instant before the next of them ends."""


def first_batch(run: Run) -> _FirstBatch:
    """The batch that a run begins with. Raises TraceError where its requests do not end one after another."""
    residencies = run.trace.residencies
    order = np.argsort(residencies.to_ns, kind="stable")
    first_end = int(residencies.to_ns[order[0]]) if len(order) else 0
    batch = [int(i) for i in order if residencies.from_ns[i] < first_end]
    ends = residencies.to_ns[batch]
    distinct, counts = np.unique(ends, return_counts=True)
    if len(distinct) < 2:
        raise TraceError(run.trace.path, "the requests of its first batch do not end one after another")
    remaining = len(batch) - np.cumsum(counts)[:-1]
    # The longest stretch in which few slots write; with many slots several can end in one step.
    few = remaining <= max(2, run.trace.header.slots // 4, int(remaining.min()))
    stretch = int(np.argmax(np.where(few, np.diff(distinct), -1)))
    tokens = [run.timeline.token_times_of(int(residencies.request[i])) for i in batch]
    begin_ns = max((times[0] for times in tokens if times), default=first_end)
    few_ns, until = int(distinct[stretch]), int(distinct[stretch + 1])
    later_ns = few_ns + round((until - few_ns) * 0.8)
    slots = tuple(int(residencies.slot[i]) for i in batch)
    return _FirstBatch(slots, min(begin_ns, first_end), few_ns, later_ns)


@scene("two_of_eight", order=0, films=(CONTINUOUS_BATCHING,), needs=("static", "continuous"))
def two_of_eight(show: Show) -> Beat:
    """The beat of the static run's first batch. Raises TraceError where there is none that empties."""
    return _ColdOpen(show).beat()


class _ColdOpen:
    """The clock, the places, and what is drawn when."""

    def __init__(self, show: Show):
        self.show, self.stage, self.say = show, show.stage, show.say.say
        self.run, self.other = show.run("static"), show.run("continuous")
        require_comparable([self.run.trace, self.other.trace])
        self.batch = batch = first_batch(self.run)
        one = measure("are_of_one_engine", [self.run, self.other]).value
        self.claim = "claim" if one else "claim_of_engines"
        self.few = self._few()
        few_s = max(_FEW_S, _FEW_SAID_S + reading_s(self.few))
        script = Script(batch.begin_ns).run(batch.few_ns, _EMPTYING_S).run(batch.later_ns, few_s)
        self.move_s = script.film_s
        self.clock = script.hold(_TITLE_S).clock()
        self.handover = self._handover()
        slots = self._shown_slots()
        colours = show.colours()
        self.rows = AnswerRows(self.run, self.clock, show.say, colours, slots)
        self.queue = QueueStack(self.run, show.say, colours)
        self.map = SlotMap(self.run, colours, slots) if len(slots) < self.run.trace.header.slots else None

    def _handover(self) -> Handover | None:
        """The continuous run's first handover, where it is the next in line here too that takes a slot that is idle."""
        found = first_handover(self.other.trace)
        state = self.run.timeline.at(self.batch.later_ns)
        if found is None or not state.waiting or state.waiting[0] != found.came:
            return None
        return found if state.occupancy[found.slot] is None else None

    def _shown_slots(self) -> list[int]:
        """As many slots as there are rows for, spread over the order in which they end, the one that is retaken too."""
        ending = list(self.batch.slots)
        if len(ending) <= _MOST_ROWS:
            return sorted(ending)
        picked = [ending[round(i * (len(ending) - 1) / (_MOST_ROWS - 1))] for i in range(_MOST_ROWS)]
        if self.handover is not None and self.handover.slot not in picked:
            picked[0] = self.handover.slot
        return sorted(picked)

    def _few(self) -> Phrase:
        """How few slots still write, while how many requests wait."""
        counted = {
            place: figure(self.run.measure(query, t_ns=self.batch.later_ns), ",d")
            for place, query in (("few", "running"), ("waiting", "waiting"))
        }
        return self.say("two_of_eight.few", slots=figure(self.run.measure("slots")), **counted)

    def beat(self) -> Beat:
        """All of it."""
        say, run = self.say, self.run
        slots = figure(run.measure("slots"))
        if self.map is None:
            captions = [Caption(0.0, say("two_of_eight.rows", slots=slots))]
        else:
            shown = figure(run.measure("slots_drawn", which=slot_ranges(self.rows.slots)))
            captions = [Caption(0.0, say("two_of_eight.some_rows", slots=slots, shown=shown))]
        if refill(run.trace) is Refill.CLOSED:
            captions.append(Caption(4.8, say("two_of_eight.closed")))
        captions.append(Caption(_EMPTYING_S + _FEW_SAID_S, self.few))
        if self.handover is not None:
            captions.append(Caption(self.move_s, say("two_of_eight.moves")))
        name = say("two_of_eight.name")
        return Beat(
            "two_of_eight",
            name,
            tuple(captions),
            self.clock,
            (run, self.other),
            self.paint,
            still_s=self.move_s - 0.4,
            titled_s=self.move_s + _MOVE_S,
        )

    def places(self) -> tuple[Box, Box]:
        """Where the queue and the rows stand."""
        content = self.stage.content
        if self.stage.shape is Shape.TALL:
            rows, queue = content.shares((62, 38), 44)
            return queue, rows
        queue, rows = content.columns((30, 70) if self.stage.wide else (34, 66), 44)
        return queue, rows

    def paint(self, canvas: Canvas, film_s: float) -> None:
        """Draw queue, rows, counter and, at last, the title."""
        t_ns = self.clock.engine_ns(film_s)
        queue, rows = self.places()
        moved = ease((film_s - self.move_s) / _MOVE_S)
        came = self.handover.came if self.handover is not None and moved else None
        self.queue.paint(canvas, queue, t_ns, without=came)
        head = COUNTED + (_MAP + 18 if self.map is not None else 0)
        if self.map is not None:
            self.map.paint(canvas, Box(rows.x, rows.y + COUNTED, rows.w, _MAP), t_ns)
        lanes = Box(rows.x, rows.y + head, rows.w, rows.h - head)
        self._head(canvas, rows, t_ns)
        self.rows.paint(canvas, lanes, film_s)
        if self.handover is not None and came is not None:
            goal = self.rows.boxes(lanes)[self.rows.slots.index(self.handover.slot)]
            with canvas.moving():
                self.queue.paint_card(canvas, self.queue.card(queue, 0).towards(goal, moved), came)
        self._title(canvas, film_s)

    def _head(self, canvas: Canvas, box: Box, t_ns: int) -> None:
        """How many slots are shown and write, and the count of what was idle while requests waited."""
        say, run = self.say, self.run
        idle = figure(run.measure("idle_while_waiting", t_ns=t_ns), ",d")
        y = box.y + HEADING_LINE
        counted = say("two_of_eight.idle_while_waiting")
        number = canvas.text(idle, box.right, y + 6, FIGURE, TEXT, align=1)
        label = min(width(counted.text, SMALL_STRONG), box.w * 0.5)
        left = box.right - number - 20 - label
        canvas.text(counted, left, y, SMALL_STRONG, DIM, room=label)
        canvas.box(left - BEFORE_WORDS, y - 21, SWATCH, SWATCH, IDLE_SLOT)
        writing = say(
            "two_of_eight.writing",
            running=figure(run.measure("running", t_ns=t_ns)),
            slots=figure(run.measure("slots")),
        )
        if box.x + width(writing.text, HEADING) < left - 60:
            canvas.text(writing, box.x, y, HEADING, TEXT)

    def _title(self, canvas: Canvas, film_s: float) -> None:
        """The film's name lands on the move."""
        since = film_s - self.move_s - _MOVE_S
        veil = ease(since / 0.7)
        if veil <= 0:
            return
        stage, brand = self.stage, self.show.settings.brand
        content = stage.content
        canvas.box(0, content.y - 20, stage.width, content.h + 40, GROUND, _VEIL * veil)
        name: Phrase = brand.title or self.say("title.name")
        claim: Phrase = brand.claim or self.say(f"title.{self.claim}")
        style = Type(HUGE.size * (1.0 if stage.wide else 0.78), HUGE.weight)
        lines = (name.text,) if stage.wide else tuple(wrap(name.text, style, content.w))
        widest = max(width(line, style) for line in lines)
        style = Type(style.size * min(1.0, content.w / widest), style.weight)
        shown = ease((since - 0.15) / 0.7)
        top = content.y + content.h * 0.46 - (len(lines) - 1) * style.size * 0.55
        for i, line in enumerate(lines):
            y = top + i * style.size * 1.08 + 24 * (1 - shown)
            canvas.text(name, content.x, y, style, TEXT, shown, part=line)
        below = top + (len(lines) - 1) * style.size * 1.08 + 78
        canvas.text(claim, content.x, below, CAPTION, ACCENT, ease((since - 0.6) / 0.6), room=content.w)
        if brand.logo:
            canvas.image(brand.logo, (content.x, content.y, content.w, 110), shown)
