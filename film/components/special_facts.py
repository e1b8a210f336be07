"""Rows of what only some engines say of a run: LoRA, experts, drafts, graphs, cached tokens by source, KV on its way.

A row for each subject of which the trace says anything, and none where it says nothing. Knows the queries; not where
the rows stand.
"""

from collections.abc import Callable
from functools import partial

from tracereel.film.components.fact_table import Fact
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrase, figure, quote
from tracereel.film.theme import BODY
from tracereel.trace.analysis.queries import Run
from tracereel.trace.analysis.special import KNOBS

Say = Callable[..., Phrase]
Said = Callable[[Run, Say], Phrase | None]
"""A fact in words; None where the trace does not say it."""


def special_rows(run: Run, say: Say, room: float) -> list[Fact]:
    """What the trace says of routing, scheduling and the KV cache beyond what every engine does.

    Facts of a subject stand in one row as far as they fit into `room` units, else in several.
    """
    subjects: dict[str, tuple[Said, ...]] = {
        "routing": (_experts, _loras),
        "scheduling": (*(partial(_knob, knob=knob) for knob in KNOBS), _drafts, _graphs),
        "kv": (_cached, _waited, _transfers),
    }
    return [
        Fact(say(f"special.{subject}"), value)
        for subject, facts in subjects.items()
        for value in _in_rows([said for said in (fact(run, say) for fact in facts) if said is not None], say, room)
    ]


def _in_rows(said: list[Phrase], say: Say, room: float) -> list[Phrase]:
    rows: list[Phrase] = []
    for phrase in said:
        both = say("special.and", before=rows[-1], after=phrase) if rows else phrase
        if rows and width(both.text, BODY) <= room:
            rows[-1] = both
        else:
            rows.append(phrase)
    return rows


def _number(run: Run, fact: str, style: str = ",d") -> Phrase:
    return figure(run.measure("special", fact=fact), style)


def _says(run: Run, fact: str) -> bool:
    return bool(run.measure("special", fact=fact).value)


def _experts(run: Run, say: Say) -> Phrase | None:
    if not _says(run, "experts_of_a_layer"):
        return None
    return say(
        "special.experts",
        layers=_number(run, "expert_layers"),
        experts=_number(run, "experts_of_a_layer"),
        busiest=_number(run, "busiest_expert", ".1f"),
    )


def _loras(run: Run, say: Say) -> Phrase | None:
    return _quoted(run, say, "lora_requests")


def _knob(run: Run, say: Say, knob: str) -> Phrase | None:
    return quote(run.measure("special", fact=knob)) if _says(run, knob) else None


def _cached(run: Run, say: Say) -> Phrase | None:
    return _quoted(run, say, "cached_tokens_by_source")


def _quoted(run: Run, say: Say, fact: str) -> Phrase | None:
    if not _says(run, fact):
        return None
    return say(f"special.{fact}", said=quote(run.measure("special", fact=fact)))


def _drafts(run: Run, say: Say) -> Phrase | None:
    if not _says(run, "drafts_scheduled"):
        return None
    names = ("accepted", "scheduled", "invalid")
    return say("special.drafts", **{name: _number(run, f"drafts_{name}") for name in names})


def _graphs(run: Run, say: Say) -> Phrase | None:
    if not _says(run, "graphs"):
        return None
    modes = quote(run.measure("special", fact="graphs"))
    return say("special.graphs", modes=modes, padding=_number(run, "graph_padding"))


def _waited(run: Run, say: Say) -> Phrase | None:
    return say("special.waited_for_kv", requests=_number(run, "waited_for_kv")) if _says(run, "waited_for_kv") else None


def _transfers(run: Run, say: Say) -> Phrase | None:
    if not _says(run, "kv_transfers"):
        return None
    return say("special.kv_transfers", count=_number(run, "kv_transfers"), ms=_number(run, "median_transfer_ms", ".2f"))
