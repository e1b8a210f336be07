"""Suites: small TOML files that say which recordings belong together.

A suite's cases are recorded in turns, repeat by repeat, so that what is compared was measured side by side. Knows
workloads and the engine's configuration. Does not record (`suite_recording`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import msgspec
from tracereel.engine.config import EngineConfig
from tracereel.engine.policies import policy_named
from tracereel.engine.workload import Arrivals, Prompt, Workload
from tracereel.engine.workload_files import MAX_REQUESTS, read_prompts
from tracereel.trace.format.events import RunInfo
from tracereel.trace.format.toml_file import TomlFileError, read_toml

Repeats = Annotated[int, msgspec.Meta(ge=1, le=1000)]
FileName = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9-]{0,63}$")]
SUITES = Path(__file__).resolve().parent / "suites"


class SuiteError(Exception):
    """A suite cannot be used or a recording failed its check; the message is one line."""


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to run the workload."""

    name: FileName
    policy: str
    arrivals: Arrivals = Arrivals()
    repeats: Repeats | None = None
    engine: dict[str, int | bool] = {}
    """Settings of this case alone, over those of the suite."""


class _SuiteFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: FileName
    prompts: str
    case: list[Case]
    repeats: Repeats = 1
    copies: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    """How often each prompt is asked: what fills many slots."""
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
            content = read_toml(path, _SuiteFile)
        except TomlFileError as error:
            raise SuiteError(f"{path}: {error}") from None
        prompts = read_prompts(path.parent / content.prompts)
        unpinned = next((prompt.id for prompt in prompts if prompt.output_tokens is None), None)
        if unpinned is not None:
            raise SuiteError(f"{path.parent / content.prompts}: {unpinned!r} has no output_tokens; run `tracereel pin`")
        if len(prompts) * content.copies > MAX_REQUESTS:
            raise SuiteError(f"{path}: copies: {content.copies} of {len(prompts)} prompts are over {MAX_REQUESTS:,}")
        prompts = [
            msgspec.structs.replace(prompt, id=f"{prompt.id}-{copy + 1}") if content.copies > 1 else prompt
            for copy in range(content.copies)
            for prompt in prompts
        ]
        names = [case.name for case in content.case]
        if not names or len(set(names)) < len(names):
            raise SuiteError(f"{path}: case: each needs a name of its own, got {names}")
        suite = cls(content.name, tuple(prompts), tuple(content.case), content.repeats, content.engine)
        for case in suite.cases:
            suite.config(case)
            suite.workload(case)
        return suite

    def config(self, case: Case) -> EngineConfig:
        """The engine configuration of a case. Raises SuiteError, ConfigError."""
        settings = {**self.engine, **case.engine}
        unknown = set(settings) - {setting.name for setting in fields(EngineConfig) if setting.name != "policy"}
        if unknown:
            raise SuiteError(f"engine: {', '.join(sorted(unknown))} is not a setting")
        policy_named(case.policy)
        return EngineConfig(policy=case.policy, **settings)  # type: ignore[arg-type]  # it checks every type itself

    def workload(self, case: Case) -> Workload:
        """What a case asks."""
        return Workload.of(self.name, self.prompts, case.arrivals)

    def run_info(self, case: Case, repeat: int) -> RunInfo:
        """What a trace says of its place in the suite."""
        return RunInfo(suite=self.name, case=case.name, repeat=repeat, repeats=self.repeats_of(case))

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


def recording_name(case: Case, repeat: int) -> str:
    """The file name of a recording."""
    return f"{case.name}-{repeat + 1}.jsonl.zst"
