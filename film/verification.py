"""Is a film what the traces say? Makes it again from them, and holds the file to that: pictures, ledger, words, tags.

Knows ledgers, recipes, redrawings and queries. `pictures` compares frames, `attachments` the files next to and tags in
them.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import av
from tracereel.film.assembly import JOB
from tracereel.film.attachments import attachment_faults
from tracereel.film.facts import FalseSentenceError
from tracereel.film.ledger import LEDGER_DIGEST, LedgerFile, digest_of, ledger_path, read_ledger
from tracereel.film.ledger_comparison import ledger_faults, recomputed_faults
from tracereel.film.lettering import FontError
from tracereel.film.picture_comparison import picture_faults
from tracereel.film.provenance import provenance_of, read_stamp
from tracereel.film.recipe import Recipe, RecipeError, code_digest
from tracereel.film.redrawing import Redrawing, Traces
from tracereel.film.registry import UnknownSceneError
from tracereel.film.settings import SettingsError
from tracereel.film.spoken_time import LyingClockError
from tracereel.film.voices import Voice
from tracereel.film.window import WindowError
from tracereel.trace.analysis.comparable import NotComparableError
from tracereel.trace.format.storage import TraceError

OnProgress = Callable[[int, int], None]
_MADE_WITH = re.compile(r"tracereel [0-9][0-9a-z.+]{0,40}")
_DIGEST = re.compile("[0-9a-f]{64}")
_CANNOT = (RecipeError, UnknownSceneError, SettingsError, WindowError, FontError, TraceError, NotComparableError)
"""Why a film cannot be made again."""


class VerificationError(Exception):
    """A film cannot be verified; the message is one line."""


@dataclass
class Verdict:
    """What was found: how many claims there are, how many frames of how many were compared, and every fault."""

    claims: int = 0
    frames: int = 0
    compared: int = 0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What has to be said and is no fault."""


@dataclass(frozen=True)
class Wanted:
    """How a film is to be verified: with which brand, fonts and voice, and by each of its frames?"""

    brand: Path | None = None
    fonts: tuple[Path, ...] = ()
    every_frame: bool = False
    voice: Voice = field(default_factory=Voice)


def verify(
    film: Path,
    traces: Iterable[Path],
    wanted: Wanted = Wanted(),
    on_progress: OnProgress = lambda done, total: None,
) -> Verdict:
    """Make a film again from trace files (or folders of them), and compare all of it.

    Raises VerificationError, LedgerError or TraceError where the film, its ledger or a trace cannot be read.
    """
    try:
        stamp = read_stamp(film)
    except (OSError, av.FFmpegError) as error:
        raise VerificationError(f"{error.filename or film}: cannot be read ({error.strerror})") from None
    ledger, data = read_ledger(film)
    verdict = Verdict(claims=len(ledger.claims), frames=ledger.frames)
    verdict.faults += _stamp_faults(film, stamp, ledger, digest_of(data))
    known = Traces(traces)
    try:
        recipe = Recipe.read(ledger.provenance)
        redrawing = Redrawing(recipe, known, wanted.brand, wanted.fonts, wanted.voice)
    except _CANNOT as error:
        verdict.faults.append(f"it cannot be made again, and its pictures were not looked at: {error}")
        verdict.faults += recomputed_faults(ledger, known)
        return verdict
    if recipe.code != code_digest():
        verdict.notes.append(
            f"made with another version of the code ({ledger.provenance.get('made_with', '')[:40]},"
            f" source {recipe.code[:12]}; this is {code_digest()[:12]}): a difference below may be the code's"
        )
    verdict.faults += _fact_faults(ledger, redrawing)
    try:
        verdict.compared, found = picture_faults(film, redrawing, ledger, wanted.every_frame, on_progress)
    except (LyingClockError, FalseSentenceError) as error:
        verdict.faults.append(f"it cannot be made again: {error}")
        verdict.faults += recomputed_faults(ledger, known)
        return verdict
    verdict.faults += found
    verdict.faults += ledger_faults(ledger, redrawing)
    verdict.faults += attachment_faults(film, redrawing)
    return verdict


def _stamp_faults(film: Path, stamp: dict[str, str], ledger: LedgerFile, digest: str) -> list[str]:
    """Is the ledger this film's, and do both say the same of it?"""
    faults = []
    if stamp.get(LEDGER_DIGEST) != digest:
        faults.append(f"{ledger_path(film).name} is not the ledger this film was rendered with")
    for name, value in ledger.provenance.items():
        if stamp.get(name, "") != value:
            faults.append(f"{name}: the film says {stamp.get(name, '')[:80]!r}, its ledger {value[:80]!r}")
    for name in sorted(stamp.keys() - ledger.provenance.keys() - {LEDGER_DIGEST}):
        faults.append(f"{name}: the film says {stamp[name][:80]!r}, its ledger nothing")
    if ledger.film != film.name:
        faults.append(f"the ledger is of a film called {ledger.film[:80]!r}")
    return faults


def _fact_faults(ledger: LedgerFile, redrawing: Redrawing) -> list[str]:
    """Does the film say of its traces what they say of themselves?"""
    made = {**provenance_of(list(redrawing.show.shown.values())), **redrawing.recipe.facts}
    said = dict(ledger.provenance)
    made_with = said.pop("made_with", "")
    made.pop("made_with", None)
    job = said.pop(JOB, None)
    faults = [
        f"{name}: the film says {said.get(name, '')[:80]!r}, the traces {made.get(name, '')[:80]!r}"
        for name in sorted(made.keys() | said.keys())
        if said.get(name, "") != made.get(name, "")
    ]
    if not _MADE_WITH.fullmatch(made_with):
        faults.append(f"made_with: {made_with[:80]!r} is no version of tracereel")
    if job is not None and not _DIGEST.fullmatch(job):
        faults.append(f"{JOB}: {job[:80]!r} is no digest")
    return faults
