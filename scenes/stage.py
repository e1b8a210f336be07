"""The stage: where things may stand in a frame of any shape, and what frames every scene (title, captions, strip).

Knows units, phrases and the film's clock. Does not know what a scene shows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tracereel.scenes.clock import FilmClock, ease
from tracereel.scenes.components.canvas import Canvas
from tracereel.scenes.components.lettering import wrap
from tracereel.scenes.phrases import Catalogue, Phrase, figure, quote
from tracereel.scenes.theme import CAPTION, DIM, LINE, SMALL, SMALL_STRONG, TEXT, TITLE
from tracereel.trace.measured import Run, measure

FADE_S = 0.35


@dataclass(frozen=True)
class Box:
    """A place: left, top, width and height in units."""

    x: float
    y: float
    w: float
    h: float

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.x + self.w

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.y + self.h

    def towards(self, other: "Box", share: float) -> "Box":
        """A place on the way to another, 0 here to 1 there."""
        return Box(*(a + (b - a) * share for a, b in zip(self.sides, other.sides, strict=True)))

    @property
    def sides(self) -> tuple[float, float, float, float]:
        """(x, y, w, h)."""
        return self.x, self.y, self.w, self.h

    def rows(self, count: int, gap: float) -> list["Box"]:
        """Split into equal rows, the first on top."""
        height = (self.h - gap * (count - 1)) / count
        return [Box(self.x, self.y + i * (height + gap), self.w, height) for i in range(count)]

    def columns(self, shares: Sequence[float], gap: float) -> list["Box"]:
        """Split into columns whose widths are in these proportions."""
        room = self.w - gap * (len(shares) - 1)
        boxes, x = [], self.x
        for share in shares:
            width = room * share / sum(shares)
            boxes.append(Box(x, self.y, width, self.h))
            x += width + gap
        return boxes


@dataclass(frozen=True)
class Stage:
    """A frame of `width` x `height` units and the places that every scene keeps free or uses."""

    width: float
    height: float

    @classmethod
    def of_pixels(cls, width: int, height: int) -> "Stage":
        """The stage of a frame of that many pixels."""
        unit = min(width, height) / 1080
        return cls(width / unit, height / unit)

    @property
    def wide(self) -> bool:
        """Is it a landscape frame, to be filled side by side rather than one above the other?"""
        return self.width > self.height * 1.2

    @property
    def margin(self) -> float:
        """Nothing is lettered nearer to a side than this."""
        return 64 if self.wide else 56

    @property
    def _tall(self) -> bool:
        return self.height > self.width * 1.2

    @property
    def title_line(self) -> float:
        """The title's baseline."""
        return 160 if self._tall else 100

    @property
    def caption_lines(self) -> tuple[float, ...]:
        """Baselines of the caption."""
        top = self.title_line + (60 if self.wide else 66)
        return (top,) if self.wide else (top, top + 48, top + 96)

    @property
    def strip_lines(self) -> tuple[float, ...]:
        """Baselines of the clock strip."""
        bottom = self.height - (120 if self._tall else 36)
        return (bottom - 42, bottom) if self.wide else (bottom - 84, bottom - 42, bottom)

    @property
    def content(self) -> Box:
        """Where the scene itself stands."""
        top = self.caption_lines[-1] + 44
        return Box(self.margin, top, self.width - 2 * self.margin, self.strip_lines[0] - 72 - top)


@dataclass(frozen=True)
class Caption:
    """What is said from one second of film on."""

    from_s: float
    phrase: Phrase


@dataclass(frozen=True)
class Chrome:
    """What frames a replay: its title, what is said, and the strip with clock, model, device and trace."""

    stage: Stage
    say: Catalogue
    title: Phrase
    captions: tuple[Caption, ...]
    clock: FilmClock
    runs: tuple[Run, ...]
    live: Callable[[int], Phrase] | None = None
    """What else the strip says at an engine time."""

    def paint(self, canvas: Canvas, film_s: float) -> None:
        """Draw the frame's frame at a second of film."""
        stage = self.stage
        canvas.text(self.title, stage.margin, stage.title_line, TITLE, TEXT, room=stage.content.w)
        for i, caption in enumerate(self.captions):
            until = self.captions[i + 1].from_s if i + 1 < len(self.captions) else self.clock.film_s + 1
            if caption.from_s <= film_s < until:
                shown = min(ease((film_s - caption.from_s) / FADE_S), ease((until - film_s) / FADE_S))
                self._caption(canvas, caption.phrase, shown)
        self._strip(canvas, film_s)

    def _caption(self, canvas: Canvas, phrase: Phrase, alpha: float) -> None:
        stage = self.stage
        lines = wrap(phrase.text, CAPTION, stage.content.w)
        if len(lines) == 1:
            canvas.text(phrase, stage.margin, stage.caption_lines[0], CAPTION, DIM, alpha)
            return
        for line, y in zip(lines, stage.caption_lines, strict=False):
            canvas.text(phrase, stage.margin, y, CAPTION, DIM, alpha, part=line)

    def _strip(self, canvas: Canvas, film_s: float) -> None:
        stage, run = self.stage, self.runs[0]
        lines = stage.strip_lines
        canvas.line([(stage.margin, lines[0] - 46), (stage.width - stage.margin, lines[0] - 46)], LINE)
        t_ns = self.clock.engine_ns(film_s)
        time = self.say.say("strip.engine_time", seconds=figure(run.measure("engine_time_s", t_ns=t_ns), ".2f"))
        factor = factor_phrase(self.say, self.clock, film_s)
        digests = [quote(each.measure("digest")) for each in self.runs]
        traces = (
            self.say.say("strip.trace", digest=digests[0])
            if len(digests) == 1
            else self.say.say("strip.traces", first=digests[0], second=digests[1])
        )
        model, device = quote(run.measure("model")), quote(run.measure("device"))
        left, right = stage.margin, stage.width - stage.margin
        wide = canvas.text(time, left, lines[0], SMALL_STRONG, TEXT)
        if self.live is not None and stage.wide:
            canvas.text(self.live(t_ns), max(left + wide + 48, left + 330), lines[0], SMALL_STRONG, TEXT)
        canvas.text(factor, right, lines[0], SMALL_STRONG, TEXT, align=1)
        if stage.wide:
            room = (right - left) / 2 - 20
            wide = canvas.text(model, left, lines[1], SMALL, DIM, room=room)
            canvas.text(device, left + wide + 36, lines[1], SMALL, DIM, room=room)
            canvas.text(traces, right, lines[1], SMALL, DIM, align=1)
        else:
            room = right - left
            canvas.text(model, left, lines[1], SMALL, DIM, room=room * 0.52)
            canvas.text(device, right, lines[1], SMALL, DIM, align=1, room=room * 0.46)
            canvas.text(traces, left, lines[2], SMALL, DIM, room=room)
            if self.live is not None:
                canvas.text(self.live(t_ns), right, lines[2], SMALL_STRONG, TEXT, align=1)


def factor_phrase(say: Catalogue, clock: FilmClock, film_s: float) -> Phrase:
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
