"""Suites: small TOML files that say which recordings belong together, and the recording of them.

A suite's cases are recorded in turns, repeat by repeat, so that what is compared was measured side by side. Knows
workloads, the engine and where recordings go. Does not know what they are for.
"""

import shutil
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import msgspec
from tracereel.engine.config import EngineConfig
from tracereel.engine.engine import Engine
from tracereel.engine.loading import LoadedModel
from tracereel.engine.online import OnlineEngine, drive
from tracereel.engine.policies import policy_named
from tracereel.engine.request import Request, SamplingParams
from tracereel.engine.runner import ModelRunner
from tracereel.engine.workload import Arrivals, Prompt, Workload, WorkloadError, read_prompts
from tracereel.trace.events import RunInfo
from tracereel.trace.invariants import check
from tracereel.trace.recorder import Recorder

FileName = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9-]{0,63}$")]
SUITES = Path(__file__).resolve().parent / "suites"


class SuiteError(Exception):
    """A suite cannot be used or a recording failed its check; the message is one line."""


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to run the workload."""

    name: FileName
    policy: str
    arrivals: Arrivals = Arrivals()
    repeats: int | None = None
    engine: dict[str, int | bool] = {}
    """Settings of this case alone, over those of the suite."""


class _SuiteFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: FileName
    prompts: str
    case: list[Case]
    repeats: int = 1
    engine: dict[str, int | bool] = {}


@dataclass(frozen=True)
class Suite:
    """A suite, read and checked."""

    name: str
    prompts: tuple[Prompt, ...]
    cases: tuple[Case, ...]
    repeats: int
    engine: dict[str, int | bool]

    @classmethod
    def read(cls, path: Path) -> "Suite":
        """Read a suite file and its prompts. Raises SuiteError, WorkloadError."""
        try:
            content = msgspec.toml.decode(path.read_bytes(), type=_SuiteFile)
        except OSError as error:
            raise SuiteError(f"{path}: cannot be read ({error.strerror})") from None
        except (msgspec.DecodeError, tomllib.TOMLDecodeError) as error:
            raise SuiteError(f"{path}: {error}") from None
        prompts = read_prompts(path.parent / content.prompts)
        unpinned = next((prompt.id for prompt in prompts if prompt.output_tokens is None), None)
        if unpinned is not None:
            raise SuiteError(f"{path.parent / content.prompts}: {unpinned!r} has no output_tokens; run `tracereel pin`")
        names = [case.name for case in content.case]
        if not names or len(set(names)) < len(names):
            raise SuiteError(f"{path}: case: each needs a name of its own, got {names}")
        suite = cls(content.name, tuple(prompts), tuple(content.case), content.repeats, content.engine)
        for case in suite.cases:
            suite.config(case)
            Workload.of(suite.name, prompts, case.arrivals)
        return suite

    def config(self, case: Case) -> EngineConfig:
        """The engine configuration of a case. Raises SuiteError, ConfigError."""
        settings = {**self.engine, **case.engine}
        unknown = set(settings) - {setting.name for setting in fields(EngineConfig) if setting.name != "policy"}
        if unknown:
            raise SuiteError(f"engine: {', '.join(sorted(unknown))} is not a setting")
        policy_named(case.policy)
        return EngineConfig(policy=case.policy, **settings)  # type: ignore[arg-type]  # it checks every type itself

    def repeats_of(self, case: Case) -> int:
        """How often a case is recorded."""
        return self.repeats if case.repeats is None else case.repeats

    def turns(self) -> Iterator[tuple[int, Case]]:
        """Every run as (repeat, case): all cases of a repeat, then the next; each begins with another case."""
        most = max(self.repeats_of(case) for case in self.cases)
        for repeat in range(most):
            shift = repeat % len(self.cases)
            for case in self.cases[shift:] + self.cases[:shift]:
                if repeat < self.repeats_of(case):
                    yield repeat, case


def suite_named(name: str) -> Suite:
    """A suite of the package by its name, or of one's own by the path of its TOML file. Raises SuiteError."""
    path = Path(name) if name.endswith(".toml") else SUITES / f"{name}.toml"
    if not path.is_file():
        own = ", ".join(sorted(file.stem for file in SUITES.glob("*.toml")))
        raise SuiteError(
            f"suite {name!r}: there is no such suite; the package has {own}; one's own is named by its .toml"
        )
    return Suite.read(path)


Progress = Callable[[str, int, int], None]
"""Told (what is recorded now, requests done, requests in all)."""


def record_suite(suite: Suite, loaded: LoadedModel, folder: Path, progress: Progress) -> list[Path]:
    """Record every run of a suite into `folder`; returns the files.

    The recordings are made in a folder beside it and checked there; only when all are whole do they take its place, so
    that what was in `folder` before is replaced as a whole or not at all. Raises SuiteError where a recording does not
    pass its check.
    """
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    turns = list(suite.turns())
    total = len(turns) * len(suite.prompts)
    # The first step of a process pays for kernels, caches and threads: one run that nobody keeps.
    progress("warming up", 0, total)
    _run(suite, suite.cases[0], loaded, None, None, lambda done: None)
    files = []
    for turn, (repeat, case) in enumerate(turns):
        label = f"{case.name} {repeat + 1}/{suite.repeats_of(case)}"
        path = fresh / f"{case.name}-{repeat + 1}.jsonl.zst"
        run = RunInfo(suite=suite.name, case=case.name, repeat=repeat, repeats=suite.repeats_of(case))
        before = turn * len(suite.prompts)

        def report(done: int, label: str = label, before: int = before) -> None:
            progress(label, before + done, total)

        _run(suite, case, loaded, path, run, report)
        verdict = check(path)
        if not verdict.ok:
            fault = verdict.violations[0] if verdict.violations else verdict.cut
            raise SuiteError(f"{path}: the recording does not pass its check: {fault}")
        files.append(folder / path.name)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return files


def requests_of(prompts: Iterable[Prompt], loaded: LoadedModel) -> list[Request]:
    """Requests with pinned lengths: an end token ends one no earlier than its pinned last token."""
    requests = []
    for prompt in prompts:
        if prompt.output_tokens is None:
            raise WorkloadError(f"{prompt.id!r} has no output_tokens; run `tracereel pin`")
        sampling = SamplingParams(max_tokens=prompt.output_tokens, min_tokens=prompt.output_tokens)
        ids = tuple(loaded.tokenizer.encode_chat(prompt.prompt))
        requests.append(Request(prompt.id, ids, sampling, prompt.prompt))
    return requests


def _run(
    suite: Suite,
    case: Case,
    loaded: LoadedModel,
    path: Path | None,
    run: RunInfo | None,
    done: Callable[[int], None],
) -> None:
    """One run of one case, recorded where a path is given."""
    config = suite.config(case)
    workload = Workload.of(suite.name, suite.prompts, case.arrivals)
    requests = requests_of([prompt for _, prompt in workload.requests], loaded)
    runner = ModelRunner(loaded.model, config)
    recorder = Recorder(path, loaded.header(config, runner, workload.info(), run)) if path else None
    engine = Engine(
        runner,
        config,
        new_stream=loaded.tokenizer.stream,
        end_ids=loaded.tokenizer.end_ids,
        recorder=recorder,
    )
    try:
        if case.arrivals.kind == "at once":
            for request in requests:
                engine.add(request, arrival_ns=0)
            while (ready_ns := engine.ready_in_ns()) is not None:
                if ready_ns:
                    time.sleep(ready_ns / 1e9)
                engine.step()
                done(engine.metrics().finished)
        else:
            _run_online(engine, workload, requests, done)
    except BaseException:
        if recorder:
            recorder.abandon()
        raise
    if recorder:
        recorder.close()


def _run_online(engine: Engine, workload: Workload, requests: list[Request], done: Callable[[int], None]) -> None:
    start_ns = engine.now_ns() + 1_000_000  # the first arrivals must not lie before the engine's thread has started
    due = [(start_ns + at, request) for (at, _), request in zip(workload.requests, requests, strict=True)]
    with OnlineEngine(engine) as online:
        drive(online, due)
        while (finished := online.metrics().finished) < len(requests):
            done(finished)
            time.sleep(0.05)
    done(len(requests))
