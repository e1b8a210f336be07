"""Is a ledger what the traces say? Entry by entry against the ledger of the film made again, or query by query.

Knows claims, queries and runs. Does not look at pictures.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec
from tracereel.film.ledger import Claim, LedgerFile
from tracereel.film.passages import Passage, instants_of, same_instants
from tracereel.film.phrases import shown_as
from tracereel.film.redrawing import Redrawing, Traces
from tracereel.film.spoken_time import ENGINE_TIME, TIMES
from tracereel.trace.analysis.queries import Run, UnknownQueryError, Value, evaluate

_Entry = tuple[object, ...]
_Spans = dict[_Entry, list[Claim]]
_ROUNDING_NS = 2


def ledger_faults(ledger: LedgerFile, redrawing: Redrawing) -> list[str]:
    """How a film's ledger differs from that of the film made again, whose frames all have been made."""
    said, made = _by_entry(ledger.claims), _by_entry(redrawing.ledger.claims())
    faults = []
    for entry in sorted(said.keys() | made.keys(), key=lambda entry: (said.get(entry) or made[entry])[0].first):
        there, wanted = said.get(entry, []), made.get(entry, [])
        spans, wanted_spans = _spans(there), _spans(wanted)
        claim = (there or wanted)[0]
        if not there:
            faults.append(f"{_frames(wanted_spans)}: {claim.text!r} is shown, and the ledger lacks {claim.query}")
        elif not wanted:
            reason = _fault(claim, redrawing.show.read) or "the traces give no such line there"
            faults.append(f"{_frames(spans)}: {claim.query}: {reason} ({claim.text!r})")
        elif spans != wanted_spans:
            faults.append(f"{claim.text!r}: the ledger says {_frames(spans)}, it is shown in {_frames(wanted_spans)}")
        elif not _same(claim.value, wanted[0].value):
            faults.append(
                f"{_frames(spans)}: {claim.query}: the ledger says {claim.value!r}, the trace {wanted[0].value!r}"
            )
    if not same_instants(ledger.clock, instants_of(redrawing.beats, redrawing.shown)):
        faults.append("the ledger's clock is not that of the film: its frames show other engine times")
    if ledger.frames != redrawing.ledger.frames:
        faults.append(f"the ledger says {ledger.frames} frames, the film has {redrawing.ledger.frames}")
    return faults


def recomputed_faults(ledger: LedgerFile, traces: Traces) -> list[str]:
    """The faults of a ledger whose film cannot be made again: each query is asked again of the traces."""
    named = set(ledger.provenance.get("traces", "").split())
    asked = {digest for claim in ledger.claims for digest in claim.traces}
    faults = []
    if asked - named:
        faults.append(f"claims of traces that the film does not name: {', '.join(sorted(asked - named))[:200]}")
    files = {digest: traces.find(digest) for digest in sorted(asked)}
    runs = {digest: Run.read(file) for digest, file in files.items() if file}
    if any(not 0 <= claim.first <= claim.last < ledger.frames for claim in ledger.claims):
        faults.append(f"claims beyond the film's {ledger.frames} frames")
    answers: dict[bytes, str | None] = {}
    for claim in ledger.claims:
        # The same value stands in many frames: it is recomputed once.
        key = msgspec.json.encode(msgspec.structs.replace(claim, first=0, last=0))
        if key not in answers:
            answers[key] = _fault(claim, runs)
        fault = answers[key]
        if fault is None and claim.query in TIMES and _tells_other_time(claim, ledger.clock):
            fault = f"{claim.shown!r} is not what the film's clock says in these frames"
        if fault is not None:
            faults.append(f"frames {claim.first}-{claim.last}: {claim.query}: {fault}")
    return faults


def _tells_other_time(claim: Claim, clock: Sequence[Passage]) -> bool:
    """Does a claim that states a time or a pace state another one than the film's clock has in its frames?"""
    first, last, query, args = claim.first, claim.last, claim.query, claim.args
    there = [passage for passage in clock if passage.first <= last and passage.last >= first]
    if sum(min(p.last, last) - max(p.first, first) + 1 for p in there) != last - first + 1:
        return True
    if query == ENGINE_TIME:
        t_ns = args.get("t_ns")
        return not isinstance(t_ns, int) or any(
            abs(passage.engine_ns(frame) - t_ns) > _ROUNDING_NS
            for passage in there
            for frame in (max(passage.first, first), min(passage.last, last))
        )
    return any(
        {"film_s": passage.lasts_s, "engine_s": (passage.to_ns - passage.from_ns) / 1e9} != args for passage in there
    )


def _by_entry(claims: Iterable[Claim]) -> _Spans:
    """Claims by everything but their frames and their value, which another processor may round otherwise."""
    found: _Spans = defaultdict(list)
    for claim in claims:
        args = tuple(sorted(claim.args.items()))
        found[claim.text, claim.shown, claim.style, claim.query, args, claim.traces, claim.lines].append(claim)
    return dict(found)


def _spans(claims: list[Claim]) -> list[tuple[int, int]]:
    """The frames of claims; those that follow each other are one, as in a film that was joined."""
    spans: list[tuple[int, int]] = []
    for first, last in sorted((claim.first, claim.last) for claim in claims):
        if spans and spans[-1][1] == first - 1:
            spans[-1] = (spans[-1][0], last)
        else:
            spans.append((first, last))
    return spans


def _frames(spans: list[tuple[int, int]]) -> str:
    shown = ", ".join(f"{first}-{last}" for first, last in spans[:3])
    return f"frames {shown}" + (", …" if len(spans) > 3 else "")


def _same(one: Value, other: Value) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-9)
    return type(one) is type(other) and one == other


def _fault(claim: Claim, runs: dict[str, Run]) -> str | None:
    """What is wrong with a claim by itself, or None."""
    missing = [digest[:12] for digest in claim.traces if digest not in runs]
    if missing:
        return f"trace {', '.join(missing)} is not among the traces given"
    try:
        value, lines = evaluate(claim.query, [runs[digest] for digest in claim.traces], claim.args)
    except UnknownQueryError:
        return "there is no such query"
    except Exception as error:  # whatever a query makes of a forger's arguments
        return f"cannot be recomputed ({error})"
    if not _same(claim.value, value):
        return f"the ledger says {claim.value!r}, the trace {value!r}"
    if tuple(lines) != tuple(claim.lines):
        return f"the ledger points to lines {claim.lines}, the value comes from {lines}"
    try:
        shown = shown_as(value, claim.style)
    except ValueError:
        return f"{claim.style!r} is no format"
    if shown != claim.shown:
        return f"the film shows {claim.shown!r}, the value is {shown!r}"
    return None if shown in claim.text or claim.text.endswith("…") else f"{shown!r} does not stand in {claim.text!r}"
