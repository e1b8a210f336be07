"""Everything that is lettered on screen: words from the phrasebook, and figures and quotations from measured values.

A `Phrase` is the only thing that can be drawn as text. Its digits come from `Measured` values: a digit anywhere else
is refused when the phrase is made. Knows no fonts and no places.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from pathlib import Path
from string import Formatter

from tracereel.trace.analysis.queries import Measured, Value

CATALOGUES = Path(__file__).resolve().parent / "text"


PLAYER = "player"
"""The section of the words that are not lettered in a film but stand in the browser's page."""


class TypedDigitError(ValueError):
    """A digit, or a number in words, that is not measured was about to be drawn."""


def holds_digit(text: str) -> bool:
    """Is there a digit or another sign for a number, in whatever script?

    The Chinese 一 alone is a word of every other sentence; numbers above it are refused like all others.
    """
    return any(char.isnumeric() and char != "一" for char in text)


_NUMBERS = (
    "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
    "|dozen|hundred|thousand|million|billion|twice|thrice|double|doubled|triple|tripled|twofold|threefold|tenfold"
)
_NUMBER = re.compile(rf"\b({_NUMBERS})s?\b", re.IGNORECASE)
_CHINESE_NUMBER = re.compile("两(?!者)|俩|双倍|翻倍|加倍|成倍")
"""Numbers that are no numerals to Unicode. 两者, "both", counts nothing."""


@lru_cache(maxsize=4096)
def holds_number(text: str) -> bool:
    """Is there a digit, or a number in English or Chinese words? "One" is a word of every other sentence."""
    return holds_digit(text) or any(words.search(text) for words in (_NUMBER, _CHINESE_NUMBER))


@dataclass(frozen=True)
class Figure:
    """What a measured value says on screen: its value in a format, or its text as it is where `style` is QUOTED."""

    source: Measured
    style: str

    @cached_property
    def text(self) -> str:
        """What is read."""
        return shown_as(self.source.value, self.style)


QUOTED = "quoted"
FORMATS = frozenset(
    [QUOTED, "", "d", ",", ",d", "s"]
    + [f"{sign}{comma}.{n}{kind}" for sign in ("", "+") for comma in ("", ",") for n in range(7) for kind in "f%"]
)
"""Every format of a figure. A ledger is untrusted, and a format can ask for gigabytes (`999999999d`)."""


def shown_as(value: Value, style: str) -> str:
    """A value as text; the one place where formats are applied, for the screen and for verification.

    Raises ValueError where the format is none of FORMATS, or not one for this value.
    """
    if style not in FORMATS:
        raise ValueError(f"{style[:40]!r} is no format of a figure")
    if style == QUOTED or isinstance(value, str):
        return one_line(str(value)) if style == QUOTED else format(value, style)
    # A minus, as wide as a plus; format() writes a hyphen.
    return format(value, style).replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Phrase:
    """Text in pieces: words, which hold no number, and what measured values say."""

    pieces: tuple[str | Figure, ...]
    stated: "tuple[Stated, ...]" = field(default=(), compare=False, repr=False)
    """The phrasebook's sentences in it, to ask whether they are true."""

    def __post_init__(self) -> None:
        for piece in self.pieces:
            if isinstance(piece, str) and holds_number(piece):
                kind = "digit" if holds_digit(piece) else "number in words"
                raise TypedDigitError(f"{piece!r} holds a {kind} that is not measured")

    @cached_property
    def text(self) -> str:
        """What is read on screen."""
        return "".join(piece if isinstance(piece, str) else piece.text for piece in self.pieces)

    @cached_property
    def figures(self) -> tuple[Figure, ...]:
        """The measured values in it."""
        return tuple(piece for piece in self.pieces if not isinstance(piece, str))

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        # The ledger asks for it in each frame in which the phrase is drawn.
        return hash(self.pieces)

    def __add__(self, other: "Phrase") -> "Phrase":
        return Phrase(self.pieces + other.pieces, self.stated + other.stated)


@dataclass(frozen=True)
class Stated:
    """Words of the phrasebook by their key, with what was put into their places, and what they were said with."""

    key: str
    places: Mapping[str, Phrase]


EMPTY = Phrase(())


def words(text: str) -> Phrase:
    """Plain words. Raises TypedDigitError where they hold a digit."""
    return Phrase((text,))


def figure(value: Measured, style: str = "") -> Phrase:
    """A measured value as Python's format() shows it: `figure(ratio, ".1f")`."""
    return Phrase((Figure(value, style),))


def quote(value: Measured) -> Phrase:
    """A measured text as it is, on one line: what cannot be seen is shown by its sign."""
    return Phrase((Figure(value, QUOTED),))


def one_line(text: str) -> str:
    """Text with line ends and other control characters made visible, so that it stays on its line."""
    if text.isprintable():
        return text
    return "".join(_SIGNS.get(char, char if char.isprintable() else "·") for char in text)


_SIGNS = {"\n": "↵ ", "\r": "", "\t": " ", "\u00a0": " "}


_own_words: dict[str, Mapping[str, Mapping[str, str]]] = {}
"""The words that scenes brought along, by scene and language."""


def add_words(scene: str, words: Mapping[str, Mapping[str, str]]) -> None:
    """Add a scene's own words by language and key; a language that it lacks is given the words of its first."""
    _own_words[scene] = words


class Phrasebook:
    """The words of one language, by key (`scene.key`): from text/<language>.toml, and scenes' own."""

    def __init__(self, language: str = "en"):
        self.language = language
        own = {scene: words.get(language) or next(iter(words.values())) for scene, words in _own_words.items()}
        self._entries = {**own, **_load(language)}

    def texts(self) -> list[str]:
        """All words that a film may letter; a browser sets the player's in faces of its own."""
        return [text for scene, lines in self._entries.items() if scene != PLAYER for text in lines.values()]

    def has(self, key: str) -> bool:
        """Are there words of that key?"""
        scene, _, name = key.partition(".")
        return name in self._entries.get(scene, {})

    def say(self, key: str, /, **phrases: Phrase) -> Phrase:
        """The words of that key with phrases in their {places}.

        Raises KeyError for an unknown key or a place without a phrase, TypedDigitError for a digit in the words.
        """
        scene, _, name = key.partition(".")
        filled = fill(self._entries[scene][name], phrases)
        return Phrase(filled.pieces, (Stated(key, phrases), *filled.stated))


def fill(template: str, phrases: Mapping[str, Phrase]) -> Phrase:
    """Put phrases into the {places} of a template."""
    pieces: list[str | Figure] = []
    stated: list[Stated] = []
    for literal, place, _, _ in Formatter().parse(template):
        if literal:
            pieces.append(literal)
        if place is not None:
            pieces.extend(phrases[place].pieces)
            stated.extend(phrases[place].stated)
    return Phrase(tuple(pieces), tuple(stated))


@cache
def _load(language: str) -> dict[str, dict[str, str]]:
    with (CATALOGUES / f"{language}.toml").open("rb") as file:
        return tomllib.load(file)
