"""The page: recordings, figures, words, palettes and program in one HTML file that opens from disk.

Knows what goes into it and how it is escaped. Prompts and tokens are data: they travel compressed, or as JSON in which
no character can end an element, and the page's policy lets nothing run but its own script.
"""

import base64
import gzip
import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import msgspec
from tracereel.film.phrases import CATALOGUES
from tracereel.film.theme import IDLE_SLOT, PALETTES, REQUESTS, Palette
from tracereel.player.columns import packed
from tracereel.player.errors import PlayerError
from tracereel.player.figures import Figure, Moments, comparison, figures_of, moments_of
from tracereel.player.film import FilmEntry
from tracereel.player.program import program, web_text
from tracereel.trace import __version__
from tracereel.trace.analysis.compare import Group, group_runs
from tracereel.trace.analysis.pairs import median_run
from tracereel.trace.analysis.queries import Run
from tracereel.trace.analysis.step_bounds import BOUNDS
from tracereel.trace.check.invariants import contradictions
from tracereel.trace.recordings.index import device_folder
from tracereel.trace.state.columns import Trace

DATA_ID = "tracereel-data"
MOST_RUNS = 64
FILMS_CASES = ("static", "continuous")
LARGE = 2**23
"""Bytes of columns."""


class RunEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What a page says of one run besides its columns; `begin_ns` is the trace's time at which the run begins."""

    key: str
    digest: str
    case: str
    group: str
    name: str
    median: bool
    """Is it the run with the median throughput of its repeats?"""
    begin_ns: int
    slots: int
    token_budget: int | None
    kv_blocks: int | None
    replicas: list[dict[str, int]]
    device: str
    """What `tracereel render --device` calls it."""
    provenance: dict[str, Any]
    notes: list[str]
    """What must be said of the recording: what is not whole about it, and where it contradicts itself."""
    figures: list[Figure]
    moments: Moments


class PairEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One group of repeats over another; `refused` says why the two are not compared, in an empty text if unknown."""

    numerator: str
    denominator: str
    figures: list[Figure]
    refused: str | None


class PageData(msgspec.Struct, frozen=True, kw_only=True):
    """All that the page holds besides the columns."""

    made_with: str
    runs: list[RunEntry]
    pairs: list[PairEntry]
    opening: list[str]
    """The keys of the runs that are shown first, one or two."""
    film: FilmEntry | None
    bounds: tuple[str, ...]
    language: str
    words: dict[str, dict[str, str]]
    palettes: dict[str, dict[str, str | list[str]]]


def build_page(traces: Sequence[Trace], language: str = "en", film: FilmEntry | None = None) -> str:
    """The page that plays these traces, the first of two cases first; `film` is one that shows some of them.

    Raises PlayerError where a trace is given twice, or there are too many.
    """
    runs = [Run(trace) for trace in traces]
    data, columns = page_data(runs, language, film), {run.trace.name: packed(run.trace, run.timeline) for run in runs}
    return assemble(data, {key: base64.b64encode(_gzipped(content)) for key, content in columns.items()})


def _gzipped(content: bytes) -> bytes:
    # Beyond some megabytes the last hundredth of the size costs minutes.
    return gzip.compress(content, 9 if len(content) < LARGE else 6, mtime=0)


def page_data(runs: Sequence[Run], language: str, film: FilmEntry | None = None) -> PageData:
    """What is said of the runs."""
    traces = [run.trace for run in runs]
    _require_playable(traces)
    words = all_words()
    if language not in words:
        raise PlayerError(f"language: {language!r} is not one of {', '.join(words)}")
    groups = group_runs(traces)
    by_digest = {run.trace.digest: run for run in runs}
    entries = []
    for group in groups:
        median = _median(group.traces)
        entries += [_entry(by_digest[trace.digest], group.label, trace is median) for trace in group.traces]
    pairs = []
    for top in groups:
        for bottom in groups:
            if top is not bottom:
                members = [[by_digest[trace.digest] for trace in group.traces] for group in (top, bottom)]
                figures, refused = comparison(*members)
                pairs.append(PairEntry(numerator=top.label, denominator=bottom.label, figures=figures, refused=refused))
    return PageData(
        made_with=f"tracereel {__version__}",
        runs=entries,
        pairs=pairs,
        opening=_opening(groups, pairs),
        film=_of_these(film, set(by_digest)),
        bounds=BOUNDS,
        language=language,
        words=words,
        palettes={name: _palette(palette) for name, palette in PALETTES.items()},
    )


def _opening(groups: Sequence[Group], pairs: Sequence[PairEntry]) -> list[str]:
    """The median runs of two cases: of the films' own two where there are more, else of the first that may be compared.

    Of a single case its first two runs.
    """
    if len(groups) == 1:
        return [trace.name for trace in groups[0].traces[:2]]
    comparable = [{pair.denominator, pair.numerator} for pair in pairs if pair.refused is None]
    couples = [two for two in combinations(groups, 2) if {group.label for group in two} in comparable]
    shown = next(iter(couples), groups[:2])
    if len(groups) > 2 and (films := next(filter(_are_the_films, couples), None)):
        shown = sorted(films, key=lambda group: FILMS_CASES.index(group.traces[0].header.policy))
    return [_median(group.traces).name for group in shown]


def _are_the_films(couple: Sequence[Group]) -> bool:
    return {group.traces[0].header.policy for group in couple} == set(FILMS_CASES)


def _of_these(film: FilmEntry | None, digests: set[str]) -> FilmEntry | None:
    """The film with the passages that show runs of the page. Raises PlayerError where it has none."""
    if film is None:
        return None
    shown = [passage for passage in film.passages if passage.digest in digests]
    if not shown:
        raise PlayerError(f"{film.name} shows none of these runs; name the recordings that it shows")
    return msgspec.structs.replace(film, passages=shown)


def _require_playable(traces: Sequence[Trace]) -> None:
    if not traces:
        raise PlayerError("no trace is given")
    if len(traces) > MOST_RUNS:
        raise PlayerError(f"{len(traces)} traces; a page holds at most {MOST_RUNS}: name fewer files or folders")
    seen: dict[str, Trace] = {}
    for trace in traces:
        if trace.digest in seen:
            raise PlayerError(f"{trace.path} is the same recording as {seen[trace.digest].path}: name it once")
        seen[trace.digest] = trace


def _median(traces: Sequence[Trace]) -> Trace:
    answered = [trace for trace in traces if len(trace.steps.token_id)]
    return median_run(answered) if answered else traces[0]


def _entry(run: Run, group: str, median: bool) -> RunEntry:
    trace = run.trace
    header, suite = trace.header, trace.header.run
    return RunEntry(
        key=trace.name,
        digest=trace.digest,
        case=suite.case if suite else header.policy,
        group=group,
        name=f"{group} {suite.repeat + 1}" if suite and suite.repeats > 1 else group,
        median=median,
        begin_ns=run.timeline.begin_ns,
        slots=header.slots,
        token_budget=header.token_budget,
        kv_blocks=header.kv_blocks,
        replicas=[{"replica": replica.replica, "slots": replica.slots} for replica in header.replicas],
        device=device_folder(header.device),
        provenance=msgspec.to_builtins(header),
        notes=[*trace.caveats, *contradictions(trace.path)],
        figures=figures_of(run),
        moments=moments_of(run),
    )


_OTHER_LANGUAGE = {"en": "中文"}
"""What the button that changes the language says, in the language it changes to: not a word of the films, whose faces
need not have its characters."""


def all_words() -> dict[str, dict[str, str]]:
    """The player's words in every language, with those it shares with the films."""
    found = {}
    for path in sorted(CATALOGUES.glob("*.toml")):
        catalogue = tomllib.loads(path.read_text("utf-8"))
        cases = {f"case_{name}": text for name, text in catalogue["cases"].items()}
        clock = {f"clock_{name}": catalogue["strip"][name] for name in ("slower", "faster", "even")}
        other = {"language_other": _OTHER_LANGUAGE.get(path.stem, "English")}
        found[path.stem] = {**catalogue["player"], **cases, **clock, **other}
    return found


def _palette(palette: Palette) -> dict[str, str | list[str]]:
    def code(rgb: tuple[float, float, float]) -> str:
        return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)

    plain = {name: code_ for name, code_ in palette.codes.items() if not name.startswith("request_")}
    return {
        **plain,
        "idle_slot": code(palette.rgb(IDLE_SLOT)),
        "requests": [code(palette.rgb(role)) for role in REQUESTS],
    }


def assemble(data: PageData, columns: Mapping[str, bytes]) -> str:
    """The file's text from what it holds."""
    style, script = web_text("page.css"), program()
    (script_digest,), (style_digest,) = inline_digests()
    policy = (
        f"default-src 'none'; script-src 'sha256-{script_digest}'; style-src 'sha256-{style_digest}'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    blocks = [
        f'<script type="text/plain" id="columns-{key}">{packed_columns.decode()}</script>'
        for key, packed_columns in columns.items()
    ]
    blocks.append(f'<script type="application/json" id="{DATA_ID}">{json_in_page(data)}</script>')
    parts = {
        "policy": policy,
        "style": f"<style>{style}</style>",
        "data": "\n".join(blocks),
        "program": f'<script type="module">{script}</script>',
    }
    page = web_text("page.html")
    for name, part in parts.items():
        page = page.replace(f"@{name}@", part, 1)
    return page


def inline_digests() -> tuple[list[str], list[str]]:
    """The digests of a page's scripts and of its styles: what a page that frames it has to allow."""
    return [digest_of(program())], [digest_of(web_text("page.css"))]


def json_in_page(data: msgspec.Struct) -> str:
    """JSON in which no text can end the element that holds it."""
    text = msgspec.json.encode(data).decode()
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def digest_of(text: str) -> str:
    """SHA-256 of a script or a style as a content security policy names it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
