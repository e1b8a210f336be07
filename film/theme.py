"""How everything looks: colours by meaning, sizes of type. Values only.

A colour in a scene is a meaning (`PREFILL`, `STATIC`, the colour of a request); a `Palette` says what it looks like, on
a dark ground or on a light one. Lengths are in units: a frame is 1,080 units along its shorter side, whatever its
resolution. Knows neither where nor when anything is drawn.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

Rgb = tuple[float, float, float]
"""Red, green and blue, 0 to 1 (sRGB)."""


@dataclass(frozen=True, eq=False)
class Role:
    """A colour by its meaning: one object each."""

    name: str


@dataclass(frozen=True)
class Mixed:
    """`one` with `share` (0 to 1) of `other` in it."""

    one: "Colour"
    other: "Colour"
    share: float


@dataclass(frozen=True)
class Letters:
    """A colour as text on the ground: darkened on a light ground until it can be read."""

    colour: "Colour"


Colour = Role | Mixed | Letters


@lru_cache(maxsize=4096)
def mix(one: Colour, other: Colour, share: float) -> Colour:
    """`one` with `share` (0 to 1) of `other` in it."""
    return Mixed(one, other, round(share, 3))


GROUND, PANEL, LINE = Role("ground"), Role("panel"), Role("line")
TEXT, DIM = Role("text"), Role("dim")
INK = Role("ink")
"""Text on a request's colour."""
PAPER = Role("paper")
"""What a QR code is printed on."""

PREFILL, DECODE, FINISHED = Role("prefill"), Role("decode"), Role("finished")
IDLE = Role("idle")
IDLE_SLOT = mix(GROUND, IDLE, 0.42)
"""A slot that is idle while requests wait."""
SPARE_SLOT = mix(GROUND, LINE, 0.6)
"""A slot that is idle because no request waits."""
ACCENT = Role("accent")
"""The brand's own colour; DECODE's where no brand says otherwise."""

CONTINUOUS = DECODE
STATIC, SAME_POSITION = Role("static"), Role("same_position")
VLLM, TRANSFORMERS = SAME_POSITION, Role("transformers")
"""Other engines, where engines are raced and not policies; ours is CONTINUOUS."""

_CASES = {
    "static": STATIC,
    "same-position": SAME_POSITION,
    "unchunked": STATIC,
    "transformers-static": STATIC,
    "transformers": TRANSFORMERS,
    "vllm": VLLM,
}


def case_colour(case: str) -> Colour:
    """The colour of a case or a policy, the same in every scene: CONTINUOUS where it is no baseline of another."""
    return _CASES.get(case, CONTINUOUS)


REQUESTS = tuple(Role(f"request_{letter}") for letter in "abcdefgh")


def rgb_of(code: str) -> Rgb:
    """A colour from its #rrggbb code."""
    return int(code[1:3], 16) / 255, int(code[3:5], 16) / 255, int(code[5:7], 16) / 255


@dataclass(frozen=True)
class Palette:
    """What each meaning looks like; `letters` is the share of TEXT in a colour that is lettered with."""

    name: str
    codes: Mapping[str, str]
    letters: float
    _made: dict[Colour, Rgb] = field(default_factory=dict, repr=False, compare=False)

    def rgb(self, colour: Colour) -> Rgb:
        """What a colour looks like. Raises KeyError for a role that the palette does not have."""
        made = self._made.get(colour)
        if made is None:
            made = self._made[colour] = self._make(colour)
        return made

    def _make(self, colour: Colour) -> Rgb:
        if isinstance(colour, Role):
            return rgb_of(self.codes[colour.name])
        if isinstance(colour, Letters):
            return self._make(Mixed(colour.colour, TEXT, self.letters))
        r, g, b = (
            a + (z - a) * colour.share for a, z in zip(self.rgb(colour.one), self.rgb(colour.other), strict=True)
        )
        return r, g, b

    def with_accent(self, code: str) -> "Palette":
        """The same palette with another accent (#rrggbb)."""
        return replace(self, codes={**self.codes, ACCENT.name: code}, _made={})


# Found by search over sRGB: the smallest difference between two colours of a set, seen normally and as simulated for
# protanopia, deuteranopia and tritanopia (Machado, Oliveira and Fernandes 2009), as large as it gets while text in and
# on each reaches WCAG AA. A test holds them to it.
_REQUEST_CODES = ("#7896ff", "#f0e187", "#f069b4", "#87f0ff", "#b4965a", "#ffa5a5", "#b4c31e", "#87c3ff")
_REQUESTS_SHOWN = {role.name: code for role, code in zip(REQUESTS, _REQUEST_CODES, strict=True)}

DARK = Palette(
    "dark",
    {
        "ground": "#10141b",
        "panel": "#181e28",
        "line": "#3a465a",
        "text": "#edf1f7",
        "dim": "#a3afc2",
        "ink": "#10141b",
        "paper": "#ffffff",
        "prefill": "#ffe066",
        "decode": "#4fd3ee",
        "finished": "#9ad29c",
        "idle": "#e8556a",
        "accent": "#4fd3ee",
        "static": "#f58a4b",
        "same_position": "#b18cff",
        "transformers": "#548c8c",
        **_REQUESTS_SHOWN,
    },
    letters=0.0,
)
LIGHT = Palette(
    "light",
    {
        "ground": "#f8f9fb",
        "panel": "#e8ecf2",
        "line": "#b3bdcb",
        "text": "#10141b",
        "dim": "#465064",
        "ink": "#10141b",
        "paper": "#ffffff",
        "prefill": "#695a0f",
        "decode": "#2f55d4",
        "finished": "#004b1e",
        "idle": "#200808",
        "accent": "#2f55d4",
        "static": "#a52a00",
        "same_position": "#3d1173",
        "transformers": "#1c3838",
        **_REQUESTS_SHOWN,
    },
    letters=0.66,
)
PALETTES = {palette.name: palette for palette in (DARK, LIGHT)}


@dataclass(frozen=True)
class Type:
    """A style of lettering: size in units, weight 100 to 900, and whether all characters are equally wide."""

    size: float
    weight: int = 400
    mono: bool = False

    def __hash__(self) -> int:
        # Every word of every frame is looked up by its style.
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.size, self.weight, self.mono))


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
HEADING_LINE = 34.0
"""From the top of a panel to the baseline of the heading in it."""
LABEL_LINE = 30.0
"""From the top of a panel to the baseline of a label in it (STRONG or smaller)."""
OVER_PANEL = 20.0
"""From the baseline of a heading to the panel below it."""
UNDER_PLOT = 40.0
"""From the lower edge of a plot to the baseline of the words under it."""
HEADED, COUNTED = 56.0, 62.0
"""What a heading takes above the panel below it, and what one with a count or a name next to it does."""
APART = 24.0
"""Between words that stand next to each other on a line."""
IN_ROW = 9.0
"""From the middle of a row to the baseline of SMALL letters in it."""
SWATCH, BEFORE_WORDS = 22.0, 34.0
"""A square of a colour that words explain, and how far its left edge is from them."""
CARD_BAR, CARD_INSET, CARD_END = 10.0, 26.0, 18.0
"""A request's card: its bar of colour at the left; from the left edge to its words, from them to the right edge."""
AFTER_NAME = 14.0
"""From a request's name on a card to what stands after it."""
LEAST_PROMPT = 60.0
"""Less room than that, and a prompt is not lettered at all."""
LEAST_SIZE = 26.0
"""Nothing is set smaller: 26 units are 11.5 pixels at 480p."""
