"""Everything that wants a GPU, in one call that resumes: tests, benchmarks, recordings, all below one folder.

    python benchmarks/gpu_session.py --out FOLDER [--azure FILE] [--minutes 9.5]

Stages that matter most come first. Each is a process of its own whose output goes to FOLDER/logs, and is skipped where
FOLDER/done has it; what was begun and not ended when the time is up is done by the next call. Recordings go to
FOLDER/recordings, from where they are copied to trace/recordings; tables to FOLDER/results. Where the default model has
not been fetched, what needs it is left out and named.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
_SHORTEST_S = 20.0
"""With less time left than this no stage is begun."""


@dataclass(frozen=True)
class Stage:
    """A command, and how long it may take at most."""

    name: str
    command: tuple[str, ...]
    minutes: float
    needs_model: bool = False


def stages(out: Path, azure: Path | None, device_name: str) -> list[Stage]:
    """Everything that is to be done, the most wanted first."""
    python = sys.executable
    bench = (python, str(HERE / "gpu.py"), "--out", str(out / "results"))
    lengths = ("--azure", str(azure)) if azure else ()
    record = (python, "-m", "tracereel.cli.main", "record", "--device", "cuda")
    recordings = out / "recordings"
    tests = ("tests/test_kernels.py", "tests/test_device_runner.py")
    return [
        Stage("correct", (python, "-m", "pytest", "-p", "no:cacheprovider", *tests), 4),
        Stage("ceilings", (*bench, "--only", "ceilings"), 1),
        Stage(
            "record-film",
            (*record, "--suite", "film-gpu", "--out", str(recordings / "film" / device_name)),
            4,
            needs_model=True,
        ),
        *(Stage(name, (*bench, "--only", name), 3) for name in ("smollm2", "llama8b", "qwen3")),
        Stage("policies", (*bench, "--only", "policies", *lengths), 4, needs_model=True),
        Stage(
            "record-film-8b",
            (
                *(*record, "--suite", "film-8b", "--model", "random:Llama-3.1-8B"),
                *("--out", str(recordings / "film-8b" / device_name)),
            ),
            3,
        ),
        *(Stage(name, (*bench, "--only", name), 2) for name in ("recorder", "attention")),
    ]


def left_to_do(made: list[Stage], done: Path, has_model: bool) -> list[Stage]:
    """The stages that are not done and can be."""
    return [stage for stage in made if not (done / stage.name).exists() and (has_model or not stage.needs_model)]


def run(stage: Stage, logs: Path, seconds: float) -> str:
    """Run one stage for so long at most; returns how it ended."""
    log = logs / f"{stage.name}.log"
    with log.open("w") as output:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        try:
            process = subprocess.run(
                stage.command, stdout=output, stderr=subprocess.STDOUT, timeout=seconds, env=environment, check=False
            )
        except subprocess.TimeoutExpired:
            return "out of time"
    return "done" if process.returncode == 0 else f"failed with {process.returncode}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for all that is made")
    parser.add_argument("--azure", type=Path, help="a CSV file with ContextTokens and GeneratedTokens")
    parser.add_argument("--minutes", type=float, default=9.5, help="time for the whole call (default: 9.5)")
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes

    import torch
    from tracereel.engine.accelerator import require_cuda
    from tracereel.engine.loading import device_info
    from tracereel.engine.model_store import model_path
    from tracereel.trace.recordings.index import device_folder

    require_cuda()
    has_model = model_path().is_file()
    made = stages(args.out, args.azure, device_folder(device_info(torch.device("cuda"))))
    done, logs = args.out / "done", args.out / "logs"
    for folder in (done, logs):
        folder.mkdir(parents=True, exist_ok=True)
    outcomes = {stage.name: "done before" for stage in made if (done / stage.name).exists()}
    for stage in made:
        if stage.needs_model and not has_model:
            outcomes[stage.name] = f"left out: {model_path()} is not there"
    for stage in left_to_do(made, done, has_model):
        seconds = min(60 * stage.minutes, end - time.monotonic())
        if seconds < _SHORTEST_S:
            outcomes[stage.name] = "not begun: the time is up"
            continue
        begin = time.monotonic()
        outcome = run(stage, logs, seconds)
        outcomes[stage.name] = f"{outcome} ({time.monotonic() - begin:.0f} s)"
        print(f"{stage.name}: {outcomes[stage.name]}", file=sys.stderr, flush=True)
        if outcome == "done":
            (done / stage.name).touch()
    print("\n".join(f"{stage.name:16}{outcomes[stage.name]}" for stage in made))
    table = args.out / "results" / "gpu.md"
    if table.is_file():
        print(table.read_text())
    return 0 if all((done / stage.name).exists() for stage in made) else 1


if __name__ == "__main__":
    sys.exit(main())
