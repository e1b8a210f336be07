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
def axis_mark(*, value: float) -> Answer:
    """A mark on an axis stands at this value: declared, not measured."""
    return value, (0, 0)
