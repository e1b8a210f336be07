"""Records one suite's workload by several engines, in interleaved repeats, each run in a process of its own.

Each engine gets the same prompts as the same token ids, the same lengths of answers, the same weights (the GGUF file,
or its export), the same slots, token budget and tokens of KV cache. Each run loads, warms up and is recorded alone on
the machine. Knows which module runs which engine. Does not know the engines.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
from tracereel.engine.adapters.export import exported_model
from tracereel.engine.adapters.session import Session, SessionRequest
from tracereel.engine.suite import Suite
from tracereel.engine.suite_recording import Progress
from tracereel.engine.tokenizer import ChatTokenizer
from tracereel.engine.workload import Arrivals, Workload
from tracereel.trace.check.invariants import check
from tracereel.trace.format.events import RunInfo
from tracereel.trace.format.locks import Lock
from tracereel.trace.format.storage import TraceError
from tracereel.trace.recordings.index import ENGINES, read_header, traces_below

PYTHON_ENVIRONMENT = "TRACEREEL_{}_PYTHON"
"""Names the interpreter of an engine that is not in this environment: TRACEREEL_VLLM_PYTHON."""
_MODULES = {
    "tracereel": "tracereel.engine.race_session",
    "vllm": "tracereel.engine.adapters.vllm.session",
    "transformers": "tracereel.engine.adapters.transformers.session",
}
"""The module that runs one session of an engine, by the engine's name."""
_ERROR = re.compile(r"\b[\w.]+(Error|Exception): .+")


class SessionError(Exception):
    """An engine's run failed; the message is one line."""


@dataclass(frozen=True)
class RunnerVariant:
    """A way to run one engine: the case it is recorded as, the engine, and its variant."""

    case: str
    engine: str
    variant: str = ""


VARIANTS = (
    RunnerVariant("tracereel", "tracereel", "continuous"),
    RunnerVariant("vllm", "vllm"),
    RunnerVariant("transformers", "transformers", "continuous"),
    RunnerVariant("transformers-static", "transformers", "static"),
)


def interpreter(engine: str) -> str:
    """The Python that runs an engine: this one, or the one that its environment variable names."""
    return os.environ.get(PYTHON_ENVIRONMENT.format(engine.upper()), sys.executable)


def require_engine(engine: str) -> None:
    """Raise SessionError where the interpreter that is to run an engine lacks it."""
    python, variable = interpreter(engine), PYTHON_ENVIRONMENT.format(engine.upper())
    look = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({engine!r}) is None)"
    try:
        missing = subprocess.run([python, "-c", look], capture_output=True).returncode != 0
    except OSError as error:
        raise SessionError(f"{engine}: {python} cannot be run ({error.strerror}); see {variable}") from None
    if missing:
        raise SessionError(f"{engine} is not installed for {python}; {variable} may name an interpreter that has it")


def record_engines(
    suite: Suite,
    engines: Sequence[str],
    model_file: Path,
    tokenizer: ChatTokenizer,
    folder: Path,
    progress: Progress,
    repeats: int | None = None,
) -> list[Path]:
    """Record the suite's workload, all requests at once, by each engine in turns; returns the files.

    They are recordings of a suite of their own (`suite_name`), made aside and checked there; only when all are whole do
    they take their places, and earlier ones of that suite, of other turns, go. Raises SessionError where an engine is
    not there or fails, or a recording does not pass its check, LockedError where another process records into `folder`.
    """
    for engine in engines:
        require_engine(engine)
    workload = Workload.of(suite.name, suite.prompts, Arrivals())
    requests = [
        SessionRequest(prompt.id, prompt.prompt, tokenizer.encode_chat(prompt.prompt), prompt.output_tokens or 1)
        for prompt in suite.prompts
    ]
    limits = suite.config(suite.cases[0])
    export = exported_model(model_file)
    times = suite.repeats if repeats is None else repeats
    variants = [variant for variant in VARIANTS if variant.engine in engines]
    # Each repeat begins with another engine.
    turns = [(repeat, variants[(repeat + i) % len(variants)]) for repeat in range(times) for i in range(len(variants))]
    folder.mkdir(parents=True, exist_ok=True)
    with Lock(folder.absolute()), tempfile.TemporaryDirectory(prefix=".tracereel-", dir=folder) as place:
        fresh = Path(place)
        for turn, (repeat, variant) in enumerate(turns):
            progress(f"{variant.case} {repeat + 1}/{times}", turn, len(turns))
            session = Session(
                model=str(model_file if variant.engine == "tracereel" else export),
                path=str((fresh / _file_name(variant, repeat)).absolute()),
                requests=requests,
                slots=limits.max_num_seqs,
                token_budget=limits.max_num_batched_tokens,
                kv_blocks=limits.num_blocks,
                block_size=limits.block_size,
                max_model_len=limits.max_model_len,
                workload=workload.info(),
                run=RunInfo(suite=suite_name(suite), case=variant.case, repeat=repeat, repeats=times),
                variant=variant.variant,
            )
            run_session(session, variant.engine)
        progress("done", len(turns), len(turns))
        for path in _recordings_of(suite_name(suite), folder):
            path.unlink()
        for path in sorted(fresh.iterdir()):
            path.replace(folder / path.name)
    return [folder / _file_name(variant, repeat) for repeat, variant in turns]


def suite_name(suite: Suite) -> str:
    """The name of the suite that a suite's recordings by several engines are."""
    return suite.name + ENGINES


def _recordings_of(suite: str, folder: Path) -> list[Path]:
    """The recordings of a suite in a folder; what cannot be read is left alone."""
    found = []
    for path in traces_below(folder):
        with suppress(TraceError):
            run = read_header(path).run
            if path.parent == folder and run is not None and run.suite == suite:
                found.append(path)
    return found


def _file_name(variant: RunnerVariant, repeat: int) -> str:
    return f"{variant.case}-{repeat + 1}.jsonl.zst"


def run_session(session: Session, engine: str) -> None:
    """One run in a process of its own, and the check of its recording; its output is shown only where it fails.

    Raises SessionError.
    """
    with tempfile.TemporaryDirectory() as place:
        asked = Path(place) / "session.json"
        asked.write_bytes(msgspec.json.encode(session))
        command = [interpreter(engine), "-m", _MODULES[engine], str(asked)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode or not Path(session.path).is_file():
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        # The last line may come from the engine's shutdown; the first one that names an error is nearer to the cause.
        named = next((found[0] for line in lines if (found := _ERROR.search(line))), (lines or ["it said nothing"])[-1])
        raise SessionError(f"{engine}: the run failed: {named.strip()}")
    if fault := check(Path(session.path)).fault:
        raise SessionError(f"{engine}: the recording does not pass its check: {fault}")
