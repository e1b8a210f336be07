"""The metrics of every recording against a script that shares no code with the project."""

import ast
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from tracereel.trace import Trace
from tracereel.trace.analysis.registry import measured
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS, traces_below

SCRIPT = Path(__file__).with_name("recompute.py")
SUITES = sorted({path.parent for path in traces_below(PACKAGE_RECORDINGS)})


def test_the_script_is_short_and_knows_nothing_of_the_project():
    text = SCRIPT.read_text()
    assert len(text.splitlines()) <= 100
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in found for alias in node.names} | {getattr(node, "module", None) for node in found}
    assert names - {None} == {"json", "sys", "pathlib", "Path", "zstandard"}


@pytest.mark.slow
@pytest.mark.parametrize("folder", SUITES, ids=lambda folder: "-".join(folder.parts[-2:]))
def test_every_figure_of_a_recording_is_what_its_lines_say(folder):
    paths = traces_below(folder)
    done = subprocess.run([sys.executable, SCRIPT, *paths], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths) > 0
    compared = 0
    for path, line in zip(paths, lines, strict=True):
        there = measured(Trace.read(path))
        for name, value in json.loads(line).items():
            if name == "file":
                continue
            parts = value.items() if isinstance(value, dict) else [(None, value)]
            for part, wanted in parts:
                said = there[name] if part is None else there[name][part]
                assert said == wanted or math.isclose(said, wanted, rel_tol=1e-9), f"{path.name}: {name} {part}"
                compared += 1
    assert compared > 40 * len(paths)
