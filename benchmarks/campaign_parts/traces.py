"""Damaged traces through every command that reads traces."""

import random
from pathlib import Path

import fakes
import zstandard
from confined import run_commands
from mutations import MUTATIONS, sealed
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS

from campaign_parts.trial import EARLIER, Trial, Trials, left_behind, rng_of

FIGURES = ("slots", "tokens", "latency", "queue", "batch", "steps")


def trials(numbers: range, seed: int, folder: Path) -> Trials:
    """Damaged traces of these numbers, each through check, inspect, compare, diff, plot, export, merge and play."""
    originals = _originals(folder / "originals")
    for number in numbers:
        rng = rng_of(seed, "traces", number)
        whole = rng.choice(originals)
        content = rng.choice(MUTATIONS)(rng, whole)
        if rng.random() < 0.6:
            content = sealed(content)
        packed = not content.startswith(b"\x28\xb5\x2f\xfd") and rng.random() < 0.3
        path = folder / f"damaged.jsonl{'.zst' if packed else ''}"
        path.write_bytes(zstandard.compress(content) if packed else content)
        beside = (folder / "whole.jsonl", folder / "other.jsonl")
        for file, held in zip(beside, (whole, rng.choice(originals)), strict=True):
            file.write_bytes(held)
        yield _tried(Trial(f"traces {seed}/{number}", (path,)), rng, path, beside, folder / "out")
        path.unlink()


def _originals(folder: Path) -> list[bytes]:
    """Small traces of a fake model and of replicas, and recordings of several devices."""
    folder.mkdir(parents=True)
    for policy in ("continuous", "static", "fair"):
        fakes.record_small_run(folder / f"{policy}.jsonl", policy)
    film = PACKAGE_RECORDINGS / "film" / "cpu"
    packed = [film / "continuous-1.jsonl.zst", *sorted((PACKAGE_RECORDINGS / "paging" / "cpu").glob("*.zst"))[:1]]
    packed += sorted((Path(__file__).parents[2] / "tests" / "data" / "h100").rglob("*.jsonl.zst"))[:2]
    originals = [path.read_bytes() for path in sorted(folder.glob("*.jsonl"))]
    originals += [
        zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read() for path in packed if path.exists()
    ]
    # Small ones are damaged more often: they take less time, and a change hits more of what they hold.
    return originals[:2] * 3 + originals[2:]


def _tried(trial: Trial, rng: random.Random, path: Path, beside: tuple[Path, Path], out: Path) -> Trial:
    whole, other = beside
    written = [out / name for name in ("x.json", "merged.jsonl", "page.html")]
    kind, figure = rng.choice(("csv", "parquet")), rng.choice(FIGURES)
    broken = ["--allow-broken"] if rng.random() < 0.7 else []
    out.mkdir(exist_ok=True)
    for file in written:
        file.write_bytes(EARLIER)
    commands: list[list[str | Path]] = [
        ["check", path, *(["--strict"] if rng.random() < 0.3 else [])],
        ["inspect", path, rng.choice(("--json", "--markdown")), *broken],
        ["compare", *rng.sample((other, path), 2), *broken],
        ["diff", *rng.sample((whole, path), 2), *broken],
        ["plot", path, "--figure", figure, "--out", out, *broken],
        ["export", path, "--format", kind, "--out", out / kind, *broken],
        ["export", path, "--out", written[0], *broken],
        ["merge", whole, path, "--out", written[1]],
        ["play", path, "--out", written[2]],
    ]
    outcomes = run_commands(commands)
    trial.expect(len(outcomes) == len(commands), "the commands after it were not tried")
    for outcome in outcomes:
        trial.note(outcome)
    for file, outcome in zip(written, outcomes[-len(written) :], strict=False):
        kept = file.read_bytes() == EARLIER
        trial.expect(kept == (outcome.code != 0), f"{file.name} after exit code {outcome.code}")
    trial.expect(not (left := left_behind(out)), f"left behind: {sorted(left)}")
    return trial
