"""Where the speed-up comes from: refilled slots, other steps, the rest, and what refilling could give at most.

What the viewer should understand: a speed-up is not one thing, and each part of it can be distinguished by what was
measured. Beat one: both runs on one clock; what an output token costs in engine time settles. Beat two: the way from
the one to the other in three bars: fewer slot-steps for the same tokens; steps that hold something else; and the rest,
with the share of the steps that both runs have alike. What a part saved is taken off, what it cost is put on. Beat
three: behind the first bar, as a ghost, the most that refilling could have given on this workload if a step cost the
same whatever is in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tracereel.film.beat import Beat, Caption
from tracereel.film.canvas import Canvas
from tracereel.film.clock import Script, ease
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrase, figure
from tracereel.film.registry import FULL_LENGTH, scene
from tracereel.film.show import Show
from tracereel.film.stage import Box, Shape
from tracereel.film.theme import (
    DIM,
    FINISHED,
    HEADING,
    IDLE,
    IN_ROW,
    LABEL_LINE,
    LINE,
    PANEL,
    SMALL,
    STRONG,
    TEXT,
    Colour,
    Letters,
    case_colour,
)
from tracereel.trace.analysis.comparable import require_comparable
from tracereel.trace.analysis.pairs import pairs_of
from tracereel.trace.analysis.queries import REST, Measured, Run, change_ms, measure, median_of, split
from tracereel.trace.analysis.waterfall import PARTS, NoWaterfallError
from tracereel.trace.format.storage import TraceError

_RACE_S, _PART_S = 5.8, 4.2
_HELD_S = 2.2
"""How long a bar stays as it is once it has grown, until what is said of it has been read: nothing else moves then."""
_VALUE = 190.0
"""What a row's figure takes at its right."""


def split_pairs(before: Sequence[Run], after: Sequence[Run]) -> list[tuple[Run, Run]]:
    """The pairs of runs in the order of their speed-ups, or the two median runs where no runs are pairs.

    Raises TraceError where a speed-up cannot be split, NotComparableError where the runs do not belong together.
    """
    traces = [[run.trace for run in runs] for runs in (before, after)]
    require_comparable([trace for case in traces for trace in case])
    pairs = [(before[i], after[k]) for i, k in pairs_of(*traces)] or [(median_of(before), median_of(after))]
    try:
        return sorted(pairs, key=lambda pair: split(*pair).speedup)
    except NoWaterfallError as error:
        raise TraceError(before[0].trace.path, f"its speed-up cannot be split: {error}") from None


@dataclass(frozen=True)
class _Row:
    """A part: where its bar begins and ends, in milliseconds an output token, and what is said of it."""

    part: str
    from_ms: float
    to_ms: float
    name: Phrase
    value: Phrase
    spread: Phrase | None


_PARTS = (*PARTS[:2], REST)
"""The bars; the parts of the last are said together."""
_DIGITS = 5


def change_figure(value: Measured) -> Phrase:
    """What was added or saved, with so many digits that it is not said to be nothing where it was something."""
    size = abs(float(value.value))
    digits = next((n for n in range(2, _DIGITS) if size >= 0.5 * 10.0**-n), 2)
    return figure(value, f"+.{digits}f")


@scene("speedup_waterfall", order=60, films=(FULL_LENGTH,))
def speedup_waterfall(show: Show) -> Beat:
    """The beat of the pair of a static and a continuous run whose speed-up is the median of all pairs.

    Raises TraceError where one of the cases is not there, NotComparableError where they do not belong together.
    """
    return Storyboard(show).beat()


class Storyboard:
    """The clock, the captions, and what is drawn when."""

    def __init__(self, show: Show):
        self.stage, self.say = show.stage, show.say.say
        self.pairs = split_pairs(show.runs("static"), show.runs("continuous"))
        self.before, self.after = self.pairs[(len(self.pairs) - 1) // 2]
        self.split = split(self.before, self.after)
        self.unit = "ms" if self.split.before_ms >= 1 else "us"
        """Milliseconds, or microseconds where a token costs less than one."""
        self.rows = self._parts()
        ceiling = self.split.ceiling or 1.0
        self.ghost_ms = self.split.before_ms / ceiling
        """What an output token would cost if refilling gave all that it can at most."""
        self.most_ms = max(self.split.before_ms, *(max(row.from_ms, row.to_ms) for row in self.rows)) * 1.02
        self._write_script()

    def _parts(self) -> list[_Row]:
        rows, at_ms = [], self.split.before_ms
        runs = [run for pair in self.pairs for run in pair]
        for part in _PARTS:
            value = measure(f"waterfall_change_{self.unit}", [self.before, self.after], part=part)
            to_ms = at_ms + change_ms(self.split, part)
            spread = None
            if len(self.pairs) > 1:
                low, high = (
                    change_figure(measure(f"waterfall_change_{end}_{self.unit}", runs, part=part))
                    for end in ("low", "high")
                )
                spread = self.say("speedup_waterfall.spread", low=low, high=high)
            rows.append(
                _Row(
                    part,
                    at_ms,
                    to_ms,
                    self.say(f"speedup_waterfall.{self._key(part)}"),
                    self.say(f"speedup_waterfall.{self.unit}", value=change_figure(value)),
                    spread,
                )
            )
            at_ms = to_ms
        return rows

    def _write_script(self) -> None:
        say, before, after = self.say, self.before, self.after
        shift = before.timeline.begin_ns
        span = max(run.timeline.end_ns - run.timeline.begin_ns for run in (before, after))
        self.parts_s = _RACE_S + 1.6
        slot_steps = {
            "static": figure(before.measure("slot_steps"), ",d"),
            "continuous": figure(after.measure("slot_steps"), ",d"),
        }
        matched = measure("waterfall_matched", [before, after])
        captions = [Caption(0.0, say("speedup_waterfall.race"))]
        for row in self.rows:
            key = f"speedup_waterfall.about_{self._key(row.part)}"
            phrases = {PARTS[0]: slot_steps, REST: {"share": figure(matched, ".0%")}}.get(row.part, {})
            captions.append(Caption(self._after(captions[-1]), say(key, **phrases)))
        about_ceiling = self.split.ceiling is not None
        key = "speedup_waterfall.about_ceiling" if about_ceiling else "speedup_waterfall.sum"
        phrases = {"ceiling": self._ceiling()} if about_ceiling else {}
        captions.append(Caption(self._after(captions[-1]), say(key, **phrases)))
        self.captions = tuple(captions)
        script = Script(shift).run(shift + span, _RACE_S)
        self.clock = script.hold(self._after(captions[-1]) - script.film_s).clock()

    def _key(self, part: str) -> str:
        """What a part is called in the phrasebook: steps that are fuller are called so."""
        fuller = measure("later_runs_steps_are_fuller", [self.before, self.after])
        return "fuller_steps" if part == PARTS[1] and fuller.value else part.replace(" ", "_")

    def _after(self, caption: Caption) -> float:
        """When the next part is shown: the race is over, and the part before has been seen and read."""
        return max(self.parts_s, caption.from_s + _PART_S, caption.read_s)

    def _ceiling(self) -> Phrase:
        return figure(self.before.measure("refill_ceiling"), ".2f")

    # The picture.

    def places(self) -> list[Box]:
        """The rows: the earlier run, the parts, the later run."""
        content = self.stage.content
        return content.rows(
            len(self.rows) + 2, {Shape.WIDE: 18.0, Shape.TALL: 34.0, Shape.SQUARE: 12.0}[self.stage.shape]
        )

    def bar(self, row: Box, from_ms: float, to_ms: float) -> Box:
        """The place of a bar from one number of milliseconds to another."""
        beside = 360.0 if self.stage.wide else 0.0
        top = 0.0 if self.stage.wide else 42.0
        left, room = row.x + beside, row.w - beside - _VALUE
        low, high = sorted((from_ms, to_ms))
        x = left + room * low / self.most_ms
        high_ = min(row.h - top, 120.0)
        return Box(x, row.y + top + (row.h - top - high_) / 2, room * (high - low) / self.most_ms, high_)

    def paint(self, canvas: Canvas, film_s: float) -> None:
        """Draw the rows at a second of film."""
        places, now_ns = self.places(), self.clock.engine_ns(film_s)
        say, since_ns = self.say, now_ns - self.before.timeline.begin_ns
        raced = ease((self.parts_s - 0.2 - film_s) / 0.9)
        sides = ((self.before, places[0], "static"), (self.after, places[-1], "continuous"))
        # The two share the frame until the parts come between them.
        for (run, place, key), large in zip(sides, self.stage.content.rows(2, 0), strict=True):
            at = place.towards(large, raced)
            self._total(canvas, at, run, since_ns, say(f"cases.{key}"), case_colour(key))
            if raced:
                t_ns = run.timeline.begin_ns + since_ns
                made = say("pipeline_flow.tokens", count=figure(run.measure("output_tokens", t_ns=t_ns), ",d"))
                bar = self.bar(at, 0.0, 0.0)
                # Gone before the rows are so low that it would stand in the strip.
                canvas.text(made, bar.x, bar.bottom + 44, SMALL, DIM, max(3 * raced - 2, 0.0))
        _, *parts, ghost = self._grown(film_s)
        for i, (row, place, grown) in enumerate(zip(self.rows, places[1:-1], parts, strict=True)):
            if not grown:
                continue
            if i == 0 and self.split.ceiling:
                self._ghost(canvas, place, ghost)
            bar = self.bar(place, row.from_ms, row.from_ms + (row.to_ms - row.from_ms) * grown)
            colour = FINISHED if row.to_ms <= row.from_ms else IDLE
            canvas.box(bar.x, bar.y, max(bar.w, 4), bar.h, colour)
            self._link(canvas, places, i, grown)
            with canvas.faded(grown):
                self._said(canvas, place, row.name, row.value, row.spread, Letters(colour))

    def _grown(self, film_s: float) -> list[float]:
        """How far what each caption is about has grown, 0 to 1."""
        starts = [caption.from_s for caption in self.captions]
        ends = [*starts[1:], self.clock.film_s]
        return [ease((film_s - start) / (end - start - _HELD_S)) for start, end in zip(starts, ends, strict=True)]

    def _total(self, canvas: Canvas, place: Box, run: Run, since_ns: int, name: Phrase, colour: Colour) -> None:
        """A run's row: what an output token has cost so far, in the end the whole run's."""
        t_ns = run.timeline.begin_ns + since_ns
        if not run.timeline.at(t_ns).output_tokens:
            self._said(canvas, place, name, None, None, colour)
            return
        cost, shown = (run.measure(f"{unit}_per_token", t_ns=t_ns) for unit in ("ms", self.unit))
        bar = self.bar(place, 0.0, min(float(cost.value), self.most_ms))
        canvas.box(*bar.sides, colour)
        value = self.say(f"speedup_waterfall.{self.unit}", value=figure(shown, ".2f"))
        self._said(canvas, place, name, value, None, colour)

    def _said(
        self, canvas: Canvas, place: Box, name: Phrase, value: Phrase | None, spread: Phrase | None, colour: Colour
    ) -> None:
        """What stands next to a bar: its name, its figure, and what the other pairs gave."""
        bar = self.bar(place, 0.0, self.most_ms)
        if self.stage.wide:
            middle = place.y + place.h / 2
            canvas.text(name, place.x, middle + (-2 if spread else 12), HEADING, colour, room=340)
            if spread:
                canvas.text(spread, place.x, middle + 36, SMALL, DIM, room=340)
        else:
            wide = canvas.text(name, place.x, place.y + LABEL_LINE, HEADING, colour)
            if spread and wide + 30 + width(spread.text, SMALL) < place.w:
                canvas.text(spread, place.right, place.y + LABEL_LINE, SMALL, DIM, align=1)
        if value:
            canvas.text(value, place.right, bar.y + bar.h / 2 + 11, STRONG, TEXT, align=1, room=_VALUE - 14)

    def _link(self, canvas: Canvas, places: list[Box], i: int, grown: float) -> None:
        """A thread from a bar's end to where the next begins."""
        row = self.rows[i]
        above, here = self.bar(places[i], row.from_ms, row.from_ms), self.bar(places[i + 1], row.from_ms, row.from_ms)
        if self.stage.wide:
            canvas.line([(here.x, above.bottom), (here.x, here.y)], LINE, grown, thickness=2)

    def _ghost(self, canvas: Canvas, place: Box, shown: float) -> None:
        """Behind the first part: what refilling could have given at most."""
        bar = self.bar(place, self.split.before_ms, self.ghost_ms)
        # In a narrow frame the rows lie close.
        around = 8 if self.stage.wide else 2
        canvas.card(bar.x, bar.y - around, bar.w, bar.h + 2 * around, PANEL, shown, radius=4)
        canvas.card(bar.x, bar.y - around, bar.w, bar.h + 2 * around, TEXT, shown, radius=4, outline=3)
        label = self.say("speedup_waterfall.ceiling", ceiling=self._ceiling())
        first = self.rows[0]
        left = min(bar.x, self.bar(place, first.from_ms, first.to_ms).x) - 16
        if width(label.text, SMALL) <= left - self.bar(place, 0.0, 0.0).x:
            canvas.text(label, left, bar.y + bar.h / 2 + IN_ROW, SMALL, TEXT, shown, align=1)

    def beat(self) -> Beat:
        """The beat."""
        name = self.say(f"speedup_waterfall.{'name' if self.split.speedup > 1 else 'name_slower'}")
        runs = (self.before, self.after)
        return Beat("speedup_waterfall", name, self.captions, self.clock, runs, self.paint)
