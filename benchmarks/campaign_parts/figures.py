"""The campaign's figures: a line of JSON for each slice that ended, and the table that they make together."""

import platform
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

TITLE = """# What damage, kills and full disks do

Written by `python benchmarks/campaign.py --figures benchmarks/results/campaign.jsonl`, which tells what a trial is and
when it is bad. Each line of campaign.jsonl is a slice of a part's trials. Where a trial was tried again its last try
counts.

"""


class Slice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the trials `first` to `end` (exclusive) of a part ended; `bad` holds the numbers of the bad ones."""

    part: str
    seed: int
    first: int
    end: int
    bad: list[int]
    seconds: float
    verdicts: dict[str, int]
    commit: str
    machine: str
    ended: str


@dataclass(frozen=True)
class _Row:
    trials: int
    bad: int
    seconds: float
    verdicts: Counter[str]
    commits: list[str]


def ended_slice(
    part: str, seed: int, numbers: range, bad: Sequence[int], seconds: float, verdicts: Counter[str]
) -> Slice:
    """A slice that ended now, on this tree and machine."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    machine = f"{platform.machine()}, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    return Slice(
        part,
        seed,
        numbers.start,
        numbers.stop,
        list(bad),
        round(seconds, 1),
        dict(sorted(verdicts.items())),
        described.stdout.strip() or "unknown",
        machine,
        datetime.now(UTC).isoformat(timespec="seconds"),
    )


def add(path: Path, ended: Slice) -> None:
    """Append a slice to the file, and write the table of all its slices beside it (`.md`). Raises OSError."""
    with path.open("ab") as file:
        file.write(msgspec.json.encode(ended) + b"\n")
    slices = [msgspec.json.decode(line, type=Slice) for line in path.read_bytes().splitlines()]
    path.with_suffix(".md").write_text(table(slices))


def table(slices: Iterable[Slice]) -> str:
    """A row for each part and seed. A slice that a later one covers in part is left out whole."""
    kept: list[Slice] = []
    for one in slices:
        kept = [k for k in kept if (k.part, k.seed) != (one.part, one.seed) or k.end <= one.first or one.end <= k.first]
        kept.append(one)
    lines = ["| part | seed | trials | bad | seconds | commits |", "|---|---:|---:|---:|---:|---|"]
    ends = []
    for part, seed in dict.fromkeys((one.part, one.seed) for one in kept):
        row = _row([one for one in kept if (one.part, one.seed) == (part, seed)])
        commits = ", ".join(row.commits)
        lines.append(f"| {part} | {seed} | {row.trials:,} | {row.bad} | {row.seconds:,.0f} | {commits} |")
        ends.append(f"- {part}: {', '.join(f'{what} ×{count:,}' for what, count in sorted(row.verdicts.items()))}")
    total = f"{sum(one.end - one.first for one in kept):,} trials, {sum(len(one.bad) for one in kept)} bad"
    machines = "; ".join(dict.fromkeys(one.machine for one in kept))
    return "\n".join(
        [f"{TITLE}{total}, on {machines}.", "", *lines, "", "Commands and their exit codes:", "", *ends, ""]
    )


def _row(slices: Sequence[Slice]) -> _Row:
    verdicts: Counter[str] = Counter()
    for one in slices:
        verdicts.update(one.verdicts)
    return _Row(
        sum(one.end - one.first for one in slices),
        sum(len(one.bad) for one in slices),
        sum(one.seconds for one in slices),
        verdicts,
        list(dict.fromkeys(one.commit for one in slices)),
    )
