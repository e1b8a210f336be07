"""What the tests of all engines ask of a recording."""

import subprocess
import sys
from pathlib import Path

from tracereel.trace.check.invariants import check
from tracereel.trace.state.columns import Trace


def trace_of(path: Path) -> Trace:
    """A recording that is whole and in which everything holds."""
    report = check(path)
    assert report.ok, (path, report.violations[:5], report.cut)
    return Trace.read(path)


def said(trace: Trace) -> dict[str, tuple[list[int], str]]:
    """What each request was answered, by its name: token ids and text."""
    answers = {}
    for number, arrival in enumerate(trace.arrivals):
        texts = trace.texts_of(number)
        assert texts is not None
        answers[arrival.id] = (trace.steps.token_id[trace.tokens_of(number)].tolist(), "".join(texts))
    return answers


def render(path: Path, media: Path) -> None:
    """A scene of that recording, a few frames."""
    command = [sys.executable, "-m", "tracereel.cli.main", "render", "pipeline_flow", "--recordings", str(path)]
    command += ["--fps", "1", "--size", "426x240", "--media", str(media)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[-1]).stat().st_size > 0
