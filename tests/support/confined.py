"""A command of tracereel in a forked child that is held to limits; how it ended, and what is wrong with that.

The parent has imported what commands import, so that a command costs what it does and not seconds of imports.
"""

import contextlib
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SECONDS, GROWTH_BYTES = 60, 1 << 30
"""What a command may take: time, and memory besides what it began with."""
_HARD_BYTES = 3 << 30
"""Allocations beyond it fail, so that no command takes the machine down."""
_SIGNALLED = 128


@dataclass(frozen=True)
class Outcome:
    """How a command ended: `code` as a shell says it, what it printed, its time and the memory that it took."""

    command: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float
    growth_bytes: int

    def faults(self, codes: Sequence[int] = (0, 1, 2)) -> list[str]:
        """What is wrong with it, a line each; it may end with one of `codes`."""
        found = []
        if self.code == _SIGNALLED + signal.SIGALRM:
            found.append(f"it hangs: no end after {SECONDS} s")
        elif self.code not in codes:
            found.append(f"exit code {self.code}")
        if self.growth_bytes > GROWTH_BYTES:
            found.append(f"{self.growth_bytes >> 20} MiB of memory")
        said = self.out + self.err
        if "Traceback (most recent call last)" in said:
            found.append("a traceback")
        if odd := {char for char in said if not char.isprintable() and char != "\n"}:
            found.append(f"prints {''.join(sorted(odd))!a}")
        if self.code == 2 and not self.err.strip():
            found.append("nothing is said")
        return found


def run_command(*arguments: str | Path, memory: bool = True) -> Outcome:
    """Run `tracereel ARGUMENTS` in a child."""

    def call() -> int:
        from tracereel.cli.main import main

        return main(list(map(str, arguments)))

    return confined(call, tuple(map(str, arguments)), memory=memory)


def confined(call: Callable[[], int], name: tuple[str, ...], *, memory: bool = True) -> Outcome:
    """Run a function in a child, to the end of its process group."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as before:

        def measured() -> int:
            os.write(before.fileno(), str(_status("VmRSS")).encode())
            return call()

        began = time.monotonic()
        code, peak_bytes = ended(start(measured, out.fileno(), err.fileno(), memory=memory))
        seconds = time.monotonic() - began
        said, told, resident = (_content(file) for file in (out, err, before))
    return Outcome(name, code, said, told, seconds, max(peak_bytes - int(resident or 0), 0))


def start(call: Callable[[], int], out: int, err: int, *, memory: bool = True) -> int:
    """Fork a child, of a process group of its own, that runs the function; its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setpgid(0, 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        if memory:
            resource.setrlimit(resource.RLIMIT_DATA, (_status("VmData") + _HARD_BYTES,) * 2)
        code = call()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def ended(child: int) -> tuple[int, int]:
    """Wait for a child's end; its code as a shell says it, and the most memory that it held."""
    _, status, usage = os.wait4(child, 0)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else _SIGNALLED - code, usage.ru_maxrss * 1024


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _status(name: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) * 1024
