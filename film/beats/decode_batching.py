"""Decode batching: slots against time, a token a cell, and what a freed slot is worth.

What the viewer should understand: a batch is a table whose rows are slots and whose columns are steps. Beat one: close
up, each step writes one token in every row. Beat two: a request ends; its row is not lost, in the very next step it
belongs to another one. Beat three: from afar, above the same requests in static batches, on the same clock, where
rows stay empty until the longest member of the batch has ended; the empty slot-steps of both are counted.
"""

from bisect import bisect_left
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from tracereel.film.beat import Beat, Caption
from tracereel.film.beats.stretch import stretch_of_slots
from tracereel.film.canvas import Canvas
from tracereel.film.clock import Script, ease
from tracereel.film.components.legend import legend_width, paint_legend, slot_colours
from tracereel.film.components.seen import stays_of
from tracereel.film.components.slot_grid import SlotGrid
from tracereel.film.lettering import width, wrap
from tracereel.film.phrases import EMPTY, Phrase, figure, quote
from tracereel.film.registry import CONTINUOUS_BATCHING, FULL_LENGTH, scene
from tracereel.film.rounding import seconds_figure
from tracereel.film.show import Show
from tracereel.film.stage import Box, Shape, Spot
from tracereel.film.step_axis import StepView
from tracereel.film.theme import (
    APART,
    BEFORE_WORDS,
    BODY,
    COUNTED,
    DIM,
    GROUND,
    HEADING,
    IDLE_SLOT,
    IN_ROW,
    OVER_PANEL,
    SMALL,
    SMALL_STRONG,
    SWATCH,
    TEXT,
    Letters,
    Type,
    case_colour,
)
from tracereel.film.time_axis import View
from tracereel.trace.analysis.batching_facts import Refill, refill
from tracereel.trace.analysis.comparable import require_comparable
from tracereel.trace.analysis.moments import even_handover
from tracereel.trace.analysis.queries import Run, measure, slot_ranges

PULL_S = 2.0
_CLOSE_STEPS = {Shape.WIDE: 13, Shape.TALL: 7, Shape.SQUARE: 7}
"""Steps in view close up."""
_CLOSE_SLOTS = 8
"""Most slots in view close up: more could not be lettered."""
_BEFORE, _AFTER = 10, 4
"""Steps that are seen one by one before a slot is retaken, and after it."""
_EARLY = 0.15
"""The share of the run by which that happens, so that most of the run is seen from afar."""
_BETWEEN = 34.0
"""Between the panels of the two runs."""
_LEGEND_AT = 0.3
"""Where the legend begins, as a share of the width."""
_UNDER = 40.0
"""What the legend takes under the slots in a frame that is not wide: its heads have no room for it."""
_LEGEND_OVER = 6.0
"""From the baseline of that legend to the lower edge of the scene's place."""
_BESIDE_STEP = 22.0
"""Units between the newest step and the names of the requests."""
_MOST_LINES, _LINE = 4, 44.0


class _Line(NamedTuple):
    """A line of a phrase, as strongly as it is seen."""

    phrase: Phrase
    part: str
    style: Type
    shown: float


def _fit(lines: list[_Line]) -> bool:
    return len(lines) <= _MOST_LINES and not any("…" in line.part for line in lines)


@scene("decode_batching", order=20, films=(CONTINUOUS_BATCHING, FULL_LENGTH), stretch=stretch_of_slots)
def decode_batching(show: Show) -> Beat:
    """The beat of the continuous run, with the static run of the same requests where there is one."""
    return Storyboard(show).beat()


def handover_of(run: Run) -> dict[str, int]:
    """Which handover of a run is seen close up: what `even_handover`, and the query `handover_request`, are asked."""
    timeline = run.timeline
    early_ns = timeline.begin_ns + round((timeline.end_ns - timeline.begin_ns) * _EARLY)
    slots = min(run.trace.header.slots, _CLOSE_SLOTS)
    return {"slots": slots, "before": _BEFORE, "after": _AFTER, "until_ns": early_ns}


class Storyboard:
    """The clock, the views, and what is drawn when."""

    def __init__(self, show: Show):
        self.show, self.stage, self.say = show, show.stage, show.say.say
        self.case = show.recordings.preferred("continuous", "online")
        self.run = show.run(self.case)
        paired = self.case == "continuous" and show.recordings.has("static")
        self.static = show.run("static") if paired else None
        require_comparable([run.trace for run in self._runs])
        self.colours = show.colours()
        self.grid = SlotGrid(self.run, show.say, self.colours)
        self.static_grid = SlotGrid(self.static, show.say, show.colours()) if self.static else None
        self.close_slots = min(self.grid.slots, _CLOSE_SLOTS)
        steps, self.begin_ns = self.run.trace.steps, self.run.timeline.begin_ns
        self.last = len(steps) - 1
        self.step_ends: list[int] = np.sort(steps.end_ns).tolist() or [self.begin_ns + 1]
        self.handover = even_handover(self.run.trace, **handover_of(self.run))
        # Both runs on one clock: each counts from its own beginning.
        spans = [run.timeline.end_ns - run.timeline.begin_ns for run in self._runs]
        self.end_ns = self.begin_ns + max(*spans, 1)
        self._write_script()
        self.far = View(self.begin_ns, self.begin_ns + (self.end_ns - self.begin_ns) * 1.01)

    @property
    def _runs(self) -> tuple[Run, ...]:
        return (self.run, self.static) if self.static else (self.run,)

    def _step_end(self, step: int) -> int:
        """When a step ended, or the last one; the run's beginning where it has none."""
        return int(self.run.trace.steps.end_ns[min(step, self.last)]) if self.last >= 0 else self.begin_ns

    def _write_script(self) -> None:
        handover = self.handover
        first = max(handover.taken_step - _BEFORE, 0) if handover is not None else 0
        script = Script(self._step_end(first - 1) if first else self.begin_ns)
        self.step_s = 3.0
        if handover is None:
            script.run(self._step_end(4), 6.0)
        self.ends_s = self.retaken_s = script.film_s
        if handover is not None:
            script.run(handover.ended_ns, 7.5).hold(1.1)
            self.ends_s, self.retaken_s = 7.5, script.film_s
            script.run(self._step_end(handover.taken_step), 1.2).hold(1.4)
            script.run(self._step_end(handover.taken_step + _AFTER), 1.4)
        self.pull_s = script.film_s
        script.run(min(script.at_ns + (self.end_ns - self.begin_ns) // 40, self.end_ns), PULL_S)
        self.same_s = script.film_s
        script.run(self.end_ns, 6.2)
        self.verdict_s = script.film_s - 0.6
        script.hold(2.4)
        self.clock = script.clock()

    def _captions(self) -> tuple[Caption, ...]:
        say, run = self.say, self.run
        each = measure("each_decode_gives_a_token", self._runs)
        captions = [
            Caption(0.0, say("decode_batching.row", slots=figure(run.measure("slots")))),
            Caption(self.step_s, say(f"decode_batching.{'step' if each.value else 'column'}")),
        ]
        if self.handover is not None:
            left, came = (
                quote(run.measure("request_name", request=request))
                for request in (self.handover.left, self.handover.came)
            )
            captions.append(Caption(self.ends_s, say("decode_batching.ends", first=left)))
            captions.append(Caption(self.retaken_s, say("decode_batching.retaken", first=left, second=came)))
        if self.static is None:
            idle = figure(run.measure("idle_while_waiting", t_ns=run.timeline.end_ns), ",d")
            captions.append(
                Caption(self.pull_s, say(f"decode_batching.{'as_recorded' if run.trace.faulty else 'whole'}"))
            )
            captions.append(Caption(self.verdict_s, say("decode_batching.verdict_alone", idle=idle)))
        else:
            same = "same" if measure("are_of_one_engine", self._runs).value else "same_requests"
            captions.append(Caption(self.pull_s, say(f"decode_batching.{same}")))
            if refill(self.static.trace) is Refill.CLOSED:
                captions.append(Caption(self.same_s + 1.2, say("decode_batching.static_is")))
            captions.append(Caption(self.verdict_s, self._verdict(self.static)))
        return tuple(captions)

    def _verdict(self, static: Run) -> Phrase:
        """Which of both runs was done first, as it is printed."""
        runs = {key: self._seconds(run) for key, run in (("continuous", self.run), ("static", static))}
        first, other = sorted(runs, key=lambda key: float(runs[key].text))
        if runs[first].text == runs[other].text:
            return self.say("decode_batching.as_long", seconds=runs[first])
        return self.say(f"decode_batching.{first}_first", first=runs[first], second=runs[other])

    def _seconds(self, run: Run) -> Phrase:
        """How long a run took, in seconds."""
        return seconds_figure(run.measure("duration_s"))

    def beat(self) -> Beat:
        """All of it."""
        return Beat(
            "decode_batching",
            self.say("decode_batching.name"),
            self._captions(),
            self.clock,
            self._runs,
            self.paint,
            still_s=self.clock.film_s - 0.2,
            where=self.where,
        )

    def _view(self, now_ns: int, pulled: float) -> View:
        """Close up the newest steps, one a column; pulled back the whole of both runs, along time."""
        if pulled == 1:
            return self.far
        columns, ends = _CLOSE_STEPS[self.stage.shape], self.step_ends
        step = min(bisect_left(ends, now_ns), len(ends) - 1)
        begin = ends[step - 1] if step else self.begin_ns
        reached = step + min((now_ns - begin) / max(ends[step] - begin, 1), 1.0)
        return StepView.of_steps(ends, max(reached - columns + 1.5, 0.0), columns, self.far, pulled)

    def _places(self, pulled: float) -> tuple[Box, Box, Box]:
        """Where the static run stands and where the continuous run does in the end, and where that is now."""
        content = self.stage.content
        head = COUNTED if self.stage.shape is not Shape.SQUARE else 54.0
        high = content.h - (0.0 if self.stage.wide else _UNDER)
        half = (high - 2 * head - _BETWEEN) / 2
        above = Box(content.x, content.y + head, content.w, half)
        full = Box(content.x, content.y + head, content.w, high - head)
        below = Box(content.x, above.bottom + _BETWEEN + head, content.w, half) if self.static else full
        return above, below, full.towards(below, pulled)

    def _pulled(self, film_s: float) -> tuple[float, float, float]:
        """How far the picture is pulled back, how many slots are in view, and how much is seen of the static run."""
        pulled = ease((film_s - self.pull_s) / PULL_S)
        shown = self.close_slots * (self.grid.slots / self.close_slots) ** pulled
        # It comes once the other has made room.
        return pulled, shown, ease((film_s - self.pull_s) / PULL_S * 4 - 3.28)

    def where(self, run: Run, request: int, film_s: float) -> list[Spot]:
        """A request's stays in both grids."""
        now_ns = self.clock.engine_ns(film_s)
        pulled, shown, come = self._pulled(film_s)
        above, _, box = self._places(pulled)
        if run is self.run:
            return stays_of(self.grid, request, box, self._view(now_ns, pulled), now_ns, shown)
        if self.static_grid is None or run is not self.static:
            return []
        shift = run.timeline.begin_ns - self.begin_ns
        stays = stays_of(self.static_grid, request, above, self.far.shifted(shift), now_ns + shift)
        return [replace(spot, alpha=come) for spot in stays]

    def paint(self, canvas: Canvas, film_s: float) -> None:
        """Draw the grids at a second of film."""
        now_ns = self.clock.engine_ns(film_s)
        pulled, shown, come = self._pulled(film_s)
        above, below, box = self._places(pulled)
        view = self._view(now_ns, pulled)
        if self.static and self.static_grid:
            with canvas.faded(come):
                shift = self.static.timeline.begin_ns - self.begin_ns
                self._head(canvas, above, self.static, now_ns + shift, self.static_grid, self.static_grid.slots)
                self.static_grid.paint(canvas, above, self.far.shifted(shift), now_ns + shift)
        self._head(canvas, box, self.run, now_ns, self.grid, shown)
        self.grid.paint(canvas, box, view, now_ns, shown)
        with canvas.faded(ease((self.pull_s - film_s) / 0.4)):
            self._holders(canvas, box, view, film_s)
        if pulled == 1:
            self._done(canvas, above, below, now_ns, film_s)
        if not self.stage.wide:
            entries = slot_colours(self.show.say, banded=self.grid.merged(box, shown) > 1)
            paint_legend(canvas, box.x, self.stage.content.bottom - _LEGEND_OVER, entries)
        frame, seen = self._spotlight(box, view, film_s)
        if seen:
            canvas.card(*frame.sides, TEXT, seen, radius=10, outline=4)

    def _head(self, canvas: Canvas, box: Box, run: Run, now_ns: int, grid: SlotGrid, shown: float) -> None:
        """What stands above a run's slots, of which the first `shown` are in view."""
        say, y, key = self.say, box.y - OVER_PANEL, "static" if run is self.static else "continuous"
        # Bands are of all slots, while the view is still on its way to them.
        banded = grid.merged(box, shown) > 1
        note = self._merged(grid, box) if banded or shown >= grid.slots else self._windowed(grid.drawn(shown))
        name = say(f"decode_batching.{key}") if self.static else self.show.case_name(self.case, run)
        wide = canvas.text(name, box.x, y, HEADING, case_colour(key), room=box.w * 0.4)
        idle = say("decode_batching.idle", count=figure(run.measure("idle_while_waiting", t_ns=now_ns), ",d"))
        tokens = say("decode_batching.tokens", count=figure(run.measure("output_tokens", t_ns=now_ns), ",d"))
        beside = canvas.text(idle, box.right, y, SMALL_STRONG, DIM, align=1)
        canvas.box(box.right - beside - BEFORE_WORDS, y - 20, SWATCH, SWATCH, IDLE_SLOT)
        left, right = box.x + wide + APART, box.right - max(beside + 60, 390 if self.stage.wide else 350)
        # How many slots are meant comes before how many tokens there are.
        if note.text and left + width(note.text, SMALL) <= box.right - beside - 60:
            left += APART + canvas.text(note, left, y, SMALL, DIM)
        if left + width(tokens.text, SMALL_STRONG) <= right:
            right -= canvas.text(tokens, right, y, SMALL_STRONG, TEXT, align=1)
            if self.stage.wide:
                self._legend(canvas, Box(left, y, right - APART - left, 0.0), box, banded)

    def _legend(self, canvas: Canvas, room: Box, box: Box, banded: bool) -> None:
        """What the colours are that are no request's, on the line of the head, where there is room for all of it."""
        entries = slot_colours(self.show.say, banded=banded)
        # In one place, whatever the words before it become.
        x = max(box.x + box.w * _LEGEND_AT, room.x)
        if x + legend_width(entries) <= room.right:
            paint_legend(canvas, x, room.y, entries)

    def _windowed(self, drawn: range) -> Phrase:
        """How many of the slots are in view."""
        count = figure(self.run.measure("slots_drawn", which=slot_ranges(drawn)))
        slots = figure(self.run.measure("slots"))
        return self.say("decode_batching.windowed", shown=count, slots=slots)

    def _merged(self, grid: SlotGrid, box: Box) -> Phrase:
        """How many slots a band stands for, where rows are merged into bands."""
        each = grid.merged(box)
        if each == 1:
            return EMPTY
        count = figure(self.run.measure("slots_drawn", which=slot_ranges(grid.drawn(each))))
        if not (left := grid.slots % each):
            return self.say("decode_batching.merged", count=count)
        rest = figure(self.run.measure("slots_drawn", which=slot_ranges(grid.drawn()[-left:])))
        return self.say("decode_batching.merged_uneven", count=count, rest=rest)

    def _done(self, canvas: Canvas, above: Box, below: Box, now_ns: int, film_s: float) -> None:
        """After the end of the run that ends first: that it is through, and later by how much, where there is room."""
        spans = {run: run.timeline.end_ns - run.timeline.begin_ns for run in self._runs}
        run = min(spans, key=lambda run: spans[run])
        box, end_ns, view = (above if run is self.static else below), self.begin_ns + spans[run], self.far
        if len(run.trace.arrivals) != run.timeline.at(run.timeline.end_ns).num_finished:
            return
        x = view.along(box).x(end_ns)
        requests = figure(run.measure("finished", t_ns=run.timeline.end_ns))
        phrase = self.say("decode_batching.done", requests=requests, seconds=self._seconds(run))
        shown = ease((now_ns - end_ns) / (0.02 * (view.to_ns - view.from_ns)))
        room = max(box.right - x - 60, 1)
        said = [_Line(phrase, part, BODY, max(2 * shown - 1, 0.0)) for part in wrap(phrase.text, BODY, room)]
        if shown <= 0 or not _fit(said):
            return
        takes = self._takes(run)
        if takes is not None:
            later = ease((film_s - self.clock.film_second(self.end_ns)) / 0.6)
            both = [*said, *(_Line(takes, part, HEADING, later) for part in wrap(takes.text, HEADING, room))]
            said = both if _fit(both) else said
        # The words come when what was in their place has gone.
        canvas.box(x + 4, box.y - 2, box.right - x, box.h + 4, GROUND, min(2 * shown, 1.0))
        top = box.y + box.h / 2 + 10 - (len(said) - 1) * _LINE / 2
        for i, line in enumerate(said):
            canvas.text(line.phrase, x + 28, top + i * _LINE, line.style, TEXT, line.shown, part=line.part)

    def _takes(self, first: Run) -> Phrase | None:
        """How many times as long the other run takes; None where that does not follow from both times as printed."""
        if self.static is None:
            return None
        other, key = (self.static, "static") if first is self.run else (self.run, "continuous")
        ratio = figure(measure("duration_ratio", [first, other]), ".1f")
        printed = float(self._seconds(other).text) / float(self._seconds(first).text)
        return self.say(f"decode_batching.{key}_takes", ratio=ratio) if f"{printed:.1f}" == ratio.text else None

    def _holders(self, canvas: Canvas, box: Box, view: View, film_s: float) -> None:
        """Close up: whose row each is, right of the newest step, and right of the frame around the freed slot."""
        now_ns = self.clock.engine_ns(film_s)
        occupancy = self.run.timeline.at(now_ns).occupancy
        newest, (frame, shown) = view.along(box).x(now_ns) + _BESIDE_STEP, self._spotlight(box, view, film_s)
        rows = self.grid.rows(box, self.close_slots)
        for slot, (row, occupant) in enumerate(zip(rows, occupancy, strict=False)):
            if occupant is not None:
                name = quote(self.run.measure("request_name", request=occupant.request))
                colour, x = Letters(self.colours[occupant.request]), newest
                if self.handover is not None and slot == self.handover.slot:
                    # It has given way before the frame is seen.
                    x += max(frame.right + _BESIDE_STEP - x, 0.0) * min(4 * shown, 1.0)
                canvas.text(name, x, row.y + row.h / 2 + IN_ROW, SMALL_STRONG, colour, room=max(box.right - x, 1))

    def _spotlight(self, box: Box, view: View, film_s: float) -> tuple[Box, float]:
        """The frame around the slot that is freed and retaken, and how much of it is seen."""
        handover = self.handover
        if handover is None:
            return box, 0.0
        steps = self.run.trace.steps
        before = handover.taken_step - 1
        begin, end = int(steps.start_ns[before]), int(steps.end_ns[handover.taken_step])
        occupant = self.grid.residency_box(box, view, handover.slot, begin, end, self.close_slots)
        shown = min(ease((film_s - self.ends_s - 0.6) / 0.4), ease((self.pull_s - film_s) / 0.5))
        return occupant.grown(5), max(shown, 0.0)
