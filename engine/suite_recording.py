"""The recording of a suite: made aside, checked, kept across interruptions, and put in place when all are whole.

Knows suites, the engine's runs and where recordings go. Does not know what they are used for.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from tracereel.engine.loading import LoadedModel
from tracereel.engine.recording import Runners, record_run
from tracereel.engine.staleness import plan
from tracereel.engine.suite import Case, Suite, SuiteError, recording_name
from tracereel.trace.check.invariants import check
from tracereel.trace.format.locks import Lock

Progress = Callable[[str, int, int], None]
"""Called with what is recorded now, the requests done, and all requests."""


def unfinished_folder(folder: Path) -> Path:
    """The folder of the recordings of `folder` until all are whole, and after an interruption."""
    return folder.with_name(f".{folder.name}.new")


def record_suite(
    suite: Suite,
    loaded: LoadedModel,
    folder: Path,
    progress: Progress,
    turns: Sequence[tuple[int, Case]] | None = None,
) -> list[Path]:
    """Record runs of a suite into `folder`, all of them or those of `turns`; returns the files.

    The recordings are made in a folder next to it and checked there; only when all are whole do they take their places,
    so that until then what was in `folder` is as it was. Other files in it stay. However the recording ends, what
    was whole by then is kept; the next call does not re-record it if it is still of this engine, model and suite.

    Raises SuiteError where a recording does not pass its check, and leaves it to be looked at; LockedError where
    another process records into `folder`; OSError.
    """
    folder = folder.absolute()
    chosen = list(suite.turns()) if turns is None else list(turns)
    with Lock(folder):
        unfinished = unfinished_folder(folder)
        unfinished.mkdir(parents=True, exist_ok=True)
        kept = _whole(suite, loaded, unfinished)
        _clear(unfinished, keep={recording_name(case, repeat) for repeat, case in chosen} & kept)
        if kept:
            progress(f"{len(kept)} of {len(chosen)} recordings are kept of an interrupted run", 0, len(chosen))
        files = _record_turns(suite, loaded, unfinished, progress, chosen, kept)
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            file.replace(folder / file.name)
        shutil.rmtree(unfinished, ignore_errors=True)
    return [folder / file.name for file in files]


def _whole(suite: Suite, loaded: LoadedModel, folder: Path) -> set[str]:
    """The names of the recordings in `folder` that need not be re-recorded: whole, valid and not stale."""
    if not any(folder.iterdir()):
        return set()
    planned = plan(suite, loaded, folder)
    return {each.path.name for each in planned if each.stale is None and check(each.path).fault is None}


def _clear(folder: Path, keep: set[str]) -> None:
    """Remove what an interrupted run left and no later run can use: cut and stale recordings."""
    for path in folder.iterdir():
        if path.name not in keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _record_turns(
    suite: Suite,
    loaded: LoadedModel,
    folder: Path,
    progress: Progress,
    turns: Sequence[tuple[int, Case]],
    kept: set[str],
) -> list[Path]:
    total = len(turns) * len(suite.prompts)
    runners: Runners | None = None
    files = []
    for turn, (repeat, case) in enumerate(turns):
        path = folder / recording_name(case, repeat)
        files.append(path)
        if path.name in kept:
            continue
        before = turn * len(suite.prompts)
        if runners is None:
            # The first step of a process pays for kernels, caches and threads: one run that is not kept.
            progress("warming up", before, total)
            runners, first = Runners(loaded), suite.cases[0]
            record_run(loaded, suite.config(first), suite.workload(first), None, runners=runners)
        label = f"{case.name} {repeat + 1}/{suite.repeats_of(case)}"

        def report(done: int, label: str = label, before: int = before) -> None:
            progress(label, before + done, total)

        run = suite.run_info(case, repeat)
        record_run(loaded, suite.config(case), suite.workload(case), path, run=run, done=report, runners=runners)
        if fault := check(path).fault:
            raise SuiteError(f"{path}: the recording does not pass its check: {fault}")
    return files
