"""A beat of a film as a value: what is seen, what is said, and which instant of which runs each second of it shows.

`framed` adds what frames every beat: its title, its captions, and the strip with clock, model, device and trace. Knows
units, phrases and the film's clock. Does not know what a beat's picture shows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tracereel.film.canvas import Canvas
from tracereel.film.clock import FilmClock, ease
from tracereel.film.facts import refuse_false
from tracereel.film.follow import Follow
from tracereel.film.lettering import width, wrap
from tracereel.film.phrases import Phrase, Phrasebook, figure, quote
from tracereel.film.reading import reading_s
from tracereel.film.spoken_time import refuse_other_times
from tracereel.film.stage import Shape, Spot, Stage
from tracereel.film.theme import ACCENT, CAPTION, DIM, HEADING, LINE, SMALL, SMALL_STRONG, TEXT, TITLE, Type
from tracereel.trace.analysis.queries import Run, measure

FADE_S = 0.35
Paint = Callable[[Canvas, float], None]
"""Draws what is seen at a second of the beat."""
Where = Callable[[Run, int, float], Sequence[Spot]]
"""The places at which a request of a run is seen at a second of the beat."""


@dataclass(frozen=True)
class Caption:
    """What is said from one second of the beat on."""

    from_s: float
    phrase: Phrase

    @property
    def read_s(self) -> float:
        """The second by which it has been read: before that, nothing else is said."""
        return self.from_s + reading_s(self.phrase)


@dataclass(frozen=True)
class Beat:
    """One beat. `runs` are those whose traces it shows; the first one's clock is the beat's.

    `live` is what else the strip says at an engine time.
    """

    name: str
    title: Phrase
    captions: tuple[Caption, ...]
    clock: FilmClock
    runs: tuple[Run, ...]
    picture: Paint
    live: Callable[[int], Phrase] | None = None
    still_s: float | None = None
    """A second whose frame tells what the beat is about: its thumbnail. Its end where it is None."""
    heard: int | None = None
    """The request whose tokens alone are heard; None: all are."""
    framed: bool = True
    """Is it framed by title, captions and strip?"""
    titled_s: float = math.inf
    """Until which second its title stands over it: a larger one may take its place."""
    compared: tuple[Run, ...] = ()
    """All runs that its sentences compare, repeats too; those it shows where it names none."""
    follow: Follow | None = None
    """The request whose life is told from chapter to chapter; None: no request is followed."""
    where: Where | None = None
    """Where a request is seen; None: the picture shows no single request."""

    def spoken(self) -> list[tuple[float, float, Phrase]]:
        """Every caption with its first and its last second."""
        ends = [*(caption.from_s for caption in self.captions[1:]), self.clock.film_s]
        return [
            (caption.from_s, end, caption.phrase)
            for caption, end in zip(self.captions, ends, strict=True)
            if end > caption.from_s
        ]


def framed(beat: Beat, stage: Stage, say: Phrasebook) -> Paint:
    """The beat's picture with what frames it.

    Painting raises LyingClockError where it states another time, FalseSentenceError where a sentence is not true.
    """
    caveats = _caveats(beat, say)
    # In a square frame a large title would stand in their place.
    title = HEADING if caveats and stage.shape is Shape.SQUARE else TITLE
    chrome = _Chrome(beat, stage, say, title) if beat.framed else None

    def paint(canvas: Canvas, film_s: float) -> None:
        t_ns = beat.clock.engine_ns(film_s)

        def check(phrase: Phrase) -> None:
            refuse_other_times(phrase, beat.clock, beat.runs, film_s)
            refuse_false(phrase, beat.runs, beat.compared or beat.runs, t_ns)

        with canvas.checked(check):
            beat.picture(canvas, film_s)
            if beat.follow is not None and beat.where is not None:
                for run, request in beat.follow.seen:
                    beat.follow.mark(canvas, beat.where(run, request, film_s))
            if chrome is not None:
                chrome.paint(canvas, film_s)
            for i, caveat in enumerate(caveats):
                y = stage.clear[1] + 20 + 32 * i
                canvas.text(caveat, stage.right, y, SMALL_STRONG, ACCENT, align=1, room=stage.content.w)

    return paint


def _caveats(beat: Beat, say: Phrasebook) -> list[Phrase]:
    """What has to be said of recordings that are broken, and of those that were cut off."""
    runs = list(dict.fromkeys(beat.runs))
    broken = [run for run in runs if run.trace.broken is not None]
    cut = [run for run in runs if run.trace.cut is not None and run not in broken]
    said = []
    for key, found in (("broken", broken), ("cut", cut)):
        if found:
            first, *others = (quote(run.measure("digest")) for run in found)
            for other in others:
                first = say.say("strip.and_trace", before=first, digest=other)
            said.append(say.say(f"strip.{key}", digests=first))
    return said


class _Chrome:
    """Draws title, caption and strip."""

    def __init__(self, beat: Beat, stage: Stage, say: Phrasebook, title: Type):
        self._beat, self._stage, self._say, self._title = beat, stage, say, title
        self._spoken = beat.spoken()

    def paint(self, canvas: Canvas, film_s: float) -> None:
        stage = self._stage
        stands = 1 - ease((film_s - self._beat.titled_s) / FADE_S)
        y = stage.title_line + (0 if self._title is TITLE else 4)
        canvas.text(self._beat.title, stage.margin, y, self._title, TEXT, stands, room=stage.content.w)
        if stage.captioned:
            for from_s, until, phrase in self._spoken:
                last = until >= self._beat.clock.film_s
                if from_s <= film_s and (film_s < until or last):
                    leaves = 1.0 if last else ease((until - film_s) / FADE_S)
                    # The first is there with the first frame, which many see alone.
                    comes = ease((film_s - from_s) / FADE_S) if from_s else 1.0
                    self._caption(canvas, phrase, min(comes, leaves))
        self._strip(canvas, film_s)

    def _caption(self, canvas: Canvas, phrase: Phrase, alpha: float) -> None:
        stage = self._stage
        lines = wrap(phrase.text, CAPTION, stage.content.w)
        if len(lines) == 1:
            canvas.text(phrase, stage.margin, stage.caption_lines[0], CAPTION, DIM, alpha)
            return
        for line, y in zip(lines, stage.caption_lines, strict=False):
            canvas.text(phrase, stage.margin, y, CAPTION, DIM, alpha, part=line)

    def _strip(self, canvas: Canvas, film_s: float) -> None:
        stage, say, beat = self._stage, self._say.say, self._beat
        run, lines = beat.runs[0], stage.strip_lines
        left, right = stage.margin, stage.right
        t_ns = beat.clock.engine_ns(film_s)
        if beat.follow is not None:
            beat.follow.paint(canvas, left, right, lines[0] - 42, t_ns)
        else:
            canvas.line([(left, lines[0] - 46), (right, lines[0] - 46)], LINE)
        time = say("strip.engine_time", seconds=figure(run.measure("engine_time_s", t_ns=t_ns), ".2f"))
        factor = factor_phrase(self._say, beat.clock, film_s)
        model, device = quote(run.measure("model")), quote(run.measure("device"))
        wide = canvas.text(time, left, lines[0], SMALL_STRONG, TEXT)
        half = (right - left) / 2
        if stage.wide:
            factor_wide = canvas.text(factor, right, lines[0], SMALL_STRONG, TEXT, align=1)
            if beat.live is not None:
                # Kept in its place while the clock grows.
                at = left + max(wide + 48, 330)
                canvas.text(beat.live(t_ns), at, lines[0], SMALL_STRONG, TEXT, room=right - factor_wide - 48 - at)
            wide = canvas.text(model, left, lines[1], SMALL, DIM, room=half * 0.8)
            wide += 36 + canvas.text(device, left + wide + 36, lines[1], SMALL, DIM, room=half * 0.8)
            traces = self._traces(right - left - wide - 36)
            canvas.text(traces, right, lines[1], SMALL, DIM, align=1, room=right - left - wide - 36)
            return
        canvas.text(factor, right, lines[0], SMALL_STRONG, TEXT, align=1, room=right - left - wide - 24)
        canvas.text(model, left, lines[1], SMALL, DIM, room=right - left)
        canvas.text(device, left, lines[2], SMALL, DIM, room=right - left)
        wide = 0.0
        if beat.live is not None:
            wide = 24 + canvas.text(beat.live(t_ns), right, lines[-1], SMALL_STRONG, TEXT, align=1, room=half)
        canvas.text(self._traces(right - left - wide), left, lines[-1], SMALL, DIM, room=right - left - wide)

    def _traces(self, room: float) -> Phrase:
        """The digests of the traces that are shown, as many as there is room for."""
        digests = [quote(run.measure("digest")) for run in dict.fromkeys(self._beat.runs)]
        if len(digests) == 1:
            return self._say.say("strip.trace", digest=digests[0])
        named = self._say.say("strip.traces", first=digests[0], second=digests[1])
        for digest in digests[2:]:
            more = self._say.say("strip.and_trace", before=named, digest=digest)
            if width(more.text, SMALL) > room:
                break
            named = more
        return named


def factor_phrase(say: Phrasebook, clock: FilmClock, film_s: float) -> Phrase:
    """How the film's clock runs against the engine's at a second of film."""
    passage = clock.passage_at(film_s)
    if passage.engine_s == 0:
        return say.say("strip.held")
    slower = passage.film_s / passage.engine_s
    if 0.99 < slower < 1.01:
        return say.say("strip.even")
    query, key = ("slowdown", "strip.slower") if slower > 1 else ("speedup", "strip.faster")
    value = measure(query, [], film_s=passage.film_s, engine_s=passage.engine_s)
    return say.say(key, factor=figure(value, ".1f"))
