"""Does any damage end in a traceback, a hang, lost files or a wrong exit code? Thousands of seeded trials say.

    python benchmarks/campaign.py [--seed 0] [--part traces=2000 --part kills=40:80 ...] [--keep FOLDER]

Parts: damaged `traces` through every command that reads them; damaged `ledgers` and pages through verify; damaged
workload, suite and brand `files`; `renders` of damaged recordings; `kills` of every command that writes, at random
moments; `disks` that are full or read-only, where this process may mount them. Each command runs in a forked child with
limits of time and memory. A trial is bad where a command ends in a traceback or with another exit code than the
documented ones, hangs, takes over a gigabyte, loses or tears a file that was there, or leaves something half-made.
Prints the figures, and adds them to a file (`--figures`); keeps the inputs of bad trials in FOLDER; exit code 1 where a
trial was bad. A trial depends on its part, seed and number alone, so a part can be tried in slices: FIRST:END.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # a child that was forked has no other threads

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from campaign_parts import disks, figures, files, kills, ledgers, renders, traces
from campaign_parts.trial import Trial, add_tiny_model
from tracereel.cli.export import FORMATS

PARTS = {
    "traces": (traces, 2000),
    "ledgers": (ledgers, 500),
    "files": (files, 500),
    "renders": (renders, 200),
    "kills": (kills, 220),
    "disks": (disks, 220),
}
EVERY_S = 30


def main() -> int:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--part", action="append", help="NAME, NAME=COUNT or NAME=FIRST:END; may be given again (default: all)"
    )
    parser.add_argument("--keep", type=Path, default=Path("campaign-bad"), help="folder for the inputs of bad trials")
    parser.add_argument(
        "--figures", type=Path, help="file of JSON Lines to add the figures to; a table is put beside it"
    )
    args = parser.parse_args()
    _import_what_commands_need()
    add_tiny_model()
    bad = 0
    for asked in args.part or PARTS:
        name, _, which = asked.partition("=")
        if name not in PARTS:
            parser.error(f"{name!r} is not one of {', '.join(PARTS)}")
        first, _, end = which.rpartition(":")
        numbers = range(int(first or 0), int(end or PARTS[name][1]))
        if name == "disks" and not disks.possible():
            print("disks: left out, only root may mount file systems", flush=True)
            continue
        ended = _run(name, numbers, args.seed, args.keep.resolve())
        bad += len(ended.bad)
        if args.figures:
            figures.add(args.figures, ended)
    print(f"{bad} bad")
    return 1 if bad else 0


def _run(name: str, numbers: range, seed: int, keep: Path) -> figures.Slice:
    """Run trials of a part; how they ended."""
    verdicts: Counter[str] = Counter()
    began = told = time.monotonic()
    bad: list[int] = []
    with tempfile.TemporaryDirectory(prefix=f"campaign-{name}-") as below:
        folder = Path(below).resolve()
        # Reports of faults and whatever else goes to the system's temporary folder.
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")
        Path(tempfile.tempdir).mkdir()
        try:
            for number, trial in zip(numbers, PARTS[name][0].trials(numbers, seed, folder), strict=True):
                verdicts.update(trial.verdicts)
                if trial.faults:
                    bad.append(number)
                    _keep(trial, keep, folder / "tmp")
                if time.monotonic() - told > EVERY_S:
                    told = time.monotonic()
                    print(f"{name}: {number + 1} of {numbers.stop}, {len(bad)} bad", file=sys.stderr, flush=True)
        finally:
            del os.environ["TMPDIR"]
            tempfile.tempdir = None
    ended = figures.ended_slice(name, seed, numbers, bad, time.monotonic() - began, verdicts)
    ends = ", ".join(f"{what} ×{count}" for what, count in ended.verdicts.items())
    print(f"{name}: {len(numbers)} trials in {ended.seconds:.0f} s, {len(bad)} bad ({ends})", flush=True)
    return ended


def _keep(trial: Trial, keep: Path, reports: Path) -> None:
    """Say what is wrong, and put the inputs and the reports of faults aside."""
    print(f"BAD {trial.name}", *trial.faults, sep="\n    ", flush=True)
    folder = keep / trial.name.replace("/", "-").replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    for path in (*trial.inputs, *reports.glob("tracereel-fault-*.txt")):
        if path.exists():
            shutil.copy(path, folder)
    for path in reports.glob("tracereel-fault-*.txt"):
        path.unlink()


def _import_what_commands_need() -> None:
    """So that forked children do not. What commands import late they import by being run here once."""
    import av  # noqa: F401
    import tracereel.engine.api
    import tracereel.engine.recording
    import tracereel.engine.suite_recording
    import tracereel.scenes.film_scene  # noqa: F401
    from tracereel.cli.main import main as command
    from tracereel.trace.recordings.index import PACKAGE_RECORDINGS

    runs = [str(PACKAGE_RECORDINGS / "film" / "cpu" / f"{case}-1.jsonl.zst") for case in ("continuous", "static")]
    replicas = sorted(map(str, (PACKAGE_RECORDINGS / "replicas").rglob("replica-*.jsonl.zst")))
    with contextlib.ExitStack() as within:
        below = within.enter_context(tempfile.TemporaryDirectory())
        nowhere = within.enter_context(open(os.devnull, "w"))
        within.enter_context(contextlib.redirect_stdout(nowhere))
        within.enter_context(contextlib.redirect_stderr(nowhere))
        for arguments in (
            *(["check", *runs], ["inspect", *runs], ["compare", *runs], ["diff", *runs]),
            ["plot", *runs, "--out", below],
            *(["export", runs[0], "--format", kind, "--out", f"{below}/{kind}"] for kind in FORMATS),
            ["merge", *replicas, "--out", f"{below}/merged.jsonl"],
            ["play", *runs, "--out", f"{below}/page.html"],
            ["verify", f"{below}/page.html", "--trace", *runs],
        ):
            if code := command(arguments):
                raise RuntimeError(f"{' '.join(arguments)}: exit code {code}")


if __name__ == "__main__":
    sys.exit(main())
