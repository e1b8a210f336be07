"""Text as outlines and as sprites: shaped by HarfBuzz from font files that come as packages, drawn by cairo.

The same outlines at every size, unhinted, so every machine draws the same frame. Knows glyphs; does not know what may
be written (`phrases`).
"""

import json
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources

import cairo
import uharfbuzz as hb
from tracereel.scenes.theme import Type

_PACKAGES = {"sans": "fontpkg_inter", "mono": "fontpkg_jetbrains_mono"}
FAMILIES = {"sans": "Inter", "mono": "JetBrains Mono"}


@cache
def font_path(face: str) -> str:
    """The upright variable font file of a face (`sans`, `mono`)."""
    root = resources.files(_PACKAGES[face])
    facts = json.loads((root / "metadata.json").read_text())
    file = next(entry["path"] for entry in facts["files"] if entry["style"] == "normal")
    return str(root / file)


@cache
def _face(face: str) -> hb.Face:
    return hb.Face(hb.Blob.from_file_path(font_path(face)))


@cache
def _font(face: str, weight: int, optical: int) -> hb.Font:
    font = hb.Font(_face(face))
    font.set_variations({"wght": weight, "opsz": optical})
    return font


Point = tuple[float, float]
Command = tuple[str, tuple[Point, ...]]
"""A drawing command (move_to, line_to, curve_to, close_path) and its points, y upwards."""


class _Outline:
    """Collects a glyph's outline as drawing commands; quadratic curves are made cubic, as cairo has no other."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self._at: Point = (0.0, 0.0)

    def _add(self, name: str, *points: Point) -> None:
        self.commands.append((name, points))
        if points:
            self._at = points[-1]

    def moveTo(self, to: Point) -> None:  # noqa: N802 (these are the names of the pen protocol)
        self._add("move_to", to)

    def lineTo(self, to: Point) -> None:  # noqa: N802
        self._add("line_to", to)

    def curveTo(self, *points: Point) -> None:  # noqa: N802
        self._add("curve_to", *points)

    def qCurveTo(self, *points: Point) -> None:  # noqa: N802
        control, end = points
        self._add("curve_to", _between(self._at, control), _between(end, control), end)

    def closePath(self) -> None:  # noqa: N802
        self._add("close_path")


def _between(end: Point, control: Point) -> Point:
    """The cubic control point of a quadratic curve: two thirds of the way from an end to the quadratic one."""
    return end[0] + (control[0] - end[0]) * 2 / 3, end[1] + (control[1] - end[1]) * 2 / 3


@lru_cache(maxsize=8192)
def _outline(face: str, weight: int, optical: int, glyph: int) -> tuple[Command, ...]:
    pen = _Outline()
    _font(face, weight, optical).draw_glyph_with_pen(glyph, pen)
    return tuple(pen.commands)


def outline_of(face: str, glyph: int, style: Type) -> list[Command]:
    """A glyph's outline in units for a style, from its own origin."""
    scale = style.size / _face(face).upem
    commands = _outline(face, style.weight, _optical(style), glyph)
    return [(name, tuple((x * scale, y * scale) for x, y in points)) for name, points in commands]


@dataclass(frozen=True)
class Line:
    """A shaped line of text: glyphs with their places, and its width, all in units."""

    glyphs: tuple[tuple[str, int, float, float], ...]
    """(face, glyph, x, y) of each; y upwards from the baseline."""
    width: float
    type: Type


@lru_cache(maxsize=16384)
def shape(text: str, style: Type) -> Line:
    """Shape a line of text; figures are all equally wide, so that a running number does not tremble."""
    glyphs: list[tuple[str, int, float, float]] = []
    x = 0.0
    for face, part in _by_face(text, "mono" if style.mono else "sans"):
        font = _font(face, style.weight, _optical(style))
        scale = style.size / _face(face).upem
        buffer = hb.Buffer()
        buffer.add_str(part)
        buffer.guess_segment_properties()
        # Only where digits are: tabular punctuation would tear words apart.
        digits = [(i, i + 1, True) for i, char in enumerate(part) if char.isdigit()]
        hb.shape(font, buffer, {"kern": True, "tnum": digits} if digits else {"kern": True})
        for info, place in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
            glyphs.append((face, info.codepoint, x + place.x_offset * scale, place.y_offset * scale))
            x += place.x_advance * scale
    return Line(tuple(glyphs), x, style)


def _optical(style: Type) -> int:
    """The design size: wider and plainer below, tighter above."""
    return int(min(max(style.size * 0.75, 14), 32))


def _by_face(text: str, first: str) -> list[tuple[str, str]]:
    """Split text into parts that one face can set: the wanted one, or else the other."""
    other = "mono" if first == "sans" else "sans"
    parts: list[tuple[str, str]] = []
    for char in text:
        face = other if not _has(first, char) and _has(other, char) else first
        if parts and parts[-1][0] == face:
            parts[-1] = (face, parts[-1][1] + char)
        else:
            parts.append((face, char))
    return parts


@cache
def _has(face: str, char: str) -> bool:
    return _font(face, 400, 20).get_nominal_glyph(ord(char)) is not None


def width(text: str, style: Type) -> float:
    """The width of a line of text, in units."""
    return shape(text, style).width


@lru_cache(maxsize=16384)
def shorten(text: str, style: Type, room: float) -> str:
    """The longest beginning of a text that fits, with an ellipsis where something is left out."""
    if width(text, style) <= room:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if width(text[:middle].rstrip() + "…", style) <= room:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"


@lru_cache(maxsize=4096)
def wrap(text: str, style: Type, room: float) -> tuple[str, ...]:
    """A text in lines that fit, broken at spaces; a word that is too long alone is shortened."""
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width(longer, style) <= room:
            lines[-1] = longer
        elif not lines:
            lines = [word]
        else:
            lines.append(word)
    return tuple(shorten(line, style, room) for line in lines)


@dataclass(frozen=True)
class Sprite:
    """A line of text as a mask; `left` and `top` are where its corner lies from the line's start on the baseline."""

    mask: cairo.ImageSurface
    left: float
    top: float


@lru_cache(maxsize=6000)
def sprite(text: str, style: Type, scale: float) -> Sprite:
    """Rasterise a line of text at `scale` pixels a unit."""
    line = shape(text, style)
    margin = 2
    left, top = -margin, -round(style.size * scale * 1.1) - margin
    size = (round(line.width * scale) + 2 * margin + 2, round(style.size * scale * 1.5) + 2 * margin)
    mask = cairo.ImageSurface(cairo.FORMAT_A8, max(size[0], 1), max(size[1], 1))
    pen = cairo.Context(mask)
    pen.translate(-left, -top)
    trace_line(pen, line, scale)
    pen.fill()
    return Sprite(mask, left, top)


def trace_line(pen: "cairo.Context[cairo.ImageSurface]", line: Line, scale: float) -> None:
    """Add the outlines of a shaped line to cairo's path, its baseline starting at the origin, y downwards."""
    optical = _optical(line.type)
    for face, glyph, x, y in line.glyphs:
        unit = line.type.size * scale / _face(face).upem
        pen.save()
        pen.translate(x * scale, -y * scale)
        pen.scale(unit, -unit)
        for name, points in _outline(face, line.type.weight, optical, glyph):
            getattr(pen, name)(*(value for point in points for value in point))
        pen.restore()
