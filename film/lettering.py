"""Text as outlines and as sprites: shaped by HarfBuzz from font files that come as packages, drawn by cairo.

The same outlines at every size, unhinted, so every machine draws the same frame. Knows glyphs; does not know what may
be written (`phrases`).
"""

import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from itertools import accumulate
from pathlib import Path

import cairo
import uharfbuzz as hb
from tracereel.film.theme import Type

_PACKAGES = {"sans": "fontpkg_inter", "mono": "fontpkg_jetbrains_mono"}
_added: list[str] = []
"""Files of further faces, asked in this order for what the packaged ones lack."""


class FontError(Exception):
    """A font file cannot be used; the message is one line."""


def add_faces(files: Iterable[Path]) -> None:
    """Set what the packaged faces lack (CJK, say) in faces from these files (.ttf, .otf, .ttc), the first first.

    Raises FontError for a file that is no font.
    """
    for file in files:
        try:
            glyphs = hb.Face(hb.Blob.from_file_path(str(file))).glyph_count
        except (OSError, hb.HarfBuzzError) as error:
            raise FontError(f"{file}: cannot be read ({error})") from None
        if not glyphs:
            raise FontError(f"{file}: not a font file")
        if str(file) not in _added:
            _added.append(str(file))
            for cached in (_has, shape, width, sprite, ink, shorten, wrap):
                cached.cache_clear()


def can_set(text: str) -> bool:
    """Is there a glyph for every character?"""
    return all(any(_has(face, char) for face in _faces("sans")) for char in text)


def _faces(first: str) -> tuple[str, ...]:
    """The faces in the order in which they are asked for a glyph."""
    return (first, "mono" if first == "sans" else "sans", *_added)


@cache
def font_path(face: str) -> str:
    """The file of a face: the upright variable font of `sans` and `mono`, an added face's own."""
    if face not in _PACKAGES:
        return face
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
    """Split text into parts that one face can set: the wanted one, or else the first that has the character."""
    faces = _faces(first)
    parts: list[tuple[str, str]] = []
    for char in text:
        face = next((face for face in faces if _has(face, char)), first)
        if parts and unicodedata.combining(char):
            face = parts[-1][0]  # a mark stands on what is before it
        if parts and parts[-1][0] == face:
            parts[-1] = (face, parts[-1][1] + char)
        else:
            parts.append((face, char))
    return parts


@cache
def _has(face: str, char: str) -> bool:
    return _font(face, 400, 20).get_nominal_glyph(ord(char)) is not None


@lru_cache(maxsize=16384)
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
    """A text in lines that fit, broken at spaces and between ideographs; a word too long alone is shortened.

    Lines are as full as they can be, but that the last one is not left with a word or two.
    """
    pieces = _breakable(text)
    lines = _filled(pieces, style, room)
    if len(lines) > 1 and width(lines[-1].rstrip(), style) < room / 3:
        narrower = (_filled(pieces, style, room * share / 20) for share in range(10, 20))
        lines = next((found for found in narrower if len(found) == len(lines)), lines)
    return tuple(shorten(line.rstrip(), style, room) for line in lines)


def line_ends(text: str, style: Type, room: float) -> tuple[int, ...]:
    """Where the lines of a text end that fit, as many characters from its beginning; none is shortened."""
    return tuple(accumulate(len(line) for line in _filled(_breakable(text), style, room)))


def _filled(pieces: list[str], style: Type, room: float) -> list[str]:
    lines = [""]
    for piece in pieces:
        longer = lines[-1] + piece
        if lines[-1] and width(longer.rstrip(), style) > room:
            lines.append(piece)
        else:
            lines[-1] = longer
    return lines


@lru_cache(maxsize=1024)
def words_of(text: str) -> tuple[str, ...]:
    """A text in words with the spaces after them, to be set one after the other; whole where it runs to the left."""
    if not text.isascii() and any(unicodedata.bidirectional(char) in ("R", "AL", "AN") for char in text):
        return (text,)
    return tuple(re.findall(r"\S+\s*|\s+", text))


_QUANTITY = re.compile(r"\d (?=(?:ms|s|tokens/s)\b)")


def _breakable(text: str) -> list[str]:
    """Text in pieces between which a line may end: after a space, and between ideographs, but not before a stop.

    A number and its unit stay together.
    """
    units = {found.end() for found in _QUANTITY.finditer(text)}
    pieces: list[str] = []
    for i, char in enumerate(text):
        wide = unicodedata.east_asian_width(char) in ("W", "F") and unicodedata.category(char).startswith("L")
        after_space = bool(pieces) and pieces[-1].endswith(" ") and i not in units
        if not pieces or after_space or (wide and not pieces[-1].endswith(("（", "“"))):
            pieces.append(char)
        else:
            pieces[-1] += char
    return pieces


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


@lru_cache(maxsize=8192)
def _path(face: str, weight: int, optical: int, glyph: int) -> cairo.Path:
    """A glyph's outline as cairo keeps it, in the font's own units: appended in one call."""
    pen = cairo.Context(cairo.ImageSurface(cairo.FORMAT_A8, 1, 1))
    for name, points in _outline(face, weight, optical, glyph):
        getattr(pen, name)(*(value for point in points for value in point))
    return pen.copy_path()


def trace_line(pen: "cairo.Context[cairo.ImageSurface]", line: Line, scale: float) -> None:
    """Add the outlines of a shaped line to cairo's path, its baseline starting at the origin, y downwards."""
    optical = _optical(line.type)
    for face, glyph, x, y in line.glyphs:
        unit = line.type.size * scale / _face(face).upem
        pen.save()
        pen.translate(x * scale, -y * scale)
        pen.scale(unit, -unit)
        pen.append_path(_path(face, line.type.weight, optical, glyph))
        pen.restore()


@lru_cache(maxsize=8192)
def ink(text: str, style: Type) -> tuple[float, float, float, float]:
    """Where the ink of a line lies: left, top, right and bottom in units from its start on the baseline, y downwards.

    All zero where nothing is drawn.
    """
    pen = cairo.Context(cairo.ImageSurface(cairo.FORMAT_A8, 1, 1))
    trace_line(pen, shape(text, style), 1.0)
    left, top, right, bottom = pen.path_extents()
    return left, top, right, bottom
