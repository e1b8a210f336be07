"""How many digits a time is printed with: so many that it is not printed as nothing. Draws nothing."""

from tracereel.film.phrases import Phrase, figure
from tracereel.trace.analysis.queries import Measured

_TENTHS_FROM_S = 3
_HUNDREDTHS_BELOW_MS, _WHOLE_FROM_MS = 3, 1000
_WHOLE_GAPS_FROM_MS = 10
_MOST_DIGITS = 6


def seconds_figure(value: Measured) -> Phrase:
    """A time in seconds: tenths where it is several, else hundredths, and more where it is short."""
    return figure(value, style(value, digits=1 if float(value.value) >= _TENTHS_FROM_S else 2))


def ms_style(*values: Measured) -> str:
    """The format of times in milliseconds that are compared: tenths; hundredths where one is short; whole where all
    are long."""
    least = min(float(value.value) for value in values)
    return style(*values, digits=2 if least < _HUNDREDTHS_BELOW_MS else 0 if least >= _WHOLE_FROM_MS else 1)


def wait_figure(value: Measured) -> Phrase:
    """A wait in milliseconds, with so many digits that a ratio of two can be checked."""
    ms = float(value.value)
    return figure(value, ".2f" if ms < 10 else ".1f" if ms < 100 else ",.0f")


def gap_style(value: Measured) -> str:
    """The format of a gap between tokens in milliseconds: whole ones where they are enough, else hundredths."""
    return ",.0f" if float(value.value) >= _WHOLE_GAPS_FROM_MS else ".2f"


def style(*values: Measured, digits: int) -> str:
    """The format with so many digits, or with more where the least of the values would have less than two of them."""
    least = min(float(value.value) for value in values)
    if least > 0:
        digits = next((n for n in range(digits, _MOST_DIGITS) if least * 10**n >= 10), _MOST_DIGITS)
    return f".{digits}f"
