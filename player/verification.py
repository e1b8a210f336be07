"""Is a page what the traces say? Takes it apart and makes each part again.

The columns are unpacked and compared with what the trace packs to, every figure is asked again, and the program, style
and policy are those of this version: a page whose script was changed could show anything.
"""

import base64
import binascii
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from tracereel.film.phrases import shown_as
from tracereel.player.columns import packed
from tracereel.player.errors import PlayerError
from tracereel.player.figures import Figure
from tracereel.player.film import FilmEntry, film_entry
from tracereel.player.page import DATA_ID, PageData, RunEntry, assemble, page_data
from tracereel.trace.analysis.queries import Run, evaluate
from tracereel.trace.format.atomic import require_file
from tracereel.trace.recordings.index import traces_below
from tracereel.trace.state.columns import Trace

LARGEST_PAGE = 2**30
LARGEST_COLUMNS = 2**31
_COLUMNS = re.compile(r'<script type="text/plain" id="columns-([0-9a-f]{12})">([A-Za-z0-9+/=]*)</script>')
_DATA = re.compile(rf'<script type="application/json" id="{DATA_ID}">(.*?)</script>', re.DOTALL)


@dataclass
class PageVerdict:
    """What was found: how many figures and runs were recomputed, and every fault."""

    figures: int = 0
    runs: int = 0
    faults: list[str] = field(default_factory=list)


def verify_page(path: Path, traces: Iterable[Path]) -> PageVerdict:
    """Check a page against trace files (or folders of them).

    Raises PlayerError where the page cannot be read, TraceError where a trace cannot.
    """
    return verify_text(read_page(path), path, traces)


def verify_text(text: str, path: Path, traces: Iterable[Path]) -> PageVerdict:
    """Check the text of a page that is, or is within, the file `path`. Raises as `verify_page` does."""
    found = _DATA.search(text)
    if found is None:
        raise PlayerError(f"{path}: holds no recording; is it a page of `tracereel play`?")
    try:
        data = msgspec.json.decode(found[1], type=PageData)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PlayerError(f"{path}: {error}") from None
    columns = dict(_COLUMNS.findall(text))
    runs = _runs(traces, {entry.digest for entry in data.runs})
    verdict = PageVerdict()
    for entry in data.runs:
        verdict.runs += 1
        verdict.faults += _faults_of_run(entry, runs.get(entry.digest), columns.get(entry.key))
    for figure in [f for entry in data.runs for f in entry.figures] + [f for pair in data.pairs for f in pair.figures]:
        verdict.figures += 1
        if fault := _fault_of_figure(figure, runs):
            verdict.faults.append(f"{figure.query}: {fault}")
    if data.film is not None and (
        fault := _fault_of_film(data.film, path.parent, {entry.digest for entry in data.runs})
    ):
        verdict.faults.append(f"film: {fault}")
    if not verdict.faults:
        _compare_whole(text, data, {key: part.encode() for key, part in columns.items()}, runs, verdict)
    return verdict


def read_page(path: Path) -> str:
    """A page's text, of a bounded size. Raises PlayerError."""
    try:
        require_file(path)
        if path.stat().st_size > LARGEST_PAGE:
            raise PlayerError(f"{path}: is over {LARGEST_PAGE} bytes")
        return path.read_text("utf-8")
    except OSError as error:
        raise PlayerError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise PlayerError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start})") from None


def _runs(paths: Iterable[Path], wanted: set[str]) -> dict[str, Run]:
    files = [file for path in paths for file in (traces_below(path) if path.is_dir() else [path])]
    # A report's player may play a recording with broken lines, and says so of it.
    runs = (Run(Trace.read(file, allow_broken=True)) for file in files)
    return {run.trace.digest: run for run in runs if run.trace.digest in wanted}


def _faults_of_run(entry: RunEntry, run: Run | None, columns: str | None) -> list[str]:
    if run is None:
        return [f"trace {entry.key} is not among the traces given"]
    if columns is None:
        return [f"{entry.name}: its columns are not in the page"]
    try:
        unpack = zlib.decompressobj(wbits=31)
        held = unpack.decompress(base64.b64decode(columns, validate=True), LARGEST_COLUMNS)
    except (binascii.Error, zlib.error) as error:
        return [f"{entry.name}: its columns cannot be unpacked ({error})"]
    return [] if held == packed(run.trace, run.timeline) else [f"{entry.name}: its columns are not what the trace says"]


def _fault_of_figure(figure: Figure, runs: dict[str, Run]) -> str | None:
    missing = [digest[:12] for digest in figure.traces if digest not in runs]
    if missing:
        return f"trace {', '.join(missing)} is not among the traces given"
    if figure.value is None:
        return None if figure.shown is None else f"the page shows {figure.shown!r} for a value that it does not have"
    try:
        value, lines = evaluate(figure.query, [runs[digest] for digest in figure.traces], figure.args)
        shown = shown_as(value, figure.style)
    except Exception as error:  # the page's arguments are untrusted: whatever they make a query raise is a fault
        return f"cannot be recomputed ({type(error).__name__}: {error})"
    if value != figure.value or tuple(lines) != figure.lines:
        return f"the page says {figure.value!r} (lines {figure.lines}), the trace {value!r} (lines {tuple(lines)})"
    return None if shown == figure.shown else f"the page shows {figure.shown!r}, the value is {shown!r}"


def _fault_of_film(entry: FilmEntry, folder: Path, digests: set[str]) -> str | None:
    """Are its seconds those of the film's ledger? The film has to be next to the page."""
    film = folder / Path(entry.name).name
    if not film.is_file():
        return f"{film.name} is not next to the page, so its seconds cannot be checked"
    again = film_entry(film)
    passages = [passage for passage in again.passages if passage.digest in digests]
    same = entry == msgspec.structs.replace(again, passages=passages)
    return None if same else f"the page's seconds are not those of the ledger of {film.name}"


def _compare_whole(
    text: str, data: PageData, columns: dict[str, bytes], runs: dict[str, Run], verdict: PageVerdict
) -> None:
    """Texts and the program, everything but columns and figures: all of the page made again."""
    again = page_data([runs[entry.digest] for entry in data.runs], data.language, data.film)
    if again.made_with != data.made_with:
        verdict.faults.append(f"the page was made with {data.made_with}, this is {again.made_with}: use that version")
        return
    for name in PageData.__struct_fields__:
        if getattr(again, name) != getattr(data, name):
            verdict.faults.append(f"{name}: not what is made from the traces")
    if not verdict.faults and assemble(data, columns) != text:
        verdict.faults.append("the page's markup, style or program is not this version's own")
