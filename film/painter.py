"""The canvas that draws with cairo.

Knows cairo and sprites. Does not know Manim, traces, or what is drawn.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import cairo
from tracereel.film.canvas import Canvas, Floats, Note, NotingCanvas, Sides
from tracereel.film.layout import Drawn, Kind, Watch
from tracereel.film.lettering import ink, shorten, sprite, width, words_of
from tracereel.film.phrases import Phrase
from tracereel.film.surfaces import disc_mask, image_of, qr_modules, stack_of
from tracereel.film.theme import DARK, INK, PAPER, Colour, Palette, Rgb, Type

_QUIET = 4
"""Modules around a QR code that stay empty (ISO/IEC 18004)."""
_UNSEEN = 0.004
"""What is fainter is not drawn."""


class CairoCanvas(NotingCanvas, Canvas):
    """A frame that is drawn with a cairo context. `note` is called with every phrase that is drawn, for a ledger.

    `watch`, where there is one, is called with the place of everything that is drawn, for a check of the layout.
    `swapped`: the surface's red and blue are exchanged, as in Manim's frame.
    """

    def __init__(
        self,
        ctx: "cairo.Context[Any]",
        pixels: tuple[int, int],
        note: Note,
        palette: Palette = DARK,
        *,
        watch: Watch | None = None,
        swapped: bool = False,
    ):
        super().__init__(note)
        self._ctx = ctx
        self.palette = palette
        self._watch = watch
        self._moving = False
        self._window: tuple[float, float, float, float] | None = None
        self._swapped = swapped
        self._channels: Callable[[Colour], Rgb] = self._exchanged if swapped else palette.rgb
        """A colour in the order of the surface's channels."""
        self.scale = min(pixels) / 1080
        """Pixels a unit."""
        self.width, self.height = pixels[0] / self.scale, pixels[1] / self.scale
        ctx.identity_matrix()

    def _exchanged(self, colour: Colour) -> Rgb:
        r, g, b = self.palette.rgb(colour)
        return b, g, r

    @contextmanager
    def moving(self) -> Iterator[None]:
        """Draw what is on its way from one place to another, and may pass over what stands."""
        before, self._moving = self._moving, True
        try:
            yield
        finally:
            self._moving = before

    @contextmanager
    def clipped(self, x: float, y: float, w: float, h: float) -> Iterator[None]:
        """Draw nothing outside this box."""
        self._ctx.save()
        self._ctx.rectangle(*self._box(x, y, w, h))
        self._ctx.clip()
        before, self._window = self._window, (x, y, x + w, y + h)
        try:
            yield
        finally:
            self._window = before
            self._ctx.restore()

    def _watch_thing(
        self,
        kind: Kind,
        name: str,
        box: tuple[float, float, float, float],
        colour: Colour,
        alpha: float,
        size: float = 0,
    ) -> None:
        """Report to the watch what is drawn where."""
        assert self._watch is not None
        if self._window is not None:
            left, top, right, bottom = self._window
            box = max(box[0], left), max(box[1], top), min(box[2], right), min(box[3], bottom)
        if box[2] > box[0] and box[3] > box[1]:
            self._watch(Drawn(kind, name, box, self.palette.rgb(colour), alpha * self._alpha, size, self._moving))

    def _watch_text(self, text: str, x: float, y: float, style: Type, colour: Colour, alpha: float) -> None:
        left, top, right, bottom = ink(text, style)
        self._watch_thing(Kind.TEXT, text, (x + left, y + top, x + right, y + bottom), colour, alpha, style.size)

    def _source(self, colour: Colour, alpha: float) -> bool:
        """Set the pen; False where nothing would be seen."""
        alpha *= self._alpha
        if alpha <= _UNSEEN:
            return False
        self._ctx.set_source_rgba(*self._channels(colour), alpha)
        return True

    def _box(self, x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
        return _whole(x, y, w, h, self.scale)

    def box(self, x: float, y: float, w: float, h: float, colour: Colour, alpha: float = 1.0) -> None:
        """A filled box."""
        if self._source(colour, alpha):
            self._ctx.rectangle(*self._box(x, y, w, h))
            self._ctx.fill()
            if self._watch:
                self._watch_thing(Kind.BOX, "box", (x, y, x + w, y + h), colour, alpha)

    def boxes(self, places: Sequence[Sides], colour: Colour, alpha: float = 1.0) -> None:
        """Filled boxes of one colour in one fill: there are hundreds of tiles in a frame."""
        if not places or not self._source(colour, alpha):
            return
        rectangle, scale = self._ctx.rectangle, self.scale
        for sides in places:
            rectangle(*_known_whole(*sides, scale))
        self._ctx.fill()
        if self._watch:
            for x, y, w, h in places:
                self._watch_thing(Kind.BOX, "box", (x, y, x + w, y + h), colour, alpha)

    def card(
        self,
        x: float,
        y: float,
        w: float,
        h: float,
        colour: Colour,
        alpha: float = 1.0,
        *,
        radius: float = 12,
        outline: float | None = None,
    ) -> None:
        """A box with round corners: filled, or only its outline of that width."""
        if not self._source(colour, alpha):
            return
        if self._watch:
            kind = Kind.CARD if outline is None else Kind.OUTLINE
            self._watch_thing(kind, "card", (x, y, x + w, y + h), colour, alpha)
        s = self.scale
        x, y, w, h = x * s, y * s, w * s, h * s
        r = min(radius * s, w / 2, h / 2)
        ctx = self._ctx
        ctx.new_sub_path()
        ctx.arc(x + w - r, y + r, r, -math.pi / 2, 0)
        ctx.arc(x + w - r, y + h - r, r, 0, math.pi / 2)
        ctx.arc(x + r, y + h - r, r, math.pi / 2, math.pi)
        ctx.arc(x + r, y + r, r, math.pi, math.pi * 3 / 2)
        ctx.close_path()
        if outline is None:
            ctx.fill()
        else:
            ctx.set_line_width(max(outline * s, 1))
            ctx.stroke()

    def glow(self, x: float, y: float, w: float, h: float, colour: Colour, alpha: float) -> None:
        """A light behind letters."""
        watch, self._watch = self._watch, None
        self.card(x, y, w, h, colour, alpha, radius=6)
        self._watch = watch

    def disc(
        self, x: float, y: float, radius: float, colour: Colour, alpha: float = 1.0, *, outline: float | None = None
    ) -> None:
        """A filled circle around (x, y), or only its outline of that width."""
        if self._source(colour, alpha):
            if self._watch:
                kind = Kind.DISC if outline is None else Kind.OUTLINE
                self._watch_thing(kind, "disc", (x - radius, y - radius, x + radius, y + radius), colour, alpha)
            # A quarter of a pixel is as near as one sees, and so the same few masks serve thousands of discs.
            quarters = round(x * self.scale * 4), round(y * self.scale * 4)
            line = None if outline is None else max(outline * self.scale, 1.0)
            mask, reach = disc_mask(radius * self.scale, line, quarters[0] % 4, quarters[1] % 4)
            self._ctx.mask_surface(mask, quarters[0] // 4 - reach, quarters[1] // 4 - reach)

    def line(
        self,
        points: list[tuple[float, float]],
        colour: Colour,
        alpha: float = 1.0,
        *,
        thickness: float = 2,
        dashes: tuple[float, ...] = (),
    ) -> None:
        """A line through points."""
        if len(points) < 2 or not self._source(colour, alpha):
            return
        if self._watch:
            half = thickness / 2
            for (ax, ay), (bx, by) in pairwise(points):
                box = min(ax, bx) - half, min(ay, by) - half, max(ax, bx) + half, max(ay, by) + half
                self._watch_thing(Kind.LINE, "line", box, colour, alpha)
        ctx, s = self._ctx, self.scale
        ctx.set_line_width(max(thickness * s, 1))
        ctx.set_line_join(cairo.LINE_JOIN_ROUND)
        ctx.set_line_cap(cairo.LINE_CAP_ROUND)
        if dashes:
            ctx.set_dash([dash * s for dash in dashes])
        ctx.move_to(points[0][0] * s, points[0][1] * s)
        for x, y in points[1:]:
            ctx.line_to(x * s, y * s)
        ctx.stroke()
        if dashes:
            ctx.set_dash([])

    def area(self, points: list[tuple[float, float]], colour: Colour, alpha: float = 1.0) -> None:
        """A filled shape with these corners."""
        if len(points) < 3 or not self._source(colour, alpha):
            return
        self._ctx.move_to(points[0][0] * self.scale, points[0][1] * self.scale)
        for x, y in points[1:]:
            self._ctx.line_to(x * self.scale, y * self.scale)
        self._ctx.close_path()
        self._ctx.fill()

    def stacked(self, sides: Sides, shares: Floats, colours: Sequence[Colour]) -> None:
        """Columns of stacked shares (colours, columns) in a box, as one picture.

        A path of thousands of corners takes ten times as long.
        """
        if self._alpha <= _UNSEEN or not shares.size:
            return
        left, top, wide, high = self._box(*sides)
        rgb = tuple(self._channels(colour) for colour in colours)
        self._ctx.save()
        self._ctx.translate(left, top)
        self._ctx.set_source_surface(stack_of(shares.tobytes(), rgb, int(wide), int(high)), 0, 0)
        self._ctx.paint_with_alpha(self._alpha)
        self._ctx.restore()

    def text(
        self,
        phrase: Phrase,
        x: float,
        y: float,
        style: Type,
        colour: Colour,
        alpha: float = 1.0,
        *,
        align: float = 0.0,
        room: float | None = None,
        part: str | None = None,
    ) -> float:
        """Letter a phrase on a baseline."""
        text = phrase.text if part is None else part
        if part is not None and part.removesuffix("…") not in phrase.text:
            raise ValueError(f"{part!r} is not part of {phrase.text!r}")
        wide = width(text, style)
        if room is not None and wide > room:
            text = shorten(text, style, room)
            wide = width(text, style)
        if not text or self._alpha * alpha <= _UNSEEN:
            return wide
        self._note(phrase, phrase.text if part is not None else text)
        if self._watch:
            self._watch_text(text, x - align * wide, y, style, colour, alpha)
        self._source(colour, alpha)
        self._letter(text, x - align * wide, y, style)
        return wide

    def _letter(self, text: str, x: float, y: float, style: Type) -> None:
        """Put a run of glyphs onto the frame: the one place where letters get there."""
        drawn = sprite(text, style, self.scale)
        self._ctx.mask_surface(drawn.mask, round(x * self.scale) + drawn.left, round(y * self.scale) + drawn.top)

    def tail(
        self, phrase: Phrase, x: float, y: float, style: Type, colour: Colour, *, room: float, ground: Colour
    ) -> float:
        """Letter the end of a phrase."""
        self._note(phrase, phrase.text)
        # Word by word: of a text that grows by a word only that word is rasterised again.
        pieces = words_of(phrase.text)
        widths = [width(piece, style) for piece in pieces]
        wide = sum(widths)
        start = min(x, x + room - wide)
        with self.clipped(x, y - style.size * 1.2, room, style.size * 1.7):
            if self._watch:
                self._watch_text(phrase.text, start, y, style, colour, 1.0)
            self._source(colour, 1.0)
            left = start
            for piece, piece_wide in zip(pieces, widths, strict=True):
                if left + piece_wide >= x:
                    self._letter(piece, left, y, style)
                left += piece_wide
        if start < x:
            self._veil(x, y - style.size, 44, style.size * 1.4, ground)
        return min(wide, room)

    def image(self, file: Path, sides: Sides, alpha: float = 1.0) -> None:
        """A PNG as large as it fits into a place (left, top, width, height), at its left."""
        x, y, w, h = sides
        picture = image_of(file, self._swapped)
        by = min(w / picture.get_width(), h / picture.get_height()) * self.scale
        self._ctx.save()
        self._ctx.translate(x * self.scale, y * self.scale)
        self._ctx.scale(by, by)
        self._ctx.set_source_surface(picture, 0, 0)
        self._ctx.paint_with_alpha(alpha * self._alpha)
        self._ctx.restore()

    def code(self, phrase: Phrase, sides: Sides, alpha: float = 1.0, *, url: str | None = None) -> None:
        """A phrase as a QR code."""
        x, y, w, h = sides
        if not self._source(INK, alpha):
            return
        self._note(phrase, phrase.text)
        modules = qr_modules(phrase.text if url is None else f"{url}#{phrase.text}")
        # Whole pixels, or a reader's camera sees stripes.
        pitch = max(int(w * self.scale / (len(modules) + 2 * _QUIET)), 1)
        side = pitch * (len(modules) + 2 * _QUIET) / self.scale
        self.card(x + w - side, y + h - side, side, side, PAPER, alpha, radius=10)
        left, top = (round((at - side) * self.scale) + _QUIET * pitch for at in (x + w, y + h))
        self._source(INK, alpha)
        for row, line in enumerate(modules):
            for column, dark in enumerate(line):
                if dark:
                    self._ctx.rectangle(left + column * pitch, top + row * pitch, pitch, pitch)
        self._ctx.fill()

    def _veil(self, x: float, y: float, w: float, h: float, colour: Colour) -> None:
        """A box that is the ground's colour at its left and nothing at its right."""
        r, g, b = self._channels(colour)
        left, top, width, height = self._box(x, y, w, h)
        fade = cairo.LinearGradient(left, 0, left + width, 0)
        fade.add_color_stop_rgba(0, r, g, b, self._alpha)
        fade.add_color_stop_rgba(1, r, g, b, 0)
        self._ctx.set_source(fade)
        self._ctx.rectangle(left, top, width, height)
        self._ctx.fill()


def _whole(x: float, y: float, w: float, h: float, scale: float) -> tuple[float, float, float, float]:
    """A box in whole pixels, at least one each way: uneven edges show at 480p."""
    left, top = round(x * scale), round(y * scale)
    return left, top, max(round((x + w) * scale) - left, 1), max(round((y + h) * scale) - top, 1)


_known_whole = lru_cache(maxsize=16384)(_whole)
"""For tiles, which stand where they stood in the frame before."""
