"""A phrase as a Manim mobject: one outline a glyph, for titles that are written, faded or moved.

The same shaping and fonts as on the canvas. Knows Manim; what may be written is up to `phrases`.
"""

import numpy as np
from manim import ManimColor, VGroup, VMobject, config
from tracereel.scenes.components.lettering import outline_of, shape
from tracereel.scenes.phrases import Phrase
from tracereel.scenes.theme import TEXT, Colour, Type


def unit() -> float:
    """One unit of the theme in Manim's lengths."""
    return float(min(config.frame_width, config.frame_height)) / 1080


class Lettered(VGroup):
    """A line of text, or of a phrase in several lines the `part` that stands in this one.

    Its submobjects are the glyphs. The baseline's start lies at the origin.
    """

    def __init__(self, phrase: Phrase, style: Type, colour: Colour = TEXT, *, part: str | None = None):
        super().__init__()
        self.phrase = phrase
        scale = unit()
        for face, glyph, x, y in shape(phrase.text if part is None else part, style).glyphs:
            drawn = VMobject(stroke_width=0, fill_color=ManimColor.from_rgb(colour), fill_opacity=1)
            at = np.array([x, y, 0.0]) * scale
            for name, points in outline_of(face, glyph, style):
                places = [at + np.array([px, py, 0.0]) * scale for px, py in points]
                if name == "move_to":
                    drawn.start_new_path(places[0])
                elif name == "line_to":
                    drawn.add_line_to(places[0])
                elif name == "curve_to":
                    drawn.add_cubic_bezier_curve_to(*places)
                elif drawn.has_points():
                    drawn.close_path()
            if drawn.has_points():
                self.add(drawn)

    @property
    def is_visible(self) -> bool:
        """Is any of it to be seen?"""
        return any(glyph.get_fill_opacity() > 0 for glyph in self.submobjects)
