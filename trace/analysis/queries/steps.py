"""Steps by the number of their rows, over several runs."""

from collections.abc import Sequence

import numpy as np
from tracereel.trace.analysis.query import Answer, Run, lines_of_run, query

FEWEST_STEPS = 3
"""Steps of a number of rows that a median is made of, at least."""


def decode_step_ms(runs: Sequence[Run], rows: int) -> list[float]:
    """The time of every step of the runs that prefills nothing and has so many rows, padding among them; in ms."""
    found: list[float] = []
    for run in runs:
        steps = run.trace.steps
        found += run.metrics.step_ms[run.decode_rows == rows].tolist() if len(steps) else []
    return found


def swept_rows(runs: Sequence[Run]) -> list[int]:
    """One row, and the runs' numbers of slots: those of which there are steps enough for a median, in order."""
    numbers = {1, *(run.trace.header.slots for run in runs)}
    return sorted(rows for rows in numbers if len(decode_step_ms(runs, rows)) >= FEWEST_STEPS)


@query
def rows_of_sweep(*runs: Run, nth: int) -> Answer:
    """How many rows the steps have that are the `nth`, from 0, by their rows in `swept_rows`.

    Raises ValueError where there are not so many.
    """
    swept = swept_rows(runs)
    if not 0 <= nth < len(swept):
        raise ValueError(f"the runs have steps of {len(swept)} numbers of rows")
    return swept[nth], lines_of_run(runs[0])


@query
def step_ms_median(*runs: Run, rows: int) -> Answer:
    """The median time of a step that prefills nothing and has so many rows, padding among them; in ms."""
    return float(np.median(decode_step_ms(runs, rows))), lines_of_run(runs[0])


@query
def step_ms_ratio(*runs: Run, rows: int, base: int) -> Answer:
    """How many times as long a step of `rows` rows takes as one of `base` rows, by their medians."""
    return float(np.median(decode_step_ms(runs, rows)) / np.median(decode_step_ms(runs, base))), lines_of_run(runs[0])


@query
def guessed_efficiency(*runs: Run) -> Answer:
    """A guess that was never measured: how a notebook modelled the efficiency of a batch of B. An illustration."""
    return "max(0.5, 1 − 0.1 ln B)", (1, 1)
