"""Batch sizes: what a step costs with more rows in it, and what that does to throughput and latency.

What the viewer should understand: a fuller batch is nearly free, until it is not. Beat one: a run with many slots is
replayed, each of its steps a dot, rows across and time up; as the run drains the dots wander to the left. Beat two: the
steps of all runs, the medians of all numbers of rows joined; behind them, as a ghost, what a notebook once guessed of a
batch's efficiency, marked as the guess it is. Beat three: why: every step reads all the weights once, so that another
row costs little; then arithmetic takes over and rows cost what rows cost. Beat four: throughput and the median
request's time against the number of slots, static and continuous, every repeat a dot.
"""

import math
from collections.abc import Mapping

import numpy as np
from tracereel.film.beat import Beat, Caption
from tracereel.film.canvas import Canvas
from tracereel.film.clock import Script, ease
from tracereel.film.components.plot import Plot
from tracereel.film.phrases import Phrase, figure
from tracereel.film.registry import FULL_LENGTH, scene
from tracereel.film.show import Show
from tracereel.film.stage import Box, Shape
from tracereel.film.theme import APART, CONTINUOUS, DIM, SMALL, SMALL_STRONG, TEXT, case_colour
from tracereel.trace.analysis.comparable import require_comparable
from tracereel.trace.analysis.queries import (
    FEWEST_STEPS,
    Measured,
    Run,
    decode_step_ms,
    measure,
    median_of,
    swept_rows,
)
from tracereel.trace.format.storage import TraceError

SUITE = "sweep"
_REPLAY_S = 6.6
_STEMS = 16
"""So many of the newest steps stand on the axis, the older the fainter."""
_LEAST_S = 3.0
"""No caption stays for less."""
_POLICIES = ("static", "continuous")


def guessed_efficiency(rows: float) -> float:
    """The notebook's guess of a batch's efficiency, as the query `guessed_efficiency` says it in words."""
    return max(0.5, 1 - 0.1 * math.log(rows))


def by_slots(show: Show, policy: str) -> dict[int, list[Run]]:
    """All runs of a policy by their number of slots, in its order."""
    found: dict[int, list[Run]] = {}
    for recording in show.recordings_of(SUITE).recordings:
        slots = recording.header.slots
        if recording.header.policy == policy and slots not in found:
            found[slots] = show.runs(recording.case, SUITE)
    return dict(sorted(found.items()))


_AGAINST = {"throughput": ("throughput_median", ",.0f"), "latency": ("e2el_median_s", ".1f")}
"""What is plotted against the number of slots: the query, and how its figures are written."""


class _Against:
    """One quantity of every policy and every number of slots: of each run, their median, and its figure."""

    def __init__(self, cases: Mapping[str, Mapping[int, list[Run]]], query: str, style: str):
        values = {
            policy: {slots: measure(query, runs) for slots, runs in found.items()} for policy, found in cases.items()
        }
        self.medians = {
            policy: [(slots, float(value.value)) for slots, value in found.items()] for policy, found in values.items()
        }
        self.labels = {
            policy: {slots: figure(value, style) for slots, value in found.items()} for policy, found in values.items()
        }
        self.repeats = {
            policy: [(slots, float(measure(query, [run]).value)) for slots, runs in found.items() for run in runs]
            for policy, found in cases.items()
        }
        self.slots = {
            slots: figure(runs[0].measure("slots")) for found in cases.values() for slots, runs in found.items()
        }
        self.most = max(value for points in self.repeats.values() for _, value in points) * 1.06


@scene("batch_size_sweep", suite=SUITE, order=70, films=(FULL_LENGTH,))
def batch_size_sweep(show: Show) -> Beat:
    """The beat of the runs with few and with many slots. Raises TraceError where there is only one number of them."""
    return Storyboard(show).beat()


class Storyboard:
    """What is plotted, the clock, the captions, and what is drawn when."""

    def __init__(self, show: Show):
        self.stage, self.say = show.stage, show.say.say
        self.cases = {policy: found for policy in _POLICIES if (found := by_slots(show, policy))}
        continuous = self.cases.get("continuous", {})
        if len(continuous) < 2:
            raise TraceError(
                show.recordings_of(SUITE).folder,
                f"a sweep needs continuous runs of two numbers of slots or more, there are {len(continuous)}; record"
                f" one with `tracereel record --suite {SUITE}`",
            )
        traces = [run.trace for found in self.cases.values() for runs in found.values() for run in runs]
        require_comparable(traces, across=("slots",))
        self.low, self.high = min(continuous), max(continuous)
        self.all = [run for runs in continuous.values() for run in runs]
        self.run = median_of(continuous[self.high])
        swept = swept_rows(self.all)
        self.medians = [(rows, float(np.median(decode_step_ms(self.all, rows)))) for rows in swept]
        if len(self.medians) < 2:
            raise TraceError(self.run.trace.path, "has no steps that only decode, at two numbers of rows")
        self.curve = self._curve()
        """The median of every number of rows that has steps enough: what the line goes through."""
        self.one, self.most_rows = self.medians[0][0], self.medians[-1][0]
        self.widest = max(int(run.decode_rows.max()) for run in self.all)
        """The most rows that a step has, where the axis ends."""
        self.row_labels = {rows: figure(measure("rows_of_sweep", self.all, nth=nth)) for nth, rows in enumerate(swept)}
        self.step_labels = {
            rows: figure(measure("step_ms_median", self.all, rows=rows), ".1f") for rows, _ in self.medians
        }
        self.spreads = self._middle_halves()
        self.most_ms = self._top()
        self.guess = figure(measure("guessed_efficiency", [self.run]))
        self.against = {key: _Against(self.cases, *how) for key, how in _AGAINST.items()}
        self._write_script()

    def _curve(self) -> list[tuple[int, float]]:
        rows = np.concatenate([run.decode_rows for run in self.all])
        numbers = np.unique(rows[rows >= self.medians[0][0]]).tolist()
        found = [(n, decode_step_ms(self.all, n)) for n in numbers]
        return [(n, float(np.median(ms))) for n, ms in found if len(ms) >= FEWEST_STEPS]

    def _middle_halves(self) -> list[tuple[int, float, float]]:
        """For each number of rows the first and the third quartile of its steps, ms."""
        rows = np.concatenate([run.decode_rows for run in self.all])
        times = np.concatenate([run.metrics.step_ms for run in self.all])
        found = []
        for number in np.unique(rows[rows >= self.one]).tolist():
            own = times[rows == number]
            if len(own) >= FEWEST_STEPS:
                found.append((int(number), *np.percentile(own, [25, 75]).tolist()))
        return found

    def _top(self) -> float:
        """The largest time that is plotted: all but the slowest hundredth of steps, and every median."""
        times = np.concatenate([run.metrics.step_ms[run.decode_rows > 0] for run in self.all])
        guess = self.medians[0][1] * guessed_efficiency(self.one) / guessed_efficiency(self.widest)
        return float(max(np.percentile(times, 97), *(ms for _, ms in self.curve), guess)) * 1.04

    def _write_script(self) -> None:
        run, say = self.run, self.say
        # From the first step that decodes: only those are dots.
        from_ns = int(run.trace.steps.start_ns[np.flatnonzero(run.decode_rows)[0]])
        script = Script(from_ns).run(run.timeline.end_ns, _REPLAY_S)
        low, high = (figure(self.cases["continuous"][slots][0].measure("slots")) for slots in (self.low, self.high))
        self.captions = [Caption(0.0, say("batch_size_sweep.dots"))]
        self.all_s = self._then(say("batch_size_sweep.all", low=low, high=high), script.film_s + 0.3)
        free, further = self._costs()
        self.free_s = self._then(free, self.all_s + 3.4)
        self._then(further, self.free_s + 3.8)
        gained = {policy: self._gained(runs) for policy, runs in self.cases.items() if len(runs) > 1}
        key = "faster" if "static" in gained else "faster_alone"
        self.faster_s = self._then(say(f"batch_size_sweep.{key}", low=low, high=high, **gained))
        answered = {
            f"{name}_s": figure(measure("e2el_median_s", self.cases["continuous"][slots]), ".1f")
            for name, slots in (("low", self.low), ("high", self.high))
        }
        self.answered_s = self._then(say("batch_size_sweep.answered", low=low, high=high, **answered))
        self.clock = script.hold(max(self.answered_s + 3.4, self.captions[-1].read_s) - script.film_s).clock()

    def _then(self, phrase: Phrase, at_s: float = 0.0) -> float:
        """Say what comes next, once what was said has been read; the second at which it is said."""
        told = Caption(max(at_s, self.captions[-1].read_s, self.captions[-1].from_s + _LEAST_S), phrase)
        self.captions.append(told)
        return told.from_s

    def _costs(self) -> tuple[Phrase, Phrase]:
        """What some rows cost against one, and the most against those."""
        rows = [rows for rows, _ in self.medians]
        middle = rows[len(rows) // 2]
        before = figure(self._times(middle, self.one), ".1f")
        ratio = figure(self._times(self.most_rows, middle), ".1f")
        mid, one, high = (self.row_labels[number] for number in (middle, self.one, self.most_rows))
        dense, cheap = measure("reads_all_weights", self.all).value, float(before.text) < float(mid.text)
        first = "costs" if not cheap else "free" if dense else "cheap"
        then = "not_free" if float(ratio.text) > float(before.text) else "still_free"
        return (
            self.say(f"batch_size_sweep.{first}", mid=mid, one=one, ratio=before),
            self.say(f"batch_size_sweep.{then}", high=high, mid=mid, ratio=ratio, before=before),
        )

    def _times(self, rows: int, base: int) -> Measured:
        return measure("step_ms_ratio", self.all, rows=rows, base=base)

    @staticmethod
    def _gained(runs: Mapping[int, list[Run]]) -> Phrase:
        """Throughput with the most slots over that with the fewest."""
        most, least = runs[max(runs)], runs[min(runs)]
        return figure(measure("throughput_ratio_median", [*most, *least], numerator=len(most), across="slots"), ".1f")

    # The picture.

    def places(self) -> tuple[Box, Box, Box]:
        """Where step time, throughput and latency stand in the end."""
        content = self.stage.content
        if self.stage.shape is Shape.WIDE:
            left, right = content.columns((54, 46), 72)
            above, below = right.rows(2, 26)
        elif self.stage.shape is Shape.TALL:
            left, above, below = content.shares((40, 30, 30), 40)
        else:
            left, foot = content.rows(2, 22)
            above, below = foot.columns((1, 1), 40)
        return left, above, below

    def paint(self, canvas: Canvas, film_s: float) -> None:
        """Draw the plots at a second of film."""
        left, above, below = self.places()
        aside = ease((film_s - self.faster_s + 0.9) / 0.9)
        self._steps(canvas, self.step_plot(self.stage.content.towards(left, aside)), film_s)
        self._against_slots(canvas, above, "throughput", film_s - self.faster_s)
        self._against_slots(canvas, below, "latency", film_s - self.answered_s)

    def step_plot(self, box: Box) -> Plot:
        """The plot of step times in a box; it first has the frame to itself."""
        return Plot(box, self.one, self.widest, self.most_ms, 2)

    def _steps(self, canvas: Canvas, plot: Plot, film_s: float) -> None:
        say, now_ns = self.say, self.clock.engine_ns(film_s)
        plot.frame(canvas, say("batch_size_sweep.step"))
        plot.labels(canvas, 0, self.row_labels, TEXT)
        self._guess(canvas, plot, ease((film_s - self.all_s) / 0.8))
        self._spreads(canvas, plot, 0.45 * ease((film_s - self.all_s) / 1.2))
        ended = self.run.timeline.steps_ended(now_ns)
        self._dots(canvas, plot, self.run, ended, 0.75 - 0.45 * ease((film_s - self.all_s) / 1.2))
        drawn = ease((film_s - self.all_s - 0.4) / 2.2)
        plot.medians(canvas, self.curve, CONTINUOUS, drawn, dot=5)
        plot.labels(canvas, 1, self.step_labels, CONTINUOUS, ease((film_s - self.free_s - 0.2) / 1.6))

    def _spreads(self, canvas: Canvas, plot: Plot, alpha: float) -> None:
        """The middle half of all runs' steps, a bar for each number of rows."""
        for rows, low, high in self.spreads:
            top, bottom = plot.y(high), plot.y(low)
            canvas.box(plot.x(rows) - 7, top, 14, max(bottom - top, 2), CONTINUOUS, alpha)

    def _dots(self, canvas: Canvas, plot: Plot, run: Run, ended: int, alpha: float) -> None:
        """The first steps of a run, those that prefill nothing; the newest still large."""
        rows, times = run.decode_rows[:ended], run.metrics.step_ms[:ended]
        there = np.flatnonzero(rows)
        running = len(there) and ended < len(run.trace.steps)
        for age, i in enumerate(reversed(there[-_STEMS:].tolist()) if running else ()):
            # As high as the step took: what the place of its dot means.
            x, fresh = plot.x(max(int(rows[i]), self.one)), 1 - age / _STEMS
            canvas.line([(x, plot.y(0.0)), (x, plot.y(float(times[i])))], CONTINUOUS, 0.7 * fresh, thickness=6)
        for i in there.tolist():
            x, y = plot.x(max(int(rows[i]), self.one)), plot.y(float(times[i]))
            canvas.disc(x, y, 5, CONTINUOUS, alpha * (0.5 if times[i] > self.most_ms else 1.0))
        if running:
            newest = int(there[-1])
            canvas.disc(plot.x(int(rows[newest])), plot.y(float(times[newest])), 12, TEXT, outline=3)

    def _guess(self, canvas: Canvas, plot: Plot, shown: float) -> None:
        """What was guessed, anchored at the first median: it says nothing of milliseconds by itself."""
        if not shown:
            return
        unit = self.medians[0][1] * guessed_efficiency(self.one)
        numbers = np.geomspace(self.one, self.widest, 40).tolist()
        path = [(plot.x(rows), plot.y(unit / guessed_efficiency(rows))) for rows in numbers]
        canvas.line(path, DIM, shown * 0.6, thickness=3, dashes=(12, 10))
        words = self.say("batch_size_sweep.guess", formula=self.guess)
        left, y = plot.area.x, plot.key_line
        canvas.line([(left, y - 9), (left + 44, y - 9)], DIM, shown * 0.6, thickness=3, dashes=(12, 10))
        canvas.text(words, left + 58, y, SMALL, DIM, shown, room=plot.area.w - 58)

    def _against_slots(self, canvas: Canvas, box: Box, key: str, since_s: float) -> None:
        """Throughput or latency against the number of slots, both policies."""
        shown = ease((since_s + 0.2) / 0.6)
        if not shown:
            return
        against = self.against[key]
        plot = Plot(box, self.low, self.high, against.most, 1 + len(self.cases))
        with canvas.faded(shown):
            plot.frame(canvas, self.say(f"batch_size_sweep.{key}"))
            plot.labels(canvas, 0, against.slots, TEXT)
            for i, (policy, colour) in enumerate((policy, case_colour(policy)) for policy in self.cases):
                drawn = ease((since_s - 0.3 * i) / 1.2)
                for slots, value in against.repeats[policy]:
                    canvas.disc(plot.x(slots), plot.y(value), 5, colour, 0.5 * drawn)
                plot.medians(canvas, against.medians[policy], colour, drawn)
                plot.labels(canvas, 1 + i, against.labels[policy], colour, ease((since_s - 0.3 * i - 0.6) / 0.6))
            self._legend(canvas, plot)

    def _legend(self, canvas: Canvas, plot: Plot) -> None:
        """Which colour is which policy."""
        x = plot.area.x
        for policy in self.cases:
            name = self.say(f"cases.{policy}")
            x += canvas.text(name, x, plot.key_line, SMALL_STRONG, case_colour(policy)) + APART

    def beat(self) -> Beat:
        """The beat."""
        name = self.say("batch_size_sweep.name")
        return Beat("batch_size_sweep", name, tuple(self.captions), self.clock, (self.run,), self.paint)
