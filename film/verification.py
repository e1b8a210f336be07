"""Is what a film claims what the traces say? Recomputes every entry of its ledger.

Knows ledgers, films' metadata and queries. Does not look at pictures: that drawing and ledger agree is the renderer's.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import av
import msgspec
from tracereel.film.ledger import LEDGER_DIGEST, Claim, LedgerFile, digest_of, ledger_path, read_ledger
from tracereel.film.phrases import shown_as
from tracereel.film.provenance import read_stamp
from tracereel.trace.analysis.queries import Run, UnknownQueryError, evaluate
from tracereel.trace.recordings.index import traces_below


class VerificationError(Exception):
    """A film cannot be verified; the message is one line."""


@dataclass
class Verdict:
    """What was found: how many claims were recomputed, and every fault."""

    claims: int = 0
    faults: list[str] = field(default_factory=list)


def verify(film: Path, traces: Iterable[Path]) -> Verdict:
    """Recompute everything a film's ledger claims from trace files (or folders of them).

    Raises VerificationError, LedgerError or TraceError where the film, its ledger or a trace cannot be read.
    """
    ledger, verdict = _read_ledger(film)
    runs = _runs(traces)
    answers: dict[bytes, str | None] = {}
    for claim in ledger.claims:
        verdict.claims += 1
        # The same value stands in many frames: it is recomputed once.
        key = msgspec.json.encode((claim.query, sorted(claim.args.items()), claim.traces, claim.value, claim.shown))
        if key not in answers:
            answers[key] = _fault(claim, runs)
        fault = answers[key]
        if fault is None and not _stands_in(claim):
            fault = f"{claim.shown!r} does not stand in {claim.text!r}"
        if fault is not None:
            verdict.faults.append(f"frames {claim.first}-{claim.last}: {claim.query}: {fault}")
    return verdict


def _read_ledger(film: Path) -> tuple[LedgerFile, Verdict]:
    path = ledger_path(film)
    try:
        stamp = read_stamp(film)
    except (OSError, av.FFmpegError) as error:
        raise VerificationError(f"{error.filename or film}: cannot be read ({error.strerror})") from None
    ledger, text = read_ledger(film)
    verdict = Verdict()
    if stamp.get(LEDGER_DIGEST) != digest_of(text):
        verdict.faults.append(f"{path.name} is not the ledger this film was rendered with")
    for name, value in ledger.provenance.items():
        if stamp.get(name, "") != value:
            verdict.faults.append(f"{name}: the film says {stamp.get(name, '')!r}, its ledger {value!r}")
    named = set(ledger.provenance.get("traces", "").split())
    if foreign := {digest for claim in ledger.claims for digest in claim.traces} - named:
        verdict.faults.append(f"claims of traces that the film does not name: {', '.join(sorted(foreign))}")
    if any(claim.last >= ledger.frames or claim.first > claim.last for claim in ledger.claims):
        verdict.faults.append(f"claims beyond the film's {ledger.frames} frames")
    return ledger, verdict


def _runs(paths: Iterable[Path]) -> dict[str, Run]:
    files = [file for path in paths for file in (traces_below(path) if path.is_dir() else [path])]
    runs = (Run.read(file) for file in files)
    return {run.trace.digest: run for run in runs}


def _fault(claim: Claim, runs: dict[str, Run]) -> str | None:
    """What is wrong with a claim, or None."""
    missing = [digest[:12] for digest in claim.traces if digest not in runs]
    if missing:
        return f"trace {', '.join(missing)} is not among the traces given"
    try:
        value, lines = evaluate(claim.query, [runs[digest] for digest in claim.traces], claim.args)
    except UnknownQueryError:
        return "there is no such query"
    except (TypeError, ValueError, LookupError, ZeroDivisionError, AttributeError) as error:
        return f"cannot be recomputed ({error})"
    if value != claim.value:
        return f"the ledger says {claim.value!r}, the trace {value!r}"
    if tuple(lines) != tuple(claim.lines):
        return f"the ledger points to lines {claim.lines}, the value comes from {lines}"
    try:
        shown = shown_as(value, claim.style)
    except ValueError:
        return f"{claim.style!r} is no format"
    return None if shown == claim.shown else f"the film shows {claim.shown!r}, the value is {shown!r}"


def _stands_in(claim: Claim) -> bool:
    """Is the figure in the line, or was the line cut before its end?"""
    return claim.shown in claim.text or claim.text.endswith("…") or claim.text in claim.shown
