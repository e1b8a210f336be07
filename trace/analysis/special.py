"""What only some engines and models have: groups of KV, LoRA, drafts, cached tokens, KV on its way, graphs, experts.

Reads the records themselves: a trace keeps in memory what every engine says, and this is for the few that say more.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tracereel.trace.format.decoding import MalformedRecordError, decode_record
from tracereel.trace.format.events import Arrival, Header, Step
from tracereel.trace.format.storage import LineReader


@dataclass(slots=True)
class _Sums:
    groups: list[str] = field(default_factory=list)
    loras: Counter[str] = field(default_factory=Counter)
    cached_from: Counter[str] = field(default_factory=Counter)
    waited: set[int] = field(default_factory=set)
    graphs: Counter[str] = field(default_factory=Counter)
    drafted: int = 0
    invalid: int = 0
    accepted: int = 0
    freed: int = 0
    graph_padding: int = 0
    experts: dict[int, Counter[int]] = field(default_factory=dict)
    """For each layer with experts how often each was taken."""


def special_facts(path: Path) -> dict[str, str]:
    """What a trace says beyond what every engine does, in words; empty where it says nothing of the kind.

    Records that cannot be read are passed over. Raises TraceError where the file cannot be read at all.
    """
    sums = _Sums()
    for _, line in LineReader(path):
        try:
            event = decode_record(line)
        except MalformedRecordError:
            continue
        if isinstance(event, Step):
            _add(sums, event)
        elif isinstance(event, Arrival) and event.lora is not None:
            sums.loras[event.lora] += 1
        elif isinstance(event, Header):
            sums.groups = [
                f"{group.kind} × {group.layers}" if group.layers else group.kind for group in event.kv_groups
            ]
    return _in_words(sums)


def _add(sums: _Sums, step: Step) -> None:
    for admission in step.admitted:
        sums.cached_from.update(admission.cached_from)
    for drafted, sampled in zip(step.drafted or (), step.sampled, strict=False):
        if drafted:
            sums.drafted += drafted
            sums.accepted += max(sampled - 1, 0)
    sums.invalid += sum(step.invalid_drafts or ())
    sums.freed += sum(len(release.blocks) for release in step.freed)
    sums.waited.update(each.request for each in step.loading)
    for layer, taken in enumerate(step.experts):
        if taken:
            sums.experts.setdefault(layer, Counter()).update(dict(enumerate(taken)))
    if step.graph is not None:
        sums.graphs[step.graph.mode] += 1
        sums.graph_padding += step.graph.padding


def _in_words(sums: _Sums) -> dict[str, str]:
    facts = {
        "kv_groups": ", ".join(sums.groups),
        "kv_blocks_freed_early": f"{sums.freed:,}" if sums.groups else "",
        "lora_requests": ", ".join(f"{name} {count:,}" for name, count in sorted(sums.loras.items())),
        "cached_tokens_by_source": ", ".join(f"{name} {count:,}" for name, count in sorted(sums.cached_from.items())),
        "requests_that_waited_for_kv": f"{len(sums.waited):,}" if sums.waited else "",
        "drafts": f"{sums.accepted:,} of {sums.drafted:,} accepted, {sums.invalid:,} invalid" if sums.drafted else "",
        "graphs": ", ".join(f"{mode} {count:,} steps" for mode, count in sorted(sums.graphs.items())),
        "graph_padding": f"{sums.graph_padding:,}" if sums.graphs else "",
        "experts": _experts_in_words(sums.experts),
    }
    return {name: said for name, said in facts.items() if said}


def _experts_in_words(layers: dict[int, Counter[int]]) -> str:
    """How many layers and experts there are, and how much more than its share the busiest of a layer was taken."""
    if not any(taken.total() for taken in layers.values()):
        return ""
    busiest = max(max(taken.values()) * len(taken) / taken.total() for taken in layers.values() if taken.total())
    experts = max(map(len, layers.values()))
    return f"{len(layers)} layers × {experts}, busiest of a layer {busiest:.2f} × the mean"
