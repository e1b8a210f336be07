"""What only some engines say of a run: LoRA, drafts, experts, sources of cached tokens, KV on its way, graphs."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from tracereel.trace.analysis.query import Answer, Run, Value, lines_of_run, query
from tracereel.trace.analysis.special import KNOBS, SpecialSums, counted, special_sums

FACTS: dict[str, Callable[[SpecialSums], Value]] = {
    "lora_requests": lambda sums: counted(sums.loras),
    "cached_tokens_by_source": lambda sums: counted(sums.cached_from),
    "waited_for_kv": lambda sums: len(sums.waited),
    "kv_transfers": lambda sums: len(sums.transfers_ns),
    "median_transfer_ms": lambda sums: sums.median_transfer_ms,
    "drafts_scheduled": lambda sums: sums.drafted,
    "drafts_accepted": lambda sums: sums.accepted,
    "drafts_invalid": lambda sums: sums.invalid,
    "graphs": lambda sums: counted(sums.graphs),
    "graph_padding": lambda sums: sums.graph_padding,
    "expert_layers": lambda sums: sum(1 for taken in sums.experts.values() if taken.total()),
    "experts_of_a_layer": lambda sums: sums.experts_of_a_layer,
    "busiest_expert": lambda sums: sums.busiest_expert,
}
"""What may be asked besides the knobs, by name; nothing said is an empty text or 0."""


@query
def special(run: Run, *, fact: str) -> Answer:
    """One of FACTS or KNOBS: what only some engines say of a run; an empty text or 0 where it says nothing.

    A knob is given with its name, such as "max_loras 2". `busiest_expert` is how many times as often as the mean of its
    layer the busiest expert was taken; `drafts_accepted` are the tokens that a step sampled beyond the first where it
    had drafts. Raises ValueError for another fact.
    """
    sums = _sums(run.trace.path, run.trace.digest)
    if fact in KNOBS:
        return (f"{fact} {sums.knobs[fact]}" if fact in sums.knobs else ""), (1, 1)
    if fact not in FACTS:
        raise ValueError(f"no special fact is called {fact!r}")
    return FACTS[fact](sums), lines_of_run(run)


@lru_cache(maxsize=8)
def _sums(path: Path, digest: str) -> SpecialSums:
    """Those of a trace; a film asks for several facts of the same run."""
    return special_sums(path)
