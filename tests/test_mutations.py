"""Files that were damaged in every way we can think of end in a verdict: no traceback, no hang, no flood of memory.

The seeded sample here takes seconds; TRACEREEL_MUTATIONS=20000 makes it as large as that. The work is done in a process
of its own, whose peak memory the system counts; each file has its time limit there.
"""

import contextlib
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import fakes
import pytest
from mutations import MUTATIONS, bombs

FILES = int(os.environ.get("TRACEREEL_MUTATIONS", "150"))
SECONDS_EACH, PEAK_BYTES = 20, 512 * 2**20


def verdict(command: list[str]) -> str:
    """What the command line says of a file: its exit code. Any other exception comes out."""
    from tracereel.cli.main import main

    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = main(command)
    told = errors.getvalue() if code == 2 else out.getvalue()
    assert told.strip(), "nothing was said"
    assert code != 2 or told.count("\n") == 1, told
    assert all(char.isprintable() or char == "\n" for char in told), ascii(told)
    return f"{command[0]} {code}"


def peak_bytes() -> int:
    """The most memory this process has held; where the system says it, without what its parent held at the fork."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def too_long(*_: object) -> None:
    raise TimeoutError(f"no verdict after {SECONDS_EACH} s")


def work(count: int, seed: int, folder: Path) -> None:
    """Damage, ask, count; prints a line of JSON."""
    original = folder / "original.jsonl"
    fakes.record_small_run(original)
    content = original.read_bytes()
    rng = random.Random(seed)
    signal.signal(signal.SIGALRM, too_long)
    verdicts: Counter[str] = Counter()
    path = folder / "damaged.jsonl"
    damaged = [*bombs(content), *(None for _ in range(count))]
    for number, ready in enumerate(damaged):
        mutation = MUTATIONS[number % len(MUTATIONS)]
        path.write_bytes(mutation(rng, content) if ready is None else ready)
        signal.alarm(SECONDS_EACH)
        try:
            for command in (["check", str(path), "--first", "50"], ["inspect", "--json", "--allow-broken", str(path)]):
                verdicts[verdict(command)] += 1
        except BaseException:
            path.rename(folder / "culprit")
            print(f"file {number}, seed {seed}: {folder / 'culprit'}", file=sys.stderr)
            raise
        signal.alarm(0)
    peak = peak_bytes()
    print(json.dumps({"files": len(damaged), "verdicts": verdicts, "peak": peak}))


@pytest.mark.long
def test_damaged_files_end_in_a_verdict(tmp_path):
    command = [sys.executable, __file__, str(FILES), "0", str(tmp_path)]
    support = {**os.environ, "PYTHONPATH": str(Path(__file__).with_name("support"))}
    done = subprocess.run(command, capture_output=True, text=True, env=support)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["files"] > FILES
    assert told["peak"] < PEAK_BYTES
    assert set(told["verdicts"]) <= {"check 0", "check 1", "check 2", "inspect 0", "inspect 2"}
    # A file may be damaged where nobody looks (the end record's own time), and cut after its last record; hardly more.
    assert told["verdicts"].get("check 0", 0) < 0.05 * told["files"]


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
