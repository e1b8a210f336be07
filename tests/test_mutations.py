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
from collections.abc import Callable
from pathlib import Path

import fakes
import pytest
import zstandard

FILES = int(os.environ.get("TRACEREEL_MUTATIONS", "150"))
SECONDS_EACH, PEAK_BYTES = 20, 512 * 2**20

Mutation = Callable[[random.Random, bytes], bytes]


def flip_bits(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content))]


def cut_out(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + content[at + rng.randint(1, 300) :]


def of_lines(change: Callable[[random.Random, list[bytes]], None]) -> Mutation:
    def mutate(rng: random.Random, content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        for _ in range(rng.randint(1, 4)):
            change(rng, lines)
        return b"".join(lines)

    return mutate


def swap(rng: random.Random, lines: list[bytes]) -> None:
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]


def duplicate(rng: random.Random, lines: list[bytes]) -> None:
    lines.insert(rng.randrange(len(lines)), rng.choice(lines))


def delete(rng: random.Random, lines: list[bytes]) -> None:
    del lines[rng.randrange(len(lines))]


WRONG_NUMBERS = (-1, 0, 1, 2**31 - 1, 2**31, 2**53, 2**62, 2**63, 2**64, 10**400, 1.5, -0.0, True, None)
WRONG_TEXTS = ("", "D", "PD" * 50, "\x1b[2J", "\ud800")
WRONG_ARRAYS = (
    [],
    {},
    [[]],
    [None],
    [-1],
    [2**31 - 1],
    [0] * 5000,
    {"request": 0},
    [{"request": 2**31 - 1, "slot": 0}],
)
WRONG_VALUES = (*WRONG_NUMBERS, *WRONG_TEXTS, *WRONG_ARRAYS)
PIECES = (b"99999999999999999999", b"1e999", b"-", b"null", b"NaN", b'"', b"\\", b"\0" * 9, b"\xff\xfe", b"\n\n", b"}{")


def wrong_value(rng: random.Random, lines: list[bytes]) -> None:
    """Another value in some place of a record, at any depth."""
    i = rng.randrange(len(lines))
    try:
        record = json.loads(lines[i])
    except ValueError:
        return
    place = record
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = rng.choice(keys)
        if not isinstance(place[key], dict | list) or rng.random() < 0.4:
            break
        place = place[key]
    place[key] = rng.choice(WRONG_VALUES)
    lines[i] = json.dumps(record).encode() + b"\n"


def nest(rng: random.Random, lines: list[bytes]) -> None:
    i = rng.randrange(len(lines))
    deep = rng.choice([b"[", b'{"a":']) * rng.choice([100, 10_000, 500_000])
    lines[i] = rng.choice([deep + b"\n", lines[i].rstrip()[:-1] + b',"deep":' + deep + b"\n"])


def insert(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + rng.choice(PIECES) + content[at:]


def compressed(mutate: Mutation) -> Mutation:
    """Damage the compressed bytes."""
    return lambda rng, content: mutate(rng, zstandard.compress(content))


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    cut,
    cut_out,
    insert,
    *(of_lines(change) for change in (swap, duplicate, delete, wrong_value, wrong_value, nest)),
    *(compressed(damage) for damage in (flip_bits, cut, cut_out)),
)


def bomb(piece: bytes, start: bytes = b"") -> bytes:
    """A few kilobytes of zstd that expand to 256 MiB."""
    pack = zstandard.ZstdCompressor(level=1).compressobj()
    whole = piece * (2**24 // len(piece))
    return pack.compress(start) + b"".join(pack.compress(whole) for _ in range(16)) + pack.flush()


def bombs(content: bytes) -> list[bytes]:
    head = b"".join(content.splitlines(keepends=True)[:3])
    numbers = head + b'{"event":"step","index":0,"start_ns":1,"end_ns":2,"phases":"","waiting":0,"requests":['
    return [
        *(bomb(piece) for piece in (b" ", b"\n", b"[", b'{"a":')),
        *(bomb(piece, numbers) for piece in (b"0,", b"123456,", b'"",', b"[],")),
        *(bomb(piece, head) for piece in (b"\n", b'{"event":"finish","request":0,"at_ns":1,"reason":"abort"}\n')),
    ]


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


@pytest.mark.slow
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
