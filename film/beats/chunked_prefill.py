"""Chunked prefill: a long prompt comes among requests that decode, once read whole and once in chunks.

What the viewer should understand: a prompt is computed by the same steps that give everybody else their next token, so
a long one makes all the others wait. Beat one: several requests are being answered, a token each in every step. Beat
two: one with a long prompt arrives. Beat three, on one clock: read whole it takes one step, and no request gets a token
until that step ends; the time since the others' last token climbs. In chunks it takes many steps, each a little slower,
and the others go on. At the end the longest gap of both, over all runs, what the chunks cost the one who came, and
which stall was the longest and what all stalls come to: chunks make each short, and not all of them together.
"""

from tracereel.film.beat import Beat, Caption
from tracereel.film.canvas import Canvas
from tracereel.film.clock import Script, ease
from tracereel.film.components.seen import stays_of
from tracereel.film.components.slot_grid import SlotGrid
from tracereel.film.components.waits import Waits
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrase, figure, quote
from tracereel.film.registry import FULL_LENGTH, scene
from tracereel.film.rounding import gap_style
from tracereel.film.show import Show
from tracereel.film.stage import Box, Shape, Spot
from tracereel.film.theme import DIM, HEADING, HEADING_LINE, LABEL_LINE, SMALL, STRONG, TEXT, Colour, case_colour
from tracereel.film.time_axis import View
from tracereel.trace.analysis.comparable import require_comparable
from tracereel.trace.analysis.moments import long_prompt
from tracereel.trace.analysis.queries import Measured, Run, measure
from tracereel.trace.format.storage import TraceError

SUITE = "chunked"
_READS = {
    "whole": ("a_run_reads_prompts_whole", "reads a prompt in chunks"),
    "chunks": ("a_run_reads_in_chunks", "reads no prompt in chunks"),
}
"""What each side's run does with prompts: the query, and what is wrong where it does not."""
_BEFORE, _AFTER = 0.25, 0.18
"""What is shown before the long prompt arrives and after its first token, in shares of the time between the two."""
_SLOWER = 5.0
_VERDICT_S, _STALLS_S = 5.4, 5.2
_GROWS_S = 2.8
"""How long the bars of all stalls take to grow."""
_HEADED, _FOOT, _BETWEEN, _OVER = 54.0, 138.0, 66.0, 16.0
"""What a run's name takes, what its figures take, what is between its slots and its waits, and above words there."""
_MS, _BAR, _LEAST_BAR = 150.0, 20.0, 100.0
"""What a row's figure takes at its right, how high its bar is, and from which room on it has one."""


class _Side:
    """One of the two runs: what it is called, its picture and its own time."""

    def __init__(self, show: Show, case: str, key: str):
        self.run, self.runs, self.colour = show.run(case, SUITE), show.runs(case, SUITE), case_colour(case)
        self.name = show.say.say(f"chunked_prefill.{key}")
        request = long_prompt(self.run.timeline)
        if request is None:
            raise TraceError(self.run.trace.path, "has no long prompt that is prefilled while other requests decode")
        query, otherwise = _READS[key]
        if not self.run.measure(query).value:
            raise TraceError(self.run.trace.path, otherwise)
        times = self.run.timeline.token_times_of(request)
        if not times:
            raise TraceError(self.run.trace.path, "ends before its long prompt has a first token")
        self.request = request
        self.arrival_ns = self.run.trace.arrivals[self.request].arrival_ns
        self.first_ns = times[0]
        self.grid, self.waits = (
            SlotGrid(self.run, show.say, show.colours(SUITE)),
            Waits(self.run, self.request, show.say),
        )

    def first_after(self) -> Measured:
        """How long the request waited for its first token, ms."""
        return self.run.measure("request_ttft_ms", request=self.request)

    def stall(self, query: str) -> Measured | None:
        """What the request's prefill did to those that decode; None where none decodes while it is prefilled."""
        try:
            return self.run.measure(query, request=self.request)
        except ValueError:
            return None

    def gap(self, which: str) -> Phrase:
        """The lowest or the highest of the runs' longest gaps."""
        value = measure(f"gap_beside_{which}_ms", self.runs, request=self.request, percentile=100)
        return figure(value, gap_style(value))


def _value(said: Phrase) -> float:
    """A figure as it is printed."""
    return float(said.text.replace(",", ""))


@scene("chunked_prefill", suite=SUITE, order=80, films=(FULL_LENGTH,))
def chunked_prefill(show: Show) -> Beat:
    """The beat of the runs with and without chunks. Raises TraceError where one is not there."""
    return Storyboard(show).beat()


class Storyboard:
    """The clock, the captions, and what is drawn when."""

    def __init__(self, show: Show):
        self.stage, self.say = show.stage, show.say.say
        self.whole = _Side(show, "unchunked", "whole")
        self.chunks = _Side(show, "chunked", "chunks")
        sides = (self.whole, self.chunks)
        require_comparable([run.trace for side in sides for run in side.runs], across=("token_budget",))
        longest = max(side.first_ns - side.arrival_ns for side in sides)
        self.before_ns, self.after_ns = round(longest * _BEFORE), round(longest * (1 + _AFTER))
        gaps = [side.waits.longest for side in sides]
        self.most_ns = max(end - begin for begin, end in filter(None, gaps))
        self.most_stall_ms = self.most_stalls_ms = 0.0
        self.most_first_ms = max(float(side.first_after().value) for side in sides)
        self._write_script()

    def _write_script(self) -> None:
        side, say = self.whole, self.say
        run, request = side.run, side.request
        begin = max(side.arrival_ns - self.before_ns, run.timeline.begin_ns)
        script = Script(begin).run(side.arrival_ns, 3.6)
        arrives = script.film_s
        script.hold(2.3)
        read = script.film_s
        # Long enough to see the wait, whatever the device.
        shown = min(max(self.after_ns / 1e9 * _SLOWER, 9.4), 9.5)
        end = side.arrival_ns + self.after_ns
        script.run(end, shown)
        self.verdict_s = script.film_s
        script.hold(_VERDICT_S)
        self.stalls_s = script.film_s
        told = self._stalls()
        if told:
            script.hold(_STALLS_S)
        self.clock = script.clock()
        name = quote(run.measure("request_name", request=request))
        runs = (self.whole.run, self.chunks.run)
        each = all(measure(asked, runs).value for asked in ("each_decode_gives_a_token", "decodes_leave_out_no_step"))
        decode = "chunked_prefill.decode" if each else "chunked_prefill.decode_some"
        self.captions = (
            Caption(0.0, say(decode, count=figure(run.measure("running", t_ns=begin)))),
            Caption(
                arrives,
                say(
                    "chunked_prefill.arrives",
                    request=name,
                    tokens=figure(run.measure("prompt_tokens", request=request), ",d"),
                ),
            ),
            Caption(read, say("chunked_prefill.waits", request=name)),
            *self._others(read + shown * 0.5, name),
            Caption(
                self.verdict_s,
                say(
                    "chunked_prefill.verdict",
                    runs=figure(measure("num_runs", self.whole.runs)),
                    low=self.whole.gap("low"),
                    high=self.whole.gap("high"),
                    chunks_low=self.chunks.gap("low"),
                    chunks_high=self.chunks.gap("high"),
                ),
            ),
            *([Caption(self.stalls_s, told)] if told else []),
        )

    def _stall(self, side: _Side, query: str) -> Measured | None:
        """What a side's prefill did to the others; None also where a step of it prefills others."""
        runs = (self.whole.run, self.chunks.run)
        alone = measure("is_prefilled_alone", runs, request=self.whole.request).value
        return side.stall(query) if alone else None

    def _stalls(self) -> Phrase | None:
        """What all stalls come to, read whole and in chunks; None where one of the two stalls none."""
        totals = [self._stall(side, "all_stalls_ms") for side in (self.whole, self.chunks)]
        longest = [self._stall(side, "longest_stall_ms") for side in (self.whole, self.chunks)]
        whole, chunks, one, other = (each and figure(each, gap_style(each)) for each in (*totals, *longest))
        if not (whole and chunks and one and other):
            return None
        self.most_stalls_ms = max(float(each.value) for each in totals if each)
        self.most_stall_ms = max(float(each.value) for each in longest if each)
        short = _value(other) < _value(one)
        key = "stalls_more" if short and _value(whole) < _value(chunks) else "stalls"
        key = "stalls_less" if short and _value(chunks) < _value(whole) else key
        name = quote(self.whole.run.measure("request_name", request=self.whole.request))
        said = {"request": name, "whole": whole, "chunks": chunks, "one": one, "other": other}
        return self.say(f"chunked_prefill.{key}", **said)

    def _others(self, at_s: float, name: Phrase) -> list[Caption]:
        """Where it is so: the others go on while the prompt is read in chunks, and their steps take longer."""
        run, request = self.chunks.run, self.chunks.request
        if not run.measure("is_read_while_others_decode", request=request).value:
            return []
        slower = run.measure("steps_that_read_it_are_slower", request=request).value
        key = "chunked_prefill.goes_on_slower" if slower else "chunked_prefill.goes_on"
        budget = figure(run.measure("header", field="token_budget"), ",d")
        return [Caption(at_s, self.say(key, request=name, budget=budget))]

    def places(self) -> list[Box]:
        """The place of each run."""
        content, shape = self.stage.content, self.stage.shape
        if shape is Shape.TALL:
            return content.rows(2, 56)
        return content.columns((1, 1), 72 if shape is Shape.WIDE else 36)

    def parts(self, place: Box) -> tuple[Box, Box, Box]:
        """The parts of a run's place: its slots, the waits of the others, and its figures."""
        top = place.y + _HEADED
        room = place.bottom - _FOOT - top
        grid = Box(place.x, top, place.w, (room - _BETWEEN) * 0.46)
        waits = Box(place.x, grid.bottom + _BETWEEN, place.w, place.bottom - _FOOT - grid.bottom - _BETWEEN)
        return grid, waits, Box(place.x, place.bottom - _FOOT + _OVER, place.w, _FOOT - _OVER)

    def paint(self, canvas: Canvas, film_s: float) -> None:
        """Draw both runs at a second of film."""
        since_ns = self.clock.engine_ns(film_s) - self.whole.arrival_ns
        for side, place in zip((self.whole, self.chunks), self.places(), strict=True):
            self._paint_side(canvas, side, place, side.arrival_ns + since_ns, film_s)

    def where(self, run: Run, request: int, film_s: float) -> list[Spot]:
        """A request's stays in the slots of both runs."""
        since_ns = self.clock.engine_ns(film_s) - self.whole.arrival_ns
        found = []
        for side, place in zip((self.whole, self.chunks), self.places(), strict=True):
            if side.run is run:
                found += stays_of(
                    side.grid, request, self.parts(place)[0], self._view(side), side.arrival_ns + since_ns
                )
        return found

    def _view(self, side: _Side) -> View:
        return View(side.arrival_ns - self.before_ns, side.arrival_ns + self.after_ns)

    def _paint_side(self, canvas: Canvas, side: _Side, place: Box, now_ns: int, film_s: float) -> None:
        say = self.say
        grid, waits, foot = self.parts(place)
        view = self._view(side)
        canvas.text(side.name, place.x, place.y + HEADING_LINE, HEADING, side.colour)
        side.grid.paint(canvas, grid, view, now_ns)
        x = view.along(grid).x(side.arrival_ns)
        head = say("chunked_prefill.since")
        canvas.text(head, waits.x, waits.y - _OVER, SMALL, DIM, room=waits.w)
        side.waits.paint(canvas, waits, view, self.most_ns, now_ns, side.colour, x)
        if now_ns >= side.arrival_ns:
            # Not through the words between the two.
            for top, bottom in ((grid.y - 8, grid.bottom + 8), (waits.y, waits.bottom)):
                canvas.line([(x, top), (x, bottom)], TEXT, 0.8, thickness=3, dashes=(4, 8))
            self._reading(canvas, side, grid, view, now_ns)
        self._facts(canvas, side, foot, now_ns, film_s)

    def _reading(self, canvas: Canvas, side: _Side, grid: Box, view: View, now_ns: int) -> None:
        """A frame around the long prompt while it is read."""
        timeline = side.run.timeline
        residency = timeline.residency_of(side.request, min(now_ns, side.first_ns - 1))
        if residency is None:
            return
        slot, from_ns = (
            int(side.run.trace.residencies.slot[residency]),
            int(side.run.trace.residencies.from_ns[residency]),
        )
        if slot < len(side.grid.rows(grid)):
            occupant = side.grid.residency_box(grid, view, slot, from_ns, min(now_ns, side.first_ns))
            canvas.card(*occupant.grown(3).sides, TEXT, radius=6, outline=4)

    def _facts(self, canvas: Canvas, side: _Side, foot: Box, now_ns: int, film_s: float) -> None:
        """What was measured, once it has happened; what all stalls come to at the end."""
        say, run = self.say, side.run
        name = quote(run.measure("request_name", request=side.request))
        longest, ttft = side.waits.longest, side.first_after()
        stall, who = self._stall(side, "longest_stall_ms"), self._stall(side, "longest_stalled")
        if stall is not None and who is not None:
            first_row = say("chunked_prefill.stalled", request=name, who=quote(who)), stall
        else:
            first_row = (
                say("chunked_prefill.longest"),
                run.measure("gap_beside_ms", request=side.request, percentile=100),
            )
        together = say("chunked_prefill.together")
        facts = (
            (longest[1] if longest else 0, *first_row),
            (side.first_ns, say("chunked_prefill.first", request=name), ttft),
        )
        *rows, last = foot.rows(3, 0)
        left = max(width(words.text, SMALL) for words in (*(words for _, words, _ in facts), together)) + 24
        for row, (at_ns, words, value) in zip(rows, facts, strict=True):
            canvas.text(words, row.x, row.y + LABEL_LINE, SMALL, DIM, room=row.w - _MS)
            span = max(self.clock.passage_at(self.clock.film_second(at_ns)).engine_s * 1e9, 1)
            shown = ease((now_ns - at_ns) / (0.03 * span) + 0.2) if now_ns >= at_ns else 0.0
            if shown:
                self._ms(canvas, row, value, shown)
        if stall is not None:
            shown = ease((film_s - self.verdict_s - 0.6) / _GROWS_S)
            self._bar(canvas, rows[0], left, stall, self.most_stall_ms, shown, side.colour)
            self._bar(canvas, rows[1], left, ttft, self.most_first_ms, shown, side.colour)
        total, grown = self._stall(side, "all_stalls_ms"), ease((film_s - self.stalls_s - 0.3) / _GROWS_S)
        if total is not None and grown:
            canvas.text(together, last.x, last.y + LABEL_LINE, SMALL, DIM, grown, room=last.w - _MS)
            self._ms(canvas, last, total, grown)
            self._bar(canvas, last, left, total, self.most_stalls_ms, grown, side.colour)

    @staticmethod
    def bar(row: Box, left: float, share: float) -> Box | None:
        """The bar of a row, between its words, which take `left` units, and its figure; None where it has no room."""
        room = row.w - left - _MS
        if room < _LEAST_BAR:
            return None
        return Box(row.x + left, row.y + LABEL_LINE - 9 - _BAR / 2, room * share, _BAR)

    def _bar(
        self, canvas: Canvas, row: Box, left: float, value: Measured, most_ms: float, grown: float, colour: Colour
    ) -> None:
        """A bar as long as a row's milliseconds are a share of the most."""
        bar = self.bar(row, left, float(value.value) / max(most_ms, 1e-9) * grown)
        if bar is not None and grown:
            canvas.box(*bar.sides, colour)

    def _ms(self, canvas: Canvas, row: Box, value: Measured, shown: float) -> None:
        """A number of milliseconds at the right of a row."""
        ms = self.say("chunked_prefill.ms", ms=figure(value, gap_style(value)))
        canvas.text(ms, row.right, row.y + LABEL_LINE, STRONG, TEXT, shown, align=1)

    def beat(self) -> Beat:
        """The beat."""
        runs = (self.whole.run, self.chunks.run)
        name = self.say("chunked_prefill.name")
        still_s = self.verdict_s + 1.0
        told = self.captions, self.clock, runs
        return Beat("chunked_prefill", name, *told, self.paint, still_s=still_s, where=self.where)
