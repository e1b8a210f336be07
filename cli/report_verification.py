"""Is a report what its traces say? Makes it again from them, and compares all of it: tables, drawings, player, program.

A report holds which traces it was made of, and how. Its figures are compared where they were drawn by this version of
Matplotlib: another one draws other strokes.
"""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from tracereel.cli.report_data import DATA_ID, ReportData, data_of

if TYPE_CHECKING:
    from tracereel.cli.progress import ProgressReport
    from tracereel.trace.state.columns import Trace

_DATA = re.compile(rf'<script type="application/json" id="{DATA_ID}">(.*?)</script>', re.DOTALL)
_PLAYER = re.compile(r'<iframe srcdoc="([^"]*)"')
_PICTURE = re.compile(r'src="data:image/[a-z+]+;base64,[^"]*" alt="([^"]*)"')
_SECTION = re.compile(r'<h2 id="section-\d+">(.*?)</h2>')


@dataclass
class ReportVerdict:
    """What was found: how many runs and figures of the player were recomputed, every fault, and what was left out."""

    runs: int = 0
    figures: int = 0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def is_report(text: str) -> bool:
    """Is the text of a page that of a report?"""
    return _DATA.search(text) is not None


def verify_report(text: str, path: Path, traces: Sequence[Path], report: "ProgressReport") -> ReportVerdict:
    """Check the text of the report `path` against trace files (or folders of them).

    Raises PlayerError where the report cannot be read, TraceError where a trace cannot.
    """
    from tracereel.player.errors import PlayerError
    from tracereel.player.verification import verify_text

    held = _DATA.search(text)
    try:
        data = msgspec.json.decode(held[1] if held else "", type=ReportData)
    except msgspec.DecodeError as error:
        raise PlayerError(f"{path}: {error}") from None
    verdict = ReportVerdict(runs=len(data.digests))
    runs, verdict.faults = _traces(data, traces)
    if verdict.faults:
        return verdict
    if player := _PLAYER.search(text):
        page = verify_text(html.unescape(player[1]), path, [trace.path for trace in runs])
        verdict.figures = page.figures
        verdict.faults += [f"player: {fault}" for fault in page.faults]
    _compare(text, data, runs, report, verdict)
    return verdict


def _traces(data: ReportData, paths: Sequence[Path]) -> "tuple[list[Trace], list[str]]":
    """The report's traces in its order, and what keeps it from being made again."""
    from tracereel.cli.files import trace_files
    from tracereel.trace.state.columns import Trace

    found: dict[str, Trace] = {}
    for file in trace_files(paths):
        trace = Trace.read(file, allow_broken=True)
        if trace.digest in data.digests:
            found.setdefault(trace.digest, trace)
    missing = [digest[:12] for digest in data.digests if digest not in found]
    if missing:
        return [], [f"trace {', '.join(missing)} is not among the traces given"]
    traces = [found[digest] for digest in data.digests]
    faults = [
        f"the report calls {trace.path.name} (trace {trace.name}) {name!r}"
        for trace, name in zip(traces, data.files, strict=False)
        if trace.path.name != name
    ]
    return traces, faults if data.digests else ["the report names no trace"]


def _compare(
    text: str, data: ReportData, traces: "Sequence[Trace]", report: "ProgressReport", verdict: ReportVerdict
) -> None:
    from tracereel.cli.report import report_of
    from tracereel.trace.analysis.comparable import NotComparableError, require_comparable
    from tracereel.trace.analysis.compare import group_runs

    own = data_of(traces, data.slo, data.across)
    if own.made_with != data.made_with:
        verdict.faults.append(f"the report was made with {data.made_with}, this is {own.made_with}: use that version")
        return
    try:
        require_comparable(traces, data.across)
    except NotComparableError as error:
        verdict.faults.append(f"its runs are not to be compared: {error}")
        return
    again = report_of(group_runs(traces, data.slo), data.slo, data.across, report)
    if data.drawn_with == own.drawn_with:
        drawn = zip(_PICTURE.finditer(text), _PICTURE.finditer(again), strict=False)
        changed = sorted({theirs[1] for theirs, ours in drawn if theirs[0] != ours[0]})
        verdict.faults += [f"{name}: not what is drawn from the traces" for name in changed]
    else:
        verdict.notes.append(f"the figures were drawn with {data.drawn_with}, this is {own.drawn_with}: not compared")
        again = again.replace(own.drawn_with, data.drawn_with)
    parts = [_PICTURE.sub("", whole) for whole in (text, again)]
    if parts[0] != parts[1]:
        verdict.faults += _where(*parts)


def _where(text: str, again: str) -> list[str]:
    """The sections that differ; what stands outside all of them is the report's frame."""
    theirs, ours = (_SECTION.split(whole) for whole in (text, again))
    if len(theirs) != len(ours) or theirs[1::2] != ours[1::2]:
        return ["its sections are not those that are made from the traces"]
    names = ["its head", *ours[1::2]]
    return [
        f"{html.unescape(name)}: not what is made from the traces"
        for name, one, other in zip(names, theirs[::2], ours[::2], strict=True)
        if one != other
    ]
