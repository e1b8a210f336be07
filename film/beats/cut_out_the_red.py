"""Cut out the red: what refilling slots gives, shown by moving every request to where the continuous run had it.

What the viewer should understand: the idle slot-steps of static batching are the time that continuous batching saves.
Beat one: the whole static run; what was idle while requests waited is red. Beat two: each request moves to its measured
place in the continuous run, the red falls out, and the end moves with it. Beat three: what that costs, and by how much
the throughput changed, on which machine.
"""

from tracereel.film.beat import Beat, Caption
from tracereel.film.canvas import Canvas
from tracereel.film.clock import Script, ease
from tracereel.film.components.rearranged import LEAST_ROW, Rearranged
from tracereel.film.components.slot_grid import SlotGrid
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrase, figure, quote
from tracereel.film.reading import reading_s
from tracereel.film.registry import CONTINUOUS_BATCHING, scene
from tracereel.film.rounding import ms_style, seconds_figure
from tracereel.film.show import Show
from tracereel.film.stage import Box, Shape
from tracereel.film.theme import (
    BODY,
    CONTINUOUS,
    DIM,
    FIGURE,
    HEADED,
    HEADING,
    HUGE,
    LIGHT,
    LINE,
    SMALL,
    SMALL_STRONG,
    STATIC,
    STRONG,
    TEXT,
    Type,
)
from tracereel.film.time_axis import View
from tracereel.trace.analysis.comparable import require_comparable
from tracereel.trace.analysis.pairs import throughput_ratio
from tracereel.trace.analysis.queries import Run

_PLAY_S, _WHOLE_S, _MOVE_S, _EDGE_S, _COST_S, _NUMBER_S = 2.6, 4.4, 3.6, 1.0, 4.2, 6.0
"""The static run plays within the first of these seconds; then the stages last so long, one after the other."""

_DOTS_S = 3.0
"""Within so many seconds each pair of runs has its dot: nothing else moves then."""
_OVER_GRID = 22.0
"""From the baseline of what stands above the grid to the grid."""
_MACHINE = Type(46, 600)


@scene("cut_out_the_red", order=35, films=(CONTINUOUS_BATCHING,), needs=("static", "continuous"))
def cut_out_the_red(show: Show) -> Beat:
    """The beat of the static and the continuous run. Raises TraceError or NotComparableError where they are not two."""
    return _CutOut(show).beat()


class _CutOut:
    """The clock, the places, and what is drawn when."""

    def __init__(self, show: Show):
        self.show, self.stage, self.say = show, show.stage, show.say.say
        self.static, self.continuous = show.run("static"), show.run("continuous")
        self.before, self.after = show.runs("static"), show.runs("continuous")
        require_comparable([run.trace for run in (*self.before, *self.after)], across=("policy",))
        colours = show.colours()
        grids = SlotGrid(self.static, show.say, colours), SlotGrid(self.continuous, show.say, colours)
        self.static_grid = grids[0]
        coloured = self.places()[0].h / self.static.trace.header.slots >= LEAST_ROW
        self.grid = Rearranged(self.static, self.continuous, grids, colours, coloured=coloured)
        self.pairs = throughput_ratio([r.trace for r in self.after], [r.trace for r in self.before]).pairs
        self.step_ms = [run.measure("step_ms", part="mean") for run in (self.static, self.continuous)]
        self.cost = self._cost()
        self.move_s = _WHOLE_S
        self.edge_s = self.move_s + _MOVE_S
        self.cost_s = self.edge_s + _EDGE_S
        self.number_s = self.cost_s + _COST_S
        timeline = self.static.timeline
        self.ratio = self._ratio_said()
        until_s = self.number_s + max(_NUMBER_S, reading_s(self.ratio))
        self.clock = Script(timeline.begin_ns).run(timeline.end_ns, _PLAY_S).hold(until_s - _PLAY_S).clock()

    def _ratio(self, part: str) -> Phrase:
        style = "" if part == "pairs" else ".2f"
        return self.show.ask(f"throughput_ratio_{part}", self.after, self.before, style)

    def _idle(self, run: Run) -> Phrase:
        return figure(run.measure("idle_while_waiting", t_ns=run.timeline.end_ns), ",d")

    def _end(self, run: Run) -> Phrase:
        return self.say("cut_out_the_red.end", seconds=seconds_figure(run.measure("duration_s")))

    def beat(self) -> Beat:
        """All of it."""
        say = self.say
        # What is idle is red on the dark ground alone.
        ground = "_light" if self.show.palette.name == LIGHT.name else ""
        captions = [
            Caption(0.0, say(f"cut_out_the_red.whole{ground}", count=self._idle(self.static))),
            Caption(self.move_s - 0.2, say("cut_out_the_red.moves")),
        ]
        if self.cost is not None:
            captions.append(Caption(self.cost_s, self.cost))
        captions.append(Caption(self.number_s, self.ratio))
        name = say(f"cut_out_the_red.name{ground}")
        shown = (self.static, self.continuous)
        return Beat("cut_out_the_red", name, tuple(captions), self.clock, shown, self.paint, still_s=self.edge_s - 1.6)

    def _ratio_said(self) -> Phrase:
        """By how much, and on which machine."""
        said = {"ratio": self._ratio("median"), "device": quote(self.continuous.measure("device"))}
        if not self.pairs:
            return self.say("cut_out_the_red.ratio", **said)
        return self.say("cut_out_the_red.ratio_pairs", pairs=self._ratio("pairs"), **said)

    def _cost(self) -> Phrase | None:
        """That fuller steps take longer, where they do; what steps take, where they are fuller and take no longer."""
        batch = [float(run.measure("mean_batch").value) for run in (self.static, self.continuous)]
        if batch[1] <= batch[0]:
            return None
        static, continuous = self.step_ms
        longer = float(continuous.value) > float(static.value)
        return self.say(
            f"cut_out_the_red.{'steps_longer' if longer else 'steps'}",
            static=figure(static, ms_style(static)),
            continuous=figure(continuous, ms_style(continuous)),
        )

    def places(self) -> tuple[Box, Box, Box]:
        """Where the grid, the bar of what fell out, and the last number stand."""
        content = self.stage.content
        share = (56, 44) if self.stage.shape is not Shape.TALL else (52, 48)
        above, below = content.shares(share, 70)
        grid = Box(above.x, above.y + HEADED, above.w, above.h - HEADED)
        bar = Box(below.x, below.y + 58, below.w * 0.72, min(below.h * 0.2, 64.0))
        return grid, bar, below

    def grid_at(self, film_s: float) -> Box:
        """The grid's place: all of the frame until the move begins."""
        content = self.stage.content
        full = Box(content.x, content.y + HEADED, content.w, content.h - HEADED)
        return full.towards(self.places()[0], ease((film_s - self.move_s + 0.9) / 0.9))

    def paint(self, canvas: Canvas, film_s: float) -> None:
        """Draw the grid on its way, and what is counted below it."""
        _, bar, below = self.places()
        grid = self.grid_at(film_s)
        moved = min(max((film_s - self.move_s) / _MOVE_S, 0.0), 1.0)
        edge = ease((film_s - self.edge_s + 1.4) / (_EDGE_S + 1.4))
        number = ease((film_s - self.number_s) / 0.8)
        if film_s < _PLAY_S:
            self._play(canvas, grid, film_s)
            return
        cost = ease((film_s - self.cost_s) / 0.6) if self.cost is not None else 0.0
        # What stands in the same place comes when this has gone.
        pile = 1 - min(max(cost, number) * 2, 1.0)
        self._ends(canvas, grid, edge)
        with canvas.faded(1 - 0.75 * number):
            self.grid.paint(canvas, grid, bar, moved, edge, pile)
        if number < 1:
            with canvas.faded(pile):
                self._counts(canvas, bar, moved)
            with canvas.faded(max(cost * 2 - 1, 0.0) * (1 - min(number * 2, 1.0))):
                self._steps(canvas, below, film_s - self.cost_s)
        if number > 0.5:
            with canvas.faded(number * 2 - 1):
                self._number(canvas, below, film_s - self.number_s - 0.4)

    def _play(self, canvas: Canvas, grid: Box, film_s: float) -> None:
        """The static run as it fills, on the scale that both runs share."""
        canvas.text(self.say("decode_batching.static"), grid.x, grid.y - _OVER_GRID, HEADING, STATIC)
        begin = self.static.timeline.begin_ns
        span = max(run.timeline.end_ns - run.timeline.begin_ns for run in (self.static, self.continuous))
        self.static_grid.paint(canvas, grid, View(begin, begin + max(span, 1)), self.clock.engine_ns(film_s))

    def _steps(self, canvas: Canvas, box: Box, since_s: float) -> None:
        """What a step takes on average in both runs, as bars on one scale."""
        if self.cost is None:
            return
        longest = max(float(value.value) for value in self.step_ms)
        names = [self.say(f"decode_batching.{key}") for key in ("static", "continuous")]
        left = max(width(name.text, HEADING) for name in names) + 32
        canvas.text(self.say("cut_out_the_red.mean_step"), box.x, box.y + 40, BODY, DIM, room=box.w)
        rows = Box(box.x, box.y + 66, box.w, min(box.h - 66, 190.0)).rows(2, 22)
        styles = STATIC, CONTINUOUS
        for row, name, value, colour in zip(rows, names, self.step_ms, styles, strict=True):
            y = row.y + row.h / 2 + 13
            canvas.text(name, row.x, y, HEADING, colour)
            grown = (row.w - left - 240) * float(value.value) / longest * ease((since_s - 0.3) / 1.6)
            canvas.box(row.x + left, row.y, max(grown, 2), row.h, colour)
            said = self.say("latency.ms", value=figure(value, ms_style(value)))
            canvas.text(said, row.x + left + grown + 22, y, HEADING, TEXT)

    def _ends(self, canvas: Canvas, grid: Box, edge: float) -> None:
        """The name of the run that is seen, and when it ended, at its edge."""
        y, x = grid.y - _OVER_GRID, self.grid.end_x(grid, edge)
        for run, key, colour, alpha in (
            (self.static, "static", STATIC, 1 - min(edge * 2, 1.0)),
            (self.continuous, "continuous", CONTINUOUS, max(edge * 2 - 1, 0.0)),
        ):
            if alpha <= 0:
                continue
            name, end = self.say(f"decode_batching.{key}"), self._end(run)
            wide = canvas.text(name, grid.x, y, HEADING, colour, alpha)
            half = width(end.text, STRONG) / 2
            at = min(max(x, grid.x + wide + 40 + half), grid.right - half)
            canvas.text(end, at, y, STRONG, TEXT, alpha, align=0.5)

    def _counts(self, canvas: Canvas, bar: Box, moved: float) -> None:
        """The bar's count, and what is left in the continuous run."""
        shown = ease((moved - 0.96) / 0.04)
        if shown <= 0:
            return
        with canvas.faded(shown):
            label = self.say("cut_out_the_red.fell")
            canvas.text(label, bar.x, bar.y - 18, SMALL, DIM, room=bar.w)
            canvas.text(self._idle(self.static), bar.right + 28, bar.y + bar.h / 2 + 22, FIGURE, TEXT)
            left = self.say("cut_out_the_red.left", count=self._idle(self.continuous))
            canvas.text(left, bar.x, bar.bottom + 56, BODY, TEXT, room=bar.w)

    def _number(self, canvas: Canvas, box: Box, since_s: float) -> None:
        """The ratio, its pairs as dots, and the machine in words."""
        ratio = self.say("throughput_comparison.times", ratio=self._ratio("median"))
        size = min(HUGE.size, box.h * 0.5)
        style = Type(size, HUGE.weight)
        base = box.y + size * 0.86 + 10
        wide = canvas.text(ratio, box.x, base, style, TEXT)
        device = quote(self.continuous.measure("device"))
        canvas.text(device, box.x, base + 70, _MACHINE, TEXT, room=box.w)
        model = quote(self.continuous.measure("model"))
        canvas.text(model, box.x, base + 118, SMALL, DIM, room=box.w)
        left = box.x + wide + 70
        if box.right - left > 260:
            self._dots(canvas, Box(left, base - size * 0.42, box.right - left, 60), since_s)

    def _dots(self, canvas: Canvas, box: Box, since_s: float) -> None:
        """Every pair's ratio on a line, on its way there from static batching's own; without pairs the one ratio's."""
        ratios = self.pairs or (float(self._ratio("median").figures[0].source.value),)
        low, high = min(*ratios, 1.0), max(*ratios, 1.0)
        span = max(high - low, 0.01)

        def x_of(ratio: float) -> float:
            return box.x + 20 + (box.w - 40) * (ratio - low) / span

        canvas.line([(box.x, box.y), (box.right, box.y)], LINE, thickness=3)
        canvas.line([(x_of(1.0), box.y - 22), (x_of(1.0), box.y + 22)], STATIC, thickness=5)
        static = self.say("decode_batching.static")
        half = width(static.text, SMALL_STRONG) / 2
        at = min(max(x_of(1.0), box.x + half), box.right - half)
        canvas.text(static, at, box.y - 38, SMALL_STRONG, STATIC, align=0.5)
        for i, ratio in enumerate(ratios):
            goes_s = _DOTS_S / len(ratios)
            gone = ease((since_s - goes_s * i) / (goes_s + 0.4))
            if gone:
                canvas.disc(x_of(1 + (ratio - 1) * gone), box.y, 13, CONTINUOUS, min(gone * 4, 1.0))
        if not self.pairs:
            return
        spread = self.say(
            "cut_out_the_red.spread",
            low=self._ratio("low"),
            high=self._ratio("high"),
            pairs=self._ratio("pairs"),
        )
        half = min(width(spread.text, SMALL), box.w) / 2
        middle = (x_of(min(self.pairs)) + x_of(max(self.pairs))) / 2
        at = min(max(middle, box.x + half), box.right - half)
        canvas.text(spread, at, box.y + 66, SMALL, DIM, align=0.5, room=box.w)
