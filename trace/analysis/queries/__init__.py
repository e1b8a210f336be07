"""Everything that can be asked of runs, by subject; the public door to measured values.

`measure("waiting", [run], t_ns=…)` asks, `query` registers a function of one's own, such as a scene outside this
package needs. A query's name and arguments stand in every film's ledger: neither is ever given another meaning.
"""

from tracereel.trace.analysis.queries import (
    film_clock,
    gains,
    instants,
    kv_cache,
    latencies,
    life,
    provenance,
    ratios,
    requests,
    sentences,
    special,
    stalls,
    steps,
    stretches,
    totals,
    waterfalls,
)
from tracereel.trace.analysis.queries.instants import slot_ranges
from tracereel.trace.analysis.queries.steps import FEWEST_STEPS, decode_step_ms, swept_rows
from tracereel.trace.analysis.queries.waterfalls import REST, change_ms, split
from tracereel.trace.analysis.query import (
    QUERIES,
    Answer,
    Argument,
    Lines,
    Measured,
    Run,
    UnknownQueryError,
    Value,
    evaluate,
    lines_of_run,
    lines_of_steps,
    lines_so_far,
    measure,
    median_of,
    query,
)

SUBJECTS = (
    *(film_clock, gains, instants, kv_cache, latencies, life, provenance, ratios, requests),
    *(sentences, special, stalls, steps, stretches, totals, waterfalls),
)
"""The modules that register this package's own queries."""

__all__ = [
    "FEWEST_STEPS",
    "QUERIES",
    "REST",
    "SUBJECTS",
    "Answer",
    "Argument",
    "Lines",
    "Measured",
    "Run",
    "UnknownQueryError",
    "Value",
    "change_ms",
    "decode_step_ms",
    "evaluate",
    "lines_of_run",
    "lines_of_steps",
    "lines_so_far",
    "measure",
    "median_of",
    "query",
    "slot_ranges",
    "split",
    "swept_rows",
]
