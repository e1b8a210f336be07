"""The house: which room may know which, and names that must not collide."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYTHON_FILES = {room: sorted((ROOT / room).rglob("*.py")) for room in ("engine", "trace", "film", "scenes", "cli")}


def imports_of(path: Path) -> set[str]:
    """Every module a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_trace_is_still_the_standard_librarys():
    import trace

    assert "tracereel" not in (trace.__file__ or "")
    assert hasattr(trace, "Trace")
    assert hasattr(trace, "CoverageResults")


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("trace", ("tracereel.engine", "tracereel.film", "tracereel.scenes", "tracereel.cli", "torch", "manim")),
        ("film", ("tracereel.engine", "tracereel.scenes", "tracereel.cli", "manim", "torch")),
        ("scenes", ("tracereel.engine", "tracereel.cli", "torch")),
        ("engine", ("tracereel.film", "tracereel.scenes", "tracereel.cli", "manim")),
    ],
)
def test_the_arrows_point_one_way(room, forbidden):
    assert PYTHON_FILES[room]
    for path in PYTHON_FILES[room]:
        for name in imports_of(path):
            assert not name.startswith(forbidden), f"{path} imports {name}"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("tracereel.engine.scheduler", "torch"),
        ("tracereel.engine.policies", "torch"),
        ("tracereel.engine.workload_files", "torch"),
        ("tracereel.trace", "torch"),
        ("tracereel.trace.analysis.queries", "manim"),
        ("tracereel.trace.analysis.compare", "scipy"),
        ("tracereel.trace.export.perfetto", "pyarrow"),
        ("tracereel.cli.main", "matplotlib"),
        ("tracereel.cli.main", "torch"),
        ("tracereel.cli.main", "manim"),
        ("tracereel.scenes.film_scene", "torch"),
    ],
)
def test_importing_does_not_bring_in(module, absent):
    code = f"import sys, {module}; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_no_scene_file_bears_a_standard_name():
    # Manim puts the scene file's folder first on the path.
    for path in (ROOT / "scenes").glob("*.py"):
        assert path.stem not in sys.stdlib_module_names, path


def test_one_scene_class_a_file():
    # With several Manim asks which one is meant.
    for path in (ROOT / "scenes").glob("*.py"):
        if path.stem == "film_scene":
            continue
        classes = [
            node.name
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.ClassDef) and any("Scene" in ast.unparse(base) for base in node.bases)
        ]
        assert len(classes) <= 1, path


def test_every_module_says_what_it_is():
    for paths in PYTHON_FILES.values():
        for path in paths:
            assert ast.get_docstring(ast.parse(path.read_text())), path
