"""Another renderer: a frame of any scene as SVG, by a canvas of one's own instead of the cairo painter.

    python examples/renderer.py decode_batching 8.0 frame.svg

A beat draws on the `Canvas` that it is handed: units (the shorter side of a frame has 1,080), colours by meaning, and
phrases as text. So a renderer is a class with the canvas's methods; `NotingCanvas` has what all renderers share.
It must call `note` for every phrase that it shows: the ledger is made of these calls.
"""

import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import segno
from tracereel.film.beat import framed
from tracereel.film.canvas import Note, NotingCanvas, Sides
from tracereel.film.lettering import shorten, width
from tracereel.film.phrases import Phrase
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import storyboard
from tracereel.film.theme import GROUND, INK, PAPER, Colour, Palette, Type

Pixels = tuple[int, int]
Points = list[tuple[float, float]]


class SvgCanvas(NotingCanvas):
    """One frame as SVG elements; `pixels` gives the frame's shape, `note` is called with every phrase drawn."""

    def __init__(self, pixels: tuple[int, int], note: Note, palette: Palette):
        super().__init__(note)
        self.palette = palette
        self.scale = min(pixels) / 1080
        self.width, self.height = pixels[0] / self.scale, pixels[1] / self.scale
        self._parts, self._clips = list[str](), 0

    def svg(self) -> str:
        """The frame as a document."""
        ground = f'<rect width="100%" height="100%" fill="{self._code(GROUND)}"/>'
        size = f"{self.width:g} {self.height:g}"
        body = "\n".join([ground, *self._parts])
        return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}">\n{body}\n</svg>\n'

    @contextmanager
    def moving(self) -> Iterator[None]:
        """What is drawn inside moves; a still frame has no use for that."""
        yield

    @contextmanager
    def clipped(self, x: float, y: float, w: float, h: float) -> Iterator[None]:
        """Draw nothing outside this box."""
        self._clips += 1
        box = f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}"/>'
        self._parts.append(f'<clipPath id="clip{self._clips}">{box}</clipPath><g clip-path="url(#clip{self._clips})">')
        try:
            yield
        finally:
            self._parts.append("</g>")

    def box(self, x: float, y: float, w: float, h: float, colour: Colour, alpha: float = 1.0) -> None:
        """A filled box."""
        self.card(x, y, w, h, colour, alpha, radius=0)

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
        where = f'x="{x:.2f}" y="{y:.2f}" width="{max(w, 0):.2f}" height="{max(h, 0):.2f}" rx="{radius:g}"'
        self._draw("rect", where, colour, alpha, outline)

    def glow(self, x: float, y: float, w: float, h: float, colour: Colour, alpha: float) -> None:
        """A light behind letters."""
        self.card(x, y, w, h, colour, alpha, radius=6)

    def disc(
        self, x: float, y: float, radius: float, colour: Colour, alpha: float = 1.0, *, outline: float | None = None
    ) -> None:
        """A filled circle around (x, y), or only its outline of that width."""
        self._draw("circle", f'cx="{x:.2f}" cy="{y:.2f}" r="{radius:g}"', colour, alpha, outline)

    def line(
        self,
        points: Points,
        colour: Colour,
        alpha: float = 1.0,
        *,
        thickness: float = 2,
        dashes: tuple[float, ...] = (),
    ) -> None:
        """A line through points."""
        dashed = f' stroke-dasharray="{" ".join(map(str, dashes))}"' if dashes else ""
        ends = 'stroke-linejoin="round" stroke-linecap="round"'
        self._draw("polyline", f"{_points(points)} {ends}{dashed}", colour, alpha, thickness)

    def area(self, points: Points, colour: Colour, alpha: float = 1.0) -> None:
        """A filled shape with these corners."""
        self._draw("polygon", _points(points), colour, alpha, None)

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
        """Letter a phrase on the baseline y, shortened to `room`; returns its width in units."""
        text = phrase.text if part is None else part
        if room is not None:
            text = shorten(text, style, room)
        wide = width(text, style)
        if text and alpha * self._alpha > 0:
            self._note(phrase, phrase.text if part is not None else text)
            family = "JetBrains Mono, monospace" if style.mono else "Inter, sans-serif"
            font = f'font-family="{family}" font-size="{style.size:g}" font-weight="{style.weight}"'
            where = f'x="{x - align * wide:.2f}" y="{y:.2f}" textLength="{wide:.2f}"'
            opacity = f'fill="{self._code(colour)}" fill-opacity="{alpha * self._alpha:.3f}"'
            self._parts.append(f'<text {where} {font} {opacity} xml:space="preserve">{escape(text)}</text>')
        return wide

    def tail(
        self, phrase: Phrase, x: float, y: float, style: Type, colour: Colour, *, room: float, ground: Colour
    ) -> float:
        """Letter the end of a phrase that is wider than `room`; returns its width in units."""
        wide = width(phrase.text, style)
        with self.clipped(x, y - style.size * 1.2, room, style.size * 1.7):
            self.text(phrase, min(x, x + room - wide), y, style, colour)
        return min(wide, room)

    def image(self, file: Path, sides: Sides, alpha: float = 1.0) -> None:
        """A PNG as large as it fits into a place (left, top, width, height), at its left."""
        x, y, w, h = sides
        data = f"data:image/png;base64,{b64encode(file.read_bytes()).decode()}"
        fit = f'preserveAspectRatio="xMinYMin" opacity="{alpha * self._alpha:.3f}"'
        self._parts.append(f'<image x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" {fit} href={quoteattr(data)}/>')

    def code(self, phrase: Phrase, sides: Sides, alpha: float = 1.0, *, url: str | None = None) -> None:
        """A phrase as a QR code in a square place; of a `url`, where there is one, to which it is the fragment."""
        x, y, w, h = sides
        self._note(phrase, phrase.text)
        modules = segno.make(phrase.text if url is None else f"{url}#{phrase.text}", error="l", micro=False).matrix
        pitch = w / (len(modules) + 8)
        self.card(x, y, w, h, PAPER, alpha, radius=10)
        for row, bits in enumerate(modules):
            for column, dark in enumerate(bits):
                if dark:
                    self.box(x + (column + 4) * pitch, y + (row + 4) * pitch, pitch, pitch, INK, alpha)

    def _draw(self, element: str, where: str, colour: Colour, alpha: float, outline: float | None) -> None:
        alpha *= self._alpha
        if alpha <= 0:
            return
        code = self._code(colour)
        paint = f'fill="{code}" fill-opacity="{alpha:.3f}"'
        if outline is not None:
            paint = f'fill="none" stroke="{code}" stroke-opacity="{alpha:.3f}" stroke-width="{outline:g}"'
        self._parts.append(f"<{element} {where} {paint}/>")

    def _code(self, colour: Colour) -> str:
        return "#" + "".join(f"{round(255 * part):02x}" for part in self.palette.rgb(colour))


def _points(points: Points) -> str:
    return f'points="{" ".join(f"{x:.2f},{y:.2f}" for x, y in points)}"'


def frame(
    name: str, film_s: float, note: Note = lambda phrase, text: None, pixels: tuple[int, int] = (1920, 1080)
) -> str:
    """A frame of a scene's first beat at a second of it, as SVG. Raises UnknownSceneError and TraceError."""
    show = Show(Settings.from_environment(), pixels)
    canvas = SvgCanvas(pixels, note, show.palette)
    framed(storyboard(name, show)[0], show.stage, show.say)(canvas, film_s)
    return canvas.svg()


if __name__ == "__main__":
    Path(sys.argv[3]).write_text(frame(sys.argv[1], float(sys.argv[2])), encoding="utf-8")
