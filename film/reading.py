"""How long a reader needs for what is said on screen.

Knows texts and seconds; nothing of beats.
"""

import unicodedata

from tracereel.film.phrases import Phrase

UNITS_PER_S = 18.0
"""What is read in a second: 18 characters, or nine Chinese ones.

Subtitles of films stay for 15 to 20 characters a second; the style guide of a large streaming service asks for nine a
second of Chinese, in which a Latin letter, a digit or a half-width sign counts as half a character.
"""


def units(text: str) -> int:
    """The length of a text for its reader: a wide character (Unicode's East Asian Width) counts as two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def reading_s(phrase: Phrase) -> float:
    """The seconds that a phrase has to stay for."""
    return units(phrase.text) / UNITS_PER_S
