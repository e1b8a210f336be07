"""Everything that wants a GPU, in two runs of five and six minutes, the most wanted first.

    python benchmarks/gpu_session.py first --out FOLDER [--parcel FOLDER]
    python benchmarks/gpu_session.py second --out FOLDER [--parcel FOLDER]
    python benchmarks/gpu_session.py --dry-run --out FOLDER

Each stage is a process of its own with a limit; one that overruns it is stopped, and what it had is kept. After each
stage FOLDER has what it made: results/STAGE.json, logs/STAGE.log, recordings/, gpu.md with the figures wanted and those
was measured; and the same once more as a few archives below FOLDER/carry, or the folder of --carry, for where only a
few files can be brought back.
A stage that FOLDER has whole is not run again. `--only` names stages instead of a run.

`--parcel` is what `gpu_parcel.py pack` made: the default model, and wheels of what the machine lacks. It is unpacked
below FOLDER's neighbour `FOLDER.work`. What needs a part of it that is not there is left out, and that is said.

With --dry-run every stage runs on the CPU, with a tiny model and Triton interpreted, to find faults before a GPU is at
hand; the numbers mean nothing.
"""

import argparse
import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gpu_stages.place import Place

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SHORTEST_S = 15.0
"""With less time left than this no stage is begun."""
LIMIT_S = 90.0
"""No stage takes longer."""
RUN_S = {"first": 300.0, "second": 360.0, "all": 660.0}


@dataclass(frozen=True)
class Stage:
    """A measurement of `gpu.py`, or another command; `needs`: model, vllm."""

    name: str
    run: str
    limit_s: float = LIMIT_S
    needs: tuple[str, ...] = ()


TESTS = ("tests/test_kernels.py", "tests/test_device_runner.py")
STAGES = (
    Stage("film", "first", needs=("model",)),
    Stage("ratios", "first", needs=("model",)),
    Stage("mixed", "first", limit_s=60),
    Stage("decode", "first", limit_s=75),
    Stage("large", "first"),
    Stage("profile", "first", limit_s=60),
    Stage("film-8b", "second"),
    Stage("nano-vllm", "second", limit_s=75),
    Stage("install-vllm", "second", needs=("vllm",)),
    Stage("race-nano-vllm", "second", needs=("vllm",)),
    Stage("race-film", "second", needs=("model", "vllm")),
    Stage("tests", "second", limit_s=75),
    Stage("tokens", "second", limit_s=75, needs=("model",)),
    Stage("invariant", "second", limit_s=75, needs=("model",)),
    Stage("recorder", "second", limit_s=45),
    Stage("attention", "second", limit_s=45),
)


def say(text: str) -> None:
    """A line of the session's own."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


# Folders.


def carry(place: Place, folder: Path) -> list[Path]:
    """The session's files as a few archives, each written whole: results, and one for each suite of recordings."""
    folder.mkdir(parents=True, exist_ok=True)
    groups = {"results": [place.out / "gpu.md", *_files(place.results), *_files(place.logs), *_files(place.done)]}
    recordings = place.recordings
    for suite in sorted(recordings.iterdir()) if recordings.is_dir() else []:
        # Also those of a suite that was stopped, in its hidden folder: each is whole, or bears another name.
        groups[suite.name] = [file for file in _files(suite) if file.name.endswith(".jsonl.zst")]
    made = []
    for name, files in groups.items():
        fresh = folder / f".{name}.part"
        with zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                if file.is_file():
                    archive.write(file, file.relative_to(place.out))
        made.append(fresh.replace(folder / f"{name}.zip"))
    return made


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


# What the stages need.


def prepare(place: Place, parcel: Path | None) -> set[str]:
    """Unpack the parcel, make tracereel importable; returns what is there of model and vllm, and says what is not."""
    there: set[str] = set()
    if parcel is not None:
        # Not imported before it is needed: it wants `packaging`.
        import gpu_parcel

        for kind in ("own", "model"):
            try:
                for line in gpu_parcel.unpack(parcel, place.work, (kind,)):
                    say(line)
            except gpu_parcel.ParcelError as error:
                say(f"parcel: {error}")
        if parcel_has(parcel, "vllm"):
            there.add("vllm")
    elif importlib.util.find_spec("vllm") is not None:
        there.add("vllm")
    own = place.work / "own"
    if own.is_dir():
        _add_path(own)
    if subprocess.run([sys.executable, "-c", "import tracereel.cli.main"], cwd=place.work).returncode:
        _install_tracereel(place.work / "own")
        _add_path(own)
    if _model_is_there(place.work):
        there.add("model")
    return there


def parcel_has(parcel: Path, kind: str) -> bool:
    """Are all pieces of the files of this kind there?"""
    import gpu_parcel

    try:
        entries = [entry for entry in gpu_parcel.read_manifest(parcel) if entry.kind == kind]
    except gpu_parcel.ParcelError as error:
        say(f"parcel: {error}")
        return False
    pieces = [piece for entry in entries for piece in entry.pieces]
    missing = [piece for piece in pieces if not (parcel / f"part-{piece.part}" / piece.name).is_file()]
    if missing:
        say(f"parcel: {kind}: {len(missing)} pieces are missing, first {missing[0].name} of part-{missing[0].part}")
    return bool(entries) and not missing


def _add_path(folder: Path) -> None:
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))


def _install_tracereel(target: Path) -> None:
    """Install this checkout, without its dependencies, into a folder."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*command, "--target", str(target), str(ROOT)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"gpu_session.py: tracereel could not be installed: {done.stderr.strip()[-300:]}")
    say(f"tracereel: installed to {target}")


def _model_is_there(work: Path) -> bool:
    """Is the default model where the engine looks for it? One from a parcel is put there."""
    look = (
        "import sys; from pathlib import Path; from tracereel.engine.model_store import model_path, FILE_NAME\n"
        "path, own = model_path(), Path(sys.argv[1]) / FILE_NAME\n"
        "path.parent.mkdir(parents=True, exist_ok=True)\n"
        "own.is_file() and not path.is_file() and path.symlink_to(own.resolve())\n"
        "sys.exit(not path.is_file())"
    )
    return subprocess.run([sys.executable, "-c", look, str(work)]).returncode == 0


# Stages.


def command_of(stage: Stage, place: Place, parcel: Path | None, dry: bool) -> list[str]:
    """What runs a stage. In a dry run the tests are collected, not run: those of a CPU run elsewhere."""
    if stage.name == "tests":
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-q",
            *(str(ROOT / test) for test in TESTS),
        ]
        return [*command, *(["--collect-only"] if dry else [])]
    command = [sys.executable, str(HERE / "gpu.py"), stage.name, "--out", str(place.out)]
    return [*command, *(["--parcel", str(parcel)] if parcel else [])]


def run(command: list[str], log: Path, limit_s: float) -> str:
    """Run a command for so long at most, what it says shown and kept; returns how it ended.

    It is a process group of its own, which is ended as a whole: engines start processes of their own.
    """
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,
    )
    reader = threading.Thread(target=_show, args=(process, log), daemon=True)
    reader.start()
    try:
        process.wait(limit_s)
        outcome = "done" if process.returncode == 0 else f"failed with {process.returncode}"
    except subprocess.TimeoutExpired:
        outcome = f"stopped after {limit_s:.0f} s"
    _end_group(process)
    reader.join(5)
    return outcome


def _show(process: "subprocess.Popen[str]", log: Path) -> None:
    assert process.stdout is not None
    with log.open("w") as out:
        for line in process.stdout:
            out.write(line)
            out.flush()
            print("  " + line, end="", file=sys.stderr, flush=True)


def _end_group(process: "subprocess.Popen[str]") -> None:
    """End what is left of the process and of all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_here(stage: Stage, place: Place, parcel: Path | None, log: Path) -> str:
    """A stage of a dry run, in this process: torch is imported once for all of them."""
    import traceback

    import gpu

    try:
        gpu.run_stage(stage.name, place.out, parcel, dry=True)
    except Exception:
        log.write_text(traceback.format_exc())
        print(traceback.format_exc(), file=sys.stderr, flush=True)
        return "failed"
    return "done"


def session(
    stages: Iterable[Stage],
    place: Place,
    there: set[str],
    seconds: float,
    parcel: Path | None = None,
    carried: Path | None = None,
    dry: bool = False,
) -> int:
    """Run what is not done; returns the exit code. After each stage all files are in place."""
    from gpu_stages.report import report

    end = time.monotonic() + seconds
    outcomes: dict[str, str] = {}
    for stage in stages:
        begin = time.monotonic()
        lacking = [need for need in stage.needs if need not in there]
        limit_s = min(stage.limit_s, LIMIT_S, end - begin)
        if (place.done / stage.name).exists():
            outcomes[stage.name] = "done before"
        elif lacking:
            outcomes[stage.name] = f"left out: {', '.join(lacking)} is not there"
        elif limit_s < SHORTEST_S:
            outcomes[stage.name] = "not begun: the time is up"
        else:
            say(f"{stage.name}: {limit_s:.0f} s at most, {end - begin:.0f} s are left")
            log = place.logs / f"{stage.name}.log"
            if dry and stage.name != "tests":
                outcome = run_here(stage, place, parcel, log)
            else:
                outcome = run(command_of(stage, place, parcel, dry), log, limit_s)
            if outcome == "done":
                (place.done / stage.name).touch()
            outcomes[stage.name] = f"{outcome} ({time.monotonic() - begin:.0f} s)"
        say(f"{stage.name}: {outcomes[stage.name]}")
        (place.out / "gpu.md").write_text(report(place.results, outcomes))
        carry(place, carried or place.out / "carry")
    print((place.out / "gpu.md").read_text().split("\n## Stages\n")[0])
    return 0 if all((place.done / stage.name).exists() for stage in stages) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", choices=list(RUN_S), default="all", help="which stages (default: all)")
    parser.add_argument("--out", type=Path, required=True, help="folder for all that is made")
    parser.add_argument("--parcel", type=Path, help="what `gpu_parcel.py pack` made")
    parser.add_argument("--carry", type=Path, help="folder for the archives (default: OUT/carry)")
    parser.add_argument("--only", nargs="+", choices=[stage.name for stage in STAGES], help="these stages instead")
    parser.add_argument("--seconds", type=float, help="time for the whole call (default: 300, 360, all 660)")
    parser.add_argument("--dry-run", action="store_true", help="every stage on the CPU, with a tiny model")
    args = parser.parse_args()
    place = Place(args.out.resolve())
    place.make()
    chosen = [s for s in STAGES if (s.name in args.only if args.only else args.run in (s.run, "all"))]
    seconds = args.seconds or RUN_S[args.run]
    if args.dry_run:
        # Every stage, whatever an earlier dry run did.
        for mark in place.done.iterdir():
            mark.unlink()
        parcel, there = dry_parcel(place.work / "parcel"), {"model", "vllm"}
        prepare(place, parcel)
        return session(chosen, place, there, 10 * seconds, parcel, args.carry, dry=True)
    there = prepare(place, args.parcel)
    return session(chosen, place, there, seconds, args.parcel, args.carry)


def dry_parcel(folder: Path) -> Path:
    """A parcel of tiny files in two parts, packed as the real one is."""
    import gpu_parcel

    with tempfile.TemporaryDirectory() as made:
        model = Path(made) / "dry-model.bin"
        model.write_bytes(bytes(range(256)) * 8)
        files = [("model", model)]
        for kind in ("own", "vllm"):
            wheel = Path(made) / f"dry_{kind}-0.1-py3-none-any.whl"
            about = f"dry_{kind}-0.1.dist-info"
            with zipfile.ZipFile(wheel, "w") as archive:
                archive.writestr(f"dry_{kind}.py", "")
                archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: dry-{kind}\nVersion: 0.1\n")
                archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
                archive.writestr(f"{about}/RECORD", "")
            files.append((kind, wheel))
        if not folder.exists():
            folder.mkdir(parents=True)
            gpu_parcel.pack(files, folder, 2000)
    return folder


if __name__ == "__main__":
    sys.exit(main())
