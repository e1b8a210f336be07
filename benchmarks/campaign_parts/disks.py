"""Commands that write on a disk that fills up, or takes nothing: what was there is whole, and one line says why.

The disks are small file systems in memory, which only root may mount.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confined import run_command

from campaign_parts.operations import Operation, earlier, operations
from campaign_parts.trial import Trial, Trials, names_below, rng_of

DISK_BYTES = 64 << 20


def possible() -> bool:
    """May this process mount file systems?"""
    return os.geteuid() == 0 and shutil.which("mount") is not None


@contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """A small file system below `folder`. Raises CalledProcessError where it cannot be mounted."""
    folder.mkdir()
    size = f"size={DISK_BYTES},mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
        folder.rmdir()


def trials(numbers: range, seed: int, folder: Path) -> Trials:
    """Commands of these numbers: four of five on a disk with little room left, the others on one that is read-only."""
    known = operations(folder / "inputs")
    for number in numbers:
        rng = rng_of(seed, "disks", number)
        operation = known[number % len(known)]
        with disk(folder / f"disk-{number}") as place:
            yield _tried(Trial(f"disks {seed}/{number} {operation.name}"), rng, operation, place)


def _tried(trial: Trial, rng: random.Random, operation: Operation, place: Path) -> Trial:
    out = place / "out"
    out.mkdir()
    before = earlier(operation, out) if rng.random() < 0.8 else {}
    names = names_below(place)
    if rng.random() < 0.2:
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        trial.name += ", read-only"
        codes: tuple[int, ...] = (2,)
    else:
        room = rng.choice([0, 4096, int(rng.uniform(0, 1.5) * (sum(map(len, before.values())) or 200_000))])
        _fill(place / "filler", room)
        trial.name += f", {room} bytes left"
        codes = (0, 2)
    outcome = trial.note(run_command(*operation.arguments(out)), *codes)
    if outcome.code == 2:
        said = outcome.err.strip().splitlines()
        trial.expect(bool(said) and said[-1].startswith("tracereel: "), f"the last line is {said[-1:]}")
        now = {name: (out / name).read_bytes() for name in before if (out / name).exists()}
        # Of several files some may be new; each is whole.
        torn = [n for n in before if n not in now or (now[n] != before[n] and not operation.whole(out / n))]
        trial.expect(not torn, f"lost or torn: {torn}")
        # What a recording that was cut off has written is kept, and named.
        left = {name for name in names_below(place) - names - {"filler"} if Path(name).name not in outcome.err}
        trial.expect(not left or _several(operation), f"left behind: {sorted(left)}")
    elif outcome.code == 0:
        torn = [name for name in names_below(out) if not operation.whole(out / name)]
        trial.expect(not torn, f"exit code 0, and torn: {torn}")
    return trial


def _several(operation: Operation) -> bool:
    """Whether it keeps what was whole when it ended: tables one by one, a suite's recordings, films of scenes."""
    return operation.name in ("csv", "parquet", "suite", "renders")


def _fill(path: Path, room: int) -> None:
    """Fill the file system up to about so many bytes."""
    stat = os.statvfs(path.parent)
    with path.open("wb") as file:
        file.write(bytes(max(stat.f_bavail * stat.f_frsize - room, 0)))
