"""Commands that write, ended at a random moment: what was there is whole, and the same command then succeeds."""

import os
import signal
import time
from pathlib import Path

from confined import run_command, start, wait_for
from tracereel.trace.recordings.index import traces_below

from campaign_parts.operations import Operation, earlier, operations
from campaign_parts.trial import Trial, Trials, names_below, rng_of

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CODES = {signal.SIGKILL: (0, 137), signal.SIGTERM: (0, 143), signal.SIGINT: (0, 130)}
GONE_S = 15
"""Within so long all processes of a command that was ended are gone."""


def trials(numbers: range, seed: int, folder: Path) -> Trials:
    """Commands of these numbers, each ended by kill -9, SIGTERM or Ctrl-C."""
    known = operations(folder / "inputs")
    took: dict[str, float] = {}
    for number in numbers:
        rng = rng_of(seed, "kills", number)
        operation = known[number % len(known)]
        out = folder / f"{number}-{operation.name}"
        began = time.monotonic()
        before = earlier(operation, out)
        took.setdefault(operation.name, time.monotonic() - began)
        how = rng.choice(SIGNALS)
        after_s = rng.uniform(0, 1.1 * took[operation.name])
        trial = Trial(f"kills {seed}/{number} {operation.name} {how.name} after {after_s:.2f} s")
        _killed(trial, operation, out, how, after_s)
        _whole(trial, operation, out, before)
        trial.note(run_command(*operation.arguments(out)), 0)
        _whole(trial, operation, out, {})
        trial.expect(before.keys() <= names_below(out), "something is missing after the second run")
        yield trial


def _killed(trial: Trial, operation: Operation, out: Path, how: signal.Signals, after_s: float) -> None:
    from tracereel.cli.main import main

    with (out.parent / "said.txt").open("wb") as said:
        child = start(lambda: main(list(map(str, operation.arguments(out)))), said.fileno(), said.fileno())
    time.sleep(after_s)
    # `renders` has workers: the parent alone is ended, and they with it.
    os.kill(child, how)
    code, _ = wait_for(child)
    trial.verdicts.append(f"{operation.name} {how.name} {code}")
    text = (out.parent / "said.txt").read_text(errors="replace")
    trial.expect(code in CODES[how], f"exit code {code}: {text[-800:]}")
    trial.expect("Traceback" not in text, f"a traceback: {text[-800:]}")
    by = time.monotonic() + GONE_S
    while _alive(child) and time.monotonic() < by:
        time.sleep(0.05)
    trial.expect(not _alive(child), f"processes are left {GONE_S} s later")


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _whole(trial: Trial, operation: Operation, out: Path, before: dict[str, bytes]) -> None:
    """Every file under its name is the earlier one or a whole new one; nothing half-made passes for one."""
    for name in sorted(names_below(out)):
        path = out / name
        if any(part in name for part in (".partial", ".lock", ".making", ".new/")):
            # Readers take a recording that was cut off for what it is.
            cut = path not in traces_below(out) or run_command("check", path).code != 0
            trial.expect(cut, f"{name} is taken for a whole recording")
        elif before.get(name) != path.read_bytes():
            try:
                whole = operation.whole(path)
            except Exception as error:  # what a library says of a torn file is its verdict
                whole = False
                trial.faults.append(f"{name}: {type(error).__name__}: {error}")
            trial.expect(whole, f"{name} is torn")
    trial.expect(before.keys() <= names_below(out), "an earlier file is lost")
