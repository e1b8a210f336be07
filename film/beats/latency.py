"""Latency: how long the same requests waited for their first token, and for each one after it.

What the viewer should understand: throughput is what an operator pays, latency is what a user feels. Beat one: static
and continuous batches on one clock; each request drops a dot where its first token came, and each later token adds to
a histogram of the gaps between tokens. In static batches those of a later batch wait for all before them. Beat two:
median and longest wait for the first token, of both, from all completed requests of the runs that were shown. Beat
three: the same of the gaps. There is the price: a step that is full, or reads a new prompt, keeps everybody in it
waiting longer for the next token.
"""

from dataclasses import dataclass, replace

from tracereel.film.beat import Beat, Caption
from tracereel.film.canvas import Canvas
from tracereel.film.clock import Script, ease
from tracereel.film.components.distribution import Axis, Histogram, Swarm, lane
from tracereel.film.lettering import width, wrap
from tracereel.film.phrases import Phrase, figure
from tracereel.film.registry import FULL_LENGTH, scene
from tracereel.film.show import Show
from tracereel.film.stage import Box, Shape, Spot
from tracereel.film.theme import APART, DIM, LABEL_LINE, LINE, SMALL, SMALL_STRONG, STRONG, TEXT, Colour, case_colour
from tracereel.trace.analysis.comparable import require_comparable
from tracereel.trace.analysis.latency import ITL, TTFT, Latencies
from tracereel.trace.analysis.queries import Measured, Run, measure

_RACE_S = 10.8
_VERDICT_S = {TTFT: _RACE_S + 0.2, ITL: _RACE_S + 3.8}
"""When the medians of each metric are said, at the earliest."""
_HELD_S = 4.4
"""What is held once the last of them is said, at least."""
_ASIDE, _TURN_S, _BOTH_AFTER_S = 0.35, 0.7, 3.2
"""How strongly a metric is drawn that is not spoken of, how long that takes, and when both are seen in the end."""
_TOLD_S = 2.2
"""How long the medians take to appear: nothing else moves then."""
_MOST_MARKS = 5
_LINE, _FOOT = 42.0, 40.0
"""What a line above a lane takes, and the ends of the axis below the last one."""
_SECOND_MS = 1e3


@dataclass(frozen=True)
class _Side:
    """A case that is shown: its name and colour, its run, and its pictures by metric."""

    name: Phrase
    colour: Colour
    run: Run
    swarm: Swarm
    histogram: Histogram
    facts: dict[str, Phrase | None]
    """What is said of it in the end, by metric; None where no request has such a latency."""


@scene("latency", order=50, films=(FULL_LENGTH,))
def latency(show: Show) -> Beat:
    """The beat of the static and the continuous run, or of one run alone where there is only one."""
    return Storyboard(show).beat()


class Storyboard:
    """Axes, places and what is drawn when."""

    def __init__(self, show: Show):
        self.stage, self.say = show.stage, show.say.say
        paired = show.recordings.has("static") and show.recordings.has("continuous")
        cases = ["static", "continuous"] if paired else [show.recordings.preferred("continuous", "online")]
        runs = [show.run(case) for case in cases]
        require_comparable([run.trace for run in runs])
        values = {metric: [Latencies.of(run.trace, metric) for run in runs] for metric in (TTFT, ITL)}
        self.first = values[TTFT]
        self.axes = {metric: _axis(values[metric], metric) for metric in (TTFT, ITL)}
        self.sides = [
            _Side(
                show.case_name(case, run),
                case_colour(case),
                run,
                Swarm(values[TTFT][i], self.axes[TTFT], run.timeline.begin_ns, show.colours()),
                Histogram(values[ITL][i], self.axes[ITL], run.timeline.begin_ns, case_colour(case)),
                {metric: self._facts(run, metric) for metric in (TTFT, ITL)},
            )
            for i, (case, run) in enumerate(zip(cases, runs, strict=True))
        ]
        self.main = self.sides[-1].run
        self.begin_ns = self.main.timeline.begin_ns
        self.span_ns = max(*(run.timeline.end_ns - run.timeline.begin_ns for run in runs), 1)
        self.fact_lines = self._fact_lines()
        self._write_script()

    def _write_script(self) -> None:
        """The race, then what both medians are, each until it has been read."""
        self.captions = [Caption(0.0, self.say("latency.first")), Caption(_RACE_S * 0.5, self.say("latency.gaps"))]
        self.spoken_of = [(0.0, TTFT), (_RACE_S * 0.5, ITL)]
        """From when on which metric is spoken of."""
        self.verdict_s = dict(_VERDICT_S)
        for metric, from_s in _VERDICT_S.items():
            self.verdict_s[metric] = max(from_s, self.captions[-1].read_s)
            if self._known(metric):
                self.captions.append(Caption(self.verdict_s[metric], self._verdict(metric)))
                self.spoken_of.append((self.verdict_s[metric], metric))
        script = Script(self.begin_ns).run(self.begin_ns + self.span_ns, _RACE_S)
        end_s = max(self.verdict_s[ITL] + _HELD_S, self.captions[-1].read_s)
        self.clock = script.hold(end_s - script.film_s).clock()

    def beat(self) -> Beat:
        """All of it."""
        runs = tuple(dict.fromkeys([self.main, *(side.run for side in self.sides)]))
        name = self.say("latency.name")
        return Beat("latency", name, tuple(self.captions), self.clock, runs, self.paint, where=self.where)

    def where(self, run: Run, request: int, film_s: float) -> list[Spot]:
        """The dot of a request's first token."""
        since_ns = self.clock.engine_ns(film_s) - self.begin_ns
        lanes = zip(self.sides, self.lanes(self.halves()[TTFT]), strict=True)
        found = (side.swarm.where(request, place, since_ns) for side, place in lanes if side.run is run)
        alpha = self.attention(TTFT, film_s)
        return [replace(spot, alpha=alpha) for spots in found for spot in spots]

    def _known(self, metric: str) -> bool:
        """Does each run have a value of the metric?"""
        return all(side.facts[metric] is not None for side in self.sides)

    def _verdict(self, metric: str) -> Phrase:
        medians = [self._span(side.run, metric, 50) for side in self.sides]
        if len(medians) == 1:
            return self.say(f"latency.verdict_{metric}_alone", median=medians[0])
        return self.say(f"latency.verdict_{metric}", static=medians[0], continuous=medians[1])

    def _span(self, run: Run, metric: str, percentile: int) -> Phrase:
        """A percentile with its unit: seconds from one on, else milliseconds."""
        ms = run.measure("latency_percentile_ms", metric=metric, percentile=percentile)
        if float(ms.value) >= _SECOND_MS:
            seconds = run.measure("latency_percentile_s", metric=metric, percentile=percentile)
            return self.say("latency.s", value=figure(seconds, ".1f"))
        return self.say("latency.ms", value=figure(ms, ".2f" if float(ms.value) < 10 else ".0f"))

    def _facts(self, run: Run, metric: str) -> Phrase | None:
        whole = run.measure("latency_n", metric=metric, t_ns=run.timeline.end_ns)
        if not whole.value:
            return None
        median, largest = (self._span(run, metric, percentile) for percentile in (50, 100))
        return self.say("latency.facts", median=median, largest=largest)

    def _count(self, run: Run, metric: str, since_ns: int) -> Phrase:
        known = run.measure("latency_n", metric=metric, t_ns=run.timeline.begin_ns + since_ns)
        return self.say("latency.known", n=figure(known, ",d"))

    def _fact_lines(self) -> int:
        """Lines that the longest of the facts takes below its lane's name; none where all fit next to the names."""
        room, lines = self.halves()[TTFT].w, [0]
        for side in self.sides:
            for metric, facts in side.facts.items():
                if facts:
                    count = self._count(side.run, metric, self.span_ns)
                    taken = width(side.name.text, SMALL_STRONG) + width(count.text, SMALL) + 2 * APART
                    fits = taken + width(facts.text, SMALL) <= room
                    lines.append(0 if fits else len(wrap(facts.text, SMALL, room)))
        return max(lines)

    def halves(self) -> dict[str, Box]:
        """Where each metric stands."""
        content = self.stage.content
        halves = content.rows(2, 34) if self.stage.shape is Shape.TALL else content.columns((1, 1), 64)
        return dict(zip((TTFT, ITL), halves, strict=True))

    def lanes(self, half: Box) -> list[Box]:
        """Where each side's distribution stands within its metric's place."""
        rows = Box(half.x, half.y + 46, half.w, half.h - 46 - _FOOT).rows(len(self.sides), 12)
        head = _LINE * (1 + self.fact_lines)
        return [Box(row.x, row.y + head, row.w, row.h - head) for row in rows]

    def paint(self, canvas: Canvas, film_s: float) -> None:
        """Draw both metrics of both sides at a second of film."""
        since_ns = self.clock.engine_ns(film_s) - self.begin_ns
        for metric, half in self.halves().items():
            with canvas.faded(self.attention(metric, film_s)):
                self._metric(canvas, half, metric, since_ns, ease((film_s - self.verdict_s[metric]) / _TOLD_S))

    def attention(self, metric: str, film_s: float) -> float:
        """How strongly a metric is drawn: the one that is spoken of wholly, in the end both."""
        turns = [*self.spoken_of, (self.spoken_of[-1][0] + _BOTH_AFTER_S, "")]
        shown = 1.0 if turns[0][1] == metric else _ASIDE
        for from_s, spoken in turns[1:]:
            wanted = _ASIDE if spoken not in (metric, "") else 1.0
            shown += (wanted - shown) * ease((film_s - from_s) / _TURN_S)
        return shown

    def _metric(self, canvas: Canvas, box: Box, metric: str, since_ns: int, told: float) -> None:
        say = self.say
        axis, lanes = self.axes[metric], self.lanes(box)
        key = f"{metric}_log" if axis.logarithmic else metric
        canvas.text(say(f"latency.{key}"), box.x, box.y + LABEL_LINE, STRONG, TEXT, room=box.w)
        fullest = max(side.histogram.fullest for side in self.sides)
        for side, place in zip(self.sides, lanes, strict=True):
            name_y = place.y - 15 - _LINE * self.fact_lines
            count = self._count(side.run, metric, since_ns)
            canvas.text(side.name, place.x, name_y, SMALL_STRONG, side.colour)
            wide = canvas.text(count, place.right, name_y, SMALL, DIM, align=1)
            facts, median = side.facts[metric], None
            if facts:
                median = side.run.measure("latency_percentile_ms", metric=metric, percentile=50)
                if told and not self.fact_lines:
                    canvas.text(facts, place.right - wide - APART, name_y, SMALL, TEXT, told, align=1)
                elif told:
                    for i, part in enumerate(wrap(facts.text, SMALL, place.w)):
                        canvas.text(facts, place.x, name_y + _LINE * (i + 1), SMALL, TEXT, told, part=part)
            lane(canvas, place, axis, float(median.value) if median else None, told)
            for mark in axis.marks(_MOST_MARKS):
                x = place.x + place.w * axis.share(mark)
                canvas.line([(x, place.bottom), (x, place.bottom + 7)], LINE, thickness=3)
            if metric == TTFT:
                side.swarm.paint(canvas, place, since_ns, self.span_ns)
            else:
                side.histogram.paint(canvas, place, since_ns, fullest)
        if any(side.facts[metric] for side in self.sides):
            self._marks(canvas, Box(box.x, lanes[-1].bottom, box.w, _FOOT), axis)

    def _marks(self, canvas: Canvas, box: Box, axis: Axis) -> None:
        """The axis, lettered at round values."""
        in_seconds, free_from = axis.high >= 2 * _SECOND_MS, box.x
        for mark in axis.marks(_MOST_MARKS):
            value = mark / _SECOND_MS if in_seconds else mark
            digits = ".2f" if 0 < value < 0.1 else ".1f" if value % 1 else ".0f"
            label = self.say(
                f"latency.{'s' if in_seconds else 'ms'}", value=figure(_value_at(axis, mark, in_seconds), digits)
            )
            half = width(label.text, SMALL) / 2
            x = min(max(box.x + box.w * axis.share(mark), box.x + half), box.right - half)
            if x - half >= free_from:
                canvas.text(label, x, box.y + 34, SMALL, DIM, align=0.5)
                free_from = x + half + APART


def _value_at(axis: Axis, mark: float, in_seconds: bool) -> Measured:
    """What the axis has where a mark is drawn."""
    unit = _SECOND_MS if in_seconds else 1
    query = "log_axis_value" if axis.logarithmic else "axis_value"
    # No more digits than another processor's logarithm has too.
    share = round(axis.share(mark), 9)
    return measure(query, [], low=axis.low / unit, high=axis.high / unit, share=share)


def _axis(values: list[Latencies], metric: str) -> Axis:
    every = [value for each in values for value in (each.value_ms.min(initial=1e12), each.value_ms.max(initial=0.0))]
    low, high = float(min(every)), float(max(every))
    # Gaps differ by orders of magnitude; first tokens are seconds apart.
    return Axis(low, high, logarithmic=True) if metric == ITL and 0 < low < high else Axis(0.0, high)
