"""Where a speed-up comes from: two runs, the earlier first; of several pairs, as in a ratio."""

from collections.abc import Sequence
from functools import lru_cache

from tracereel.trace.analysis.query import Answer, Run, lines_of_run, query
from tracereel.trace.analysis.waterfall import PARTS, Waterfall, waterfall


@lru_cache(maxsize=64)
def split(before: Run, after: Run) -> Waterfall:
    """The speed-up of one run over another in parts. Raises NoWaterfallError."""
    return waterfall(before.trace, after.trace)


REST = "the rest"
"""Faster steps and time outside steps together."""


def change_ms(found: Waterfall, part: str) -> float:
    """Milliseconds an output token that a part added, one of PARTS or REST; below 0 it saved them."""
    meant = PARTS[2:] if part == REST else (part,)
    return -sum(found.parts[PARTS.index(name)].saved_ms for name in meant)


@query
def waterfall_change_ms(before: Run, after: Run, *, part: str) -> Answer:
    """Milliseconds an output token that a part of the speed-up added; below 0 it saved them."""
    return change_ms(split(before, after), part), lines_of_run(before)


@query
def waterfall_change_us(before: Run, after: Run, *, part: str) -> Answer:
    """Microseconds an output token that a part of the speed-up added; below 0 it saved them."""
    return change_ms(split(before, after), part) * 1e3, lines_of_run(before)


@query
def waterfall_matched(before: Run, after: Run) -> Answer:
    """The share (0 to 1) of the later run's step time in steps whose like the earlier run measured too."""
    return split(before, after).priced, lines_of_run(after)


@query
def waterfall_change_low_ms(*runs: Run, part: str) -> Answer:
    """The least that a part added in any pair; the runs are (earlier, later, earlier, later, ...)."""
    return min(_changes(runs, part)), lines_of_run(runs[0])


@query
def waterfall_change_low_us(*runs: Run, part: str) -> Answer:
    """`waterfall_change_low_ms` in microseconds."""
    return min(_changes(runs, part)) * 1e3, lines_of_run(runs[0])


@query
def waterfall_change_high_us(*runs: Run, part: str) -> Answer:
    """`waterfall_change_high_ms` in microseconds."""
    return max(_changes(runs, part)) * 1e3, lines_of_run(runs[0])


@query
def waterfall_change_high_ms(*runs: Run, part: str) -> Answer:
    """The most that a part added in any pair; the runs are (earlier, later, earlier, later, ...)."""
    return max(_changes(runs, part)), lines_of_run(runs[0])


def _changes(runs: Sequence[Run], part: str) -> list[float]:
    pairs = zip(runs[::2], runs[1::2], strict=True)
    return [change_ms(split(before, after), part) for before, after in pairs]
