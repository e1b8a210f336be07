"""What only some engines and models have: groups of KV, LoRA, drafts, cached tokens, KV on its way, graphs, experts.

Reads the records themselves: a trace keeps in memory what every engine says, and this is for the few that say more.
"""

import re
import statistics
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tracereel.trace.format.decoding import MalformedRecordError, decode_record
from tracereel.trace.format.events import Arrival, Header, Step
from tracereel.trace.format.storage import LineReader

KNOBS = (
    "scheduling_policy",
    "prefill_schedule_interval",
    "long_prefill_token_threshold",
    "long_prefill_token_threshold_adaptive",
    "max_num_active_seqs",
    "watermark",
    "max_num_partial_prefills",
    "speculative_method",
    "speculative_tokens",
    "max_loras",
    "kv_connector",
)
"""Settings in a header's `config` that decide which request is scheduled and how, where an engine has them set."""
_SPECIAL = re.compile(
    rb'"(?:header|lora|drafted|invalid_drafts|cached_from|freed|loading|transfers|experts|graph)"',
)
"""What stands in each record that says anything of the kind: all others are passed over unread."""


@dataclass(slots=True)
class SpecialSums:
    """What the records of a trace add up to, of what only some engines say."""

    groups: list[str] = field(default_factory=list)
    loras: Counter[str] = field(default_factory=Counter)
    cached_from: Counter[str] = field(default_factory=Counter)
    waited: set[int] = field(default_factory=set)
    transfers_ns: list[int] = field(default_factory=list)
    transfer_bytes: int = 0
    graphs: Counter[str] = field(default_factory=Counter)
    drafted: int = 0
    invalid: int = 0
    accepted: int = 0
    freed: int = 0
    graph_padding: int = 0
    experts: dict[int, Counter[int]] = field(default_factory=dict)
    """For each layer with experts how often each was taken."""
    knobs: dict[str, str] = field(default_factory=dict)

    @property
    def median_transfer_ms(self) -> float:
        """How long the median transfer of KV took, in milliseconds; 0 where none is known."""
        return statistics.median(self.transfers_ns) / 1e6 if self.transfers_ns else 0.0

    @property
    def busiest_expert(self) -> float:
        """How many times as often as the mean of its layer the busiest expert of all was taken; 0 where none was."""
        shares = [max(taken.values()) * len(taken) / taken.total() for taken in self.experts.values() if taken.total()]
        return max(shares, default=0.0)

    @property
    def experts_of_a_layer(self) -> int:
        """How many experts the layer with most of them has; 0 where none was taken."""
        return max((len(taken) for taken in self.experts.values() if taken.total()), default=0)


def counted(counts: Counter[str]) -> str:
    """Names with their counts, as a text."""
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))


def special_facts(path: Path) -> dict[str, str]:
    """What a trace says beyond what every engine does, in words; empty where it says nothing of the kind.

    Records that cannot be read are passed over. Raises TraceError where the file cannot be read at all.
    """
    return _in_words(special_sums(path))


def special_sums(path: Path) -> SpecialSums:
    """The same as values. Raises TraceError where the file cannot be read at all."""
    sums = SpecialSums()
    for _, line in LineReader(path):
        if not _SPECIAL.search(line):
            continue
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
            sums.knobs = _knobs(event)
    return sums


def _knobs(header: Header) -> dict[str, str]:
    """What is set of KNOBS; the order of the waiting queue only where it is another than that of arrival."""
    known = {name: str(value) for name in KNOBS if (value := header.config.get(name)) is not None}
    if known.get("scheduling_policy") == "fcfs":
        del known["scheduling_policy"]
    return known


def _add(sums: SpecialSums, step: Step) -> None:
    for admission in step.admitted:
        sums.cached_from.update(admission.cached_from)
    for drafted, sampled in zip(step.drafted or (), step.sampled, strict=False):
        if drafted:
            sums.drafted += drafted
            sums.accepted += max(sampled - 1, 0)
    sums.invalid += sum(step.invalid_drafts or ())
    sums.freed += sum(len(release.blocks) for release in step.freed)
    sums.waited.update(each.request for each in step.loading)
    sums.transfers_ns += [each.duration_ns for each in step.transfers]
    sums.transfer_bytes += sum(each.bytes for each in step.transfers)
    for layer, taken in enumerate(step.experts):
        if taken:
            sums.experts.setdefault(layer, Counter()).update(dict(enumerate(taken)))
    if step.graph is not None:
        sums.graphs[step.graph.mode] += 1
        sums.graph_padding += step.graph.padding


def _in_words(sums: SpecialSums) -> dict[str, str]:
    facts = {
        "scheduling": ", ".join(f"{name} {value}" for name, value in sums.knobs.items()),
        "kv_groups": ", ".join(sums.groups),
        "kv_blocks_freed_early": f"{sums.freed:,}" if sums.groups else "",
        "lora_requests": counted(sums.loras),
        "cached_tokens_by_source": counted(sums.cached_from),
        "requests_that_waited_for_kv": f"{len(sums.waited):,}" if sums.waited else "",
        "kv_transfers": _transfers_in_words(sums),
        "drafts": f"{sums.accepted:,} of {sums.drafted:,} accepted, {sums.invalid:,} invalid" if sums.drafted else "",
        "graphs": ", ".join(f"{mode} {count:,} steps" for mode, count in sorted(sums.graphs.items())),
        "graph_padding": f"{sums.graph_padding:,}" if sums.graphs else "",
        "experts": _experts_in_words(sums),
    }
    return {name: said for name, said in facts.items() if said}


def _transfers_in_words(sums: SpecialSums) -> str:
    if not sums.transfers_ns:
        return ""
    return f"{len(sums.transfers_ns):,}, median {sums.median_transfer_ms:.2f} ms, {sums.transfer_bytes:,} bytes in all"


def _experts_in_words(sums: SpecialSums) -> str:
    """How many layers and experts there are, and how much more than its share the busiest of a layer was taken."""
    if not sums.experts_of_a_layer:
        return ""
    return (
        f"{len(sums.experts)} layers × {sums.experts_of_a_layer},"
        f" busiest of a layer {sums.busiest_expert:.2f} × the mean"
    )
