"""A command of tracereel in a forked child that is held to limits; how it ended, and what is wrong with that.

The parent has imported what commands import, so that a command costs what it does and not seconds of imports.
"""

import contextlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SECONDS, GROWTH_BYTES = 300, 1 << 30
"""What a command may take: time, also on a machine that is busy with others, and memory besides what it began with."""
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


def run_command(*arguments: str | Path) -> Outcome:
    """Run `tracereel ARGUMENTS` in a child."""
    return run_commands([arguments])[0]


def run_commands(commands: Sequence[Sequence[str | Path]]) -> list[Outcome]:
    """Run commands one after the other in one child, which costs less; each is held to the limits by itself.

    A command that takes the child with it is the last.
    """
    named = [tuple(map(str, command)) for command in commands]
    outcomes: list[Outcome] = []
    with contextlib.ExitStack() as files:
        out, err, ends = (files.enter_context(tempfile.TemporaryFile()) for _ in range(3))

        def run_all() -> int:
            _limit_memory()
            for command in named:
                began, resident = time.monotonic(), _status_bytes("VmRSS")
                code = _code_of(lambda command=command: _main(command))  # type: ignore[misc]
                end = (
                    code,
                    time.monotonic() - began,
                    max(_status_bytes("VmHWM") - resident, 0),
                    _taken(out),
                    _taken(err),
                )
                os.write(ends.fileno(), json.dumps(end).encode() + b"\n")
            return 0

        code, _ = ended(start(run_all, out.fileno(), err.fileno()))
        ends.seek(0)
        for command, line in zip(named, ends.read().splitlines(), strict=False):
            ended_with, seconds, growth, said, told = json.loads(line)
            outcomes.append(Outcome(command, ended_with, said, told, seconds, growth))
        if len(outcomes) < len(named):
            outcomes.append(Outcome(named[len(outcomes)], code, _taken(out), _taken(err), SECONDS, 0))
    return outcomes


def start(call: Callable[[], int], out: int, err: int) -> int:
    """Fork a child, of a process group of its own, that runs the function; its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setpgid(0, 0)
        vars(sys.modules["__main__"]).pop("__file__", None)  # or each process that it spawns would import this program
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        code = _code_of(call)
    finally:
        os._exit(code)


def _main(arguments: Sequence[str]) -> int:
    from tracereel.cli.main import main

    return main(arguments)


def _code_of(call: Callable[[], int]) -> int:
    """The exit code that a function would give a process, with a limit of time."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS)
    try:
        return call()
    except KeyboardInterrupt:
        return 130
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 70
    finally:
        signal.alarm(0)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()


def wait_for(child: int) -> tuple[int, int]:
    """Wait for a child's end; its code as a shell says it, and the most memory that it held (bytes)."""
    _, status, usage = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else _SIGNALLED - code, usage.ru_maxrss * 1024


def ended(child: int) -> tuple[int, int]:
    """The same; what it started is killed with its end."""
    found = wait_for(child)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    return found


def _taken(file: IO[bytes]) -> str:
    """What has been written to a file, which is empty after that."""
    file.seek(0)
    text = file.read().decode(errors="replace")
    file.seek(0)
    file.truncate()
    return text


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (_status_bytes("VmData") + _HARD_BYTES,) * 2)


def _status_bytes(name: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) * 1024
