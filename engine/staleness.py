"""Which recordings of a suite are of the engine, the model and the suite that are here now, and which are stale.

A recording is stale where its header is not the one that a recording made now would have. Knows headers and suites.
Does not record anything.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tracereel.engine.loading import LoadedModel
from tracereel.engine.recording import header_of
from tracereel.engine.suite import Case, Suite, recording_name
from tracereel.trace.format.events import Header
from tracereel.trace.format.storage import TraceError
from tracereel.trace.recordings.index import read_header, traces_below


@dataclass(frozen=True)
class Planned:
    """One recording of a suite: its path, and why it is stale, or None."""

    repeat: int
    case: Case
    path: Path
    stale: str | None


def plan(suite: Suite, loaded: LoadedModel, folder: Path) -> list[Planned]:
    """Every recording of the suite in the order in which they are made, and its state in `folder`."""
    headers = {case.name: header_of(loaded, suite.config(case), suite.workload(case), None) for case in suite.cases}
    planned = []
    for repeat, case in suite.turns():
        path = folder / recording_name(case, repeat)
        expected = msgspec.structs.replace(headers[case.name], run=suite.run_info(case, repeat))
        planned.append(Planned(repeat, case, path, _staleness(path, expected)))
    return planned


def _staleness(path: Path, expected: Header) -> str | None:
    if not path.is_file():
        return "there is none"
    try:
        found = read_header(path)
    except TraceError as error:
        return error.reason
    was, now = dict(_flat(found)), dict(_flat(expected))
    differing = sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
    # The engine's source comes first: where it has changed, that says it all.
    differing.sort(key=lambda name: not name.startswith("engine."))
    if not differing:
        return None
    name = differing[0]
    more = f", and {len(differing) - 1} more" if len(differing) > 1 else ""
    return f"{name} is {_short(was.get(name))}, now {_short(now.get(name))}{more}"


def _flat(header: Header) -> Iterator[tuple[str, Any]]:
    """The fields of a header that decide what is measured, by their paths."""
    content = msgspec.to_builtins(header)
    del content["clock"]
    # The digest of its source says more than the version of the package; Python computes nothing here.
    for name in ("version", "commit"):
        content["engine"].pop(name, None)
    content.get("libraries", {}).pop("python", None)
    yield from _leaves(content, "")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else name)
    else:
        yield path, value


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def obsolete(suite: Suite, folder: Path) -> list[Path]:
    """Recordings of this suite in `folder` that are no longer part of it."""
    wanted = {recording_name(case, repeat) for repeat, case in suite.turns()}
    found = []
    for path in traces_below(folder) if folder.is_dir() else []:
        if path.parent == folder and path.name not in wanted:
            try:
                run = read_header(path).run
            except TraceError:
                continue
            if run is not None and run.suite == suite.name:
                found.append(path)
    return found
