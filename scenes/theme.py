"""How everything looks: colours by meaning, sizes of type, spaces. Values only.

Lengths are in units: a frame is 1,080 units along its shorter side, whatever its resolution.
"""

from dataclasses import dataclass

Colour = tuple[float, float, float]


def rgb(code: str) -> Colour:
    """A colour from its #rrggbb code, components 0 to 1."""
    return int(code[1:3], 16) / 255, int(code[3:5], 16) / 255, int(code[5:7], 16) / 255


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """`one` with `share` (0 to 1) of `other` in it."""
    r, g, b = (a + (z - a) * share for a, z in zip(one, other, strict=True))
    return r, g, b


GROUND = rgb("#10141b")
PANEL = rgb("#181e28")
LINE = rgb("#2e3848")
TEXT = rgb("#edf1f7")
DIM = rgb("#9aa7bb")
INK = rgb("#10141b")
"""Text on a request's colour."""

PREFILL = rgb("#f2c14e")
DECODE = rgb("#58c4dd")
FINISHED = rgb("#8fd694")
IDLE = rgb("#ff6f61")
IDLE_SLOT = mix(GROUND, IDLE, 0.34)

CONTINUOUS = DECODE
STATIC = rgb("#f08a5d")
SAME_POSITION = rgb("#b99cf5")

REQUESTS = tuple(
    rgb(code) for code in ("#6bb3f0", "#f5a962", "#8fd06a", "#f08bb4", "#f2dc6d", "#b09ff5", "#55d3c4", "#f08a6c")
)


def request_colour(request: int) -> Colour:
    """The colour of a request, the same in every scene; neighbours in the order of arrival differ."""
    return REQUESTS[request % len(REQUESTS)]


@dataclass(frozen=True)
class Type:
    """A style of lettering: size in units, weight 100 to 900, and whether all characters are equally wide."""

    size: float
    weight: int = 400
    mono: bool = False


TITLE = Type(58, 650)
HEADING = Type(36, 600)
CAPTION = Type(36, 400)
BODY = Type(30, 400)
STRONG = Type(30, 600)
SMALL = Type(26, 400)
SMALL_STRONG = Type(26, 600)
MONO = Type(30, 400, mono=True)
FIGURE = Type(64, 650)
HUGE = Type(168, 700)
# 26 units are 11.5 pixels at 480p: nothing is set smaller.
