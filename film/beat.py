"""A beat of a film as a value: what is seen, what is said, and which instant of which runs each second of it shows.

`framed` adds what frames every beat: its title, its captions, and the strip with clock, model, device and trace. Knows
units, phrases and the film's clock. Does not know what a beat's picture shows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

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
_SMALL_TITLE_LOWER = 4.0
"""How much lower than a title of full size a smaller one stands."""
_RULE_OVER_CLOCK, _FOLLOWED_OVER_CLOCK = 46.0, 42.0
"""From the clock's baseline up to the rule above the strip, and to the words of the request that is followed."""
_APART, _APART_SMALL, _NARROW_APART = 48.0, 36.0, 24.0
"""Between what stands on one line of the strip: large, small, and in a frame that is not wide."""
_LIVE_AT = 330.0
"""How far from the left the running count begins, so that it stays in its place while the clock grows."""
_NAME_SHARE = 0.4
"""The share of the strip that the model's name may take, and the device's."""
_CAVEAT, _CAVEAT_PITCH = 20.0, 32.0
"""From the top of what nothing covers to the first line on a recording's state, and from line to line."""
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
    """The request that is followed from chapter to chapter; None: no request is followed."""
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
                y = stage.clear[1] + _CAVEAT + _CAVEAT_PITCH * i
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
        y = stage.title_line + (0 if self._title is TITLE else _SMALL_TITLE_LOWER)
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
            beat.follow.paint(canvas, left, right, lines[0] - _FOLLOWED_OVER_CLOCK, t_ns)
        else:
            rule = lines[0] - _RULE_OVER_CLOCK
            canvas.line([(left, rule), (right, rule)], LINE)
        time = say("strip.engine_time", seconds=figure(run.measure("engine_time_s", t_ns=t_ns), ".2f"))
        factor = factor_phrase(self._say, beat.clock, film_s)
        model, device = quote(run.measure("model")), quote(run.measure("device"))
        wide = canvas.text(time, left, lines[0], SMALL_STRONG, TEXT)
        if stage.wide:
            factor_wide = canvas.text(factor, right, lines[0], SMALL_STRONG, TEXT, align=1)
            if beat.live is not None:
                at = left + max(wide + _APART, _LIVE_AT)
                room = right - factor_wide - _APART - at
                canvas.text(beat.live(t_ns), at, lines[0], SMALL_STRONG, TEXT, room=room)
            most = (right - left) * _NAME_SHARE
            at = left + canvas.text(model, left, lines[1], SMALL, DIM, room=most) + _APART_SMALL
            at += canvas.text(device, at, lines[1], SMALL, DIM, room=most) + _APART_SMALL
            canvas.text(self._digests(right - at), right, lines[1], SMALL, DIM, align=1, room=right - at)
            return
        room = right - left - wide - _NARROW_APART
        canvas.text(factor, right, lines[0], SMALL_STRONG, TEXT, align=1, room=room)
        canvas.text(model, left, lines[1], SMALL, DIM, room=right - left)
        canvas.text(device, left, lines[2], SMALL, DIM, room=right - left)
        room = right - left
        if beat.live is not None:
            live = canvas.text(beat.live(t_ns), right, lines[-1], SMALL_STRONG, TEXT, align=1, room=room / 2)
            room -= live + _NARROW_APART
        canvas.text(self._digests(room), left, lines[-1], SMALL, DIM, room=room)

    def _digests(self, room: float) -> Phrase:
        """The digests of the traces that are shown, as many as there is room for."""
        fitting = (named for named in reversed(self._named) if width(named.text, SMALL) <= room)
        return next(fitting, self._named[0])

    @cached_property
    def _named(self) -> tuple[Phrase, ...]:
        """The digest of the only trace; else those of the first two, and of one more each time."""
        say = self._say.say
        digests = [quote(run.measure("digest")) for run in dict.fromkeys(self._beat.runs)]
        if len(digests) == 1:
            return (say("strip.trace", digest=digests[0]),)
        named = [say("strip.traces", first=digests[0], second=digests[1])]
        for digest in digests[2:]:
            named.append(say("strip.and_trace", before=named[-1], digest=digest))
        return tuple(named)


def factor_phrase(say: Phrasebook, clock: FilmClock, film_s: float) -> Phrase:
    """How the film's clock runs against the engine's at a second of film."""
    passage = clock.passage_at(film_s)
    if passage.engine_s == 0:
        return say.say("strip.held")
    if passage.even:
        return say.say("strip.even")
    slower = passage.film_s > passage.engine_s
    query, key = ("slowdown", "strip.slower") if slower else ("speedup", "strip.faster")
    value = measure(query, [], film_s=passage.film_s, engine_s=passage.engine_s)
    return say.say(key, factor=figure(value, ".1f"))
