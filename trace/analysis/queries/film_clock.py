"""The film's own clock: declared, not measured, and recomputed like everything else."""

from tracereel.trace.analysis.query import Answer, query


@query
def slowdown(*, film_s: float, engine_s: float) -> Answer:
    """How many times slower than measured a passage of film is shown: film seconds / engine seconds."""
    return film_s / engine_s, (0, 0)


@query
def speedup(*, film_s: float, engine_s: float) -> Answer:
    """How many times faster than measured a passage of film is shown: engine seconds / film seconds."""
    return engine_s / film_s, (0, 0)


@query
def axis_value(*, low: float, high: float, share: float) -> Answer:
    """The value at a share, 0 to 1, of an axis from `low` to `high`, where a mark is drawn; not measured."""
    return low + (high - low) * share, (0, 0)


@query
def log_axis_value(*, low: float, high: float, share: float) -> Answer:
    """`axis_value` of an axis that is even in the logarithm."""
    return low * (high / low) ** share, (0, 0)
