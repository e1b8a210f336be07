"""The house: which room may import which, how large a module may be, and names that must not collide."""

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("engine", "trace", "film", "scenes", "player", "cli")
PYTHON_FILES = {room: sorted((ROOT / room).rglob("*.py")) for room in ROOMS}
EVERY_FILE = [path for paths in PYTHON_FILES.values() for path in paths]
LONGEST_MODULE, LONGEST_FUNCTION = 400, 60
BODIES = ("body", "orelse", "finalbody")


def module_of(path: Path) -> str:
    """The module that a file is: tracereel.film.show."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("tracereel", *(parts[:-1] if parts[-1] == "__init__" else parts)))


MODULES = {module_of(path): path for path in EVERY_FILE}


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """A file's syntax tree, which several tests walk."""
    return ast.parse(path.read_text())


@functools.cache
def statements_of(path: Path) -> list[ast.stmt]:
    """A file's statements, those within others too: a tenth of what `ast.walk` visits, which goes into expressions."""
    found: list[ast.stmt] = []
    bodies = [tree_of(path).body]
    while bodies:
        for statement in bodies.pop():
            found.append(statement)
            inner = [statement, *getattr(statement, "handlers", ()), *getattr(statement, "cases", ())]
            bodies += [getattr(each, name) for each in inner for name in BODIES if hasattr(each, name)]
    return found


@functools.cache
def imports_of(path: Path) -> set[str]:
    """Every module a file imports, wherever in it: at its top, in a function, or for types alone."""
    found: set[str] = set()
    for node in statements_of(path):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import module` imports the module.
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(names & MODULES.keys())
            if names - MODULES.keys():
                found.add(node.module)
    return found


def test_statements_within_others_are_found(tmp_path):
    inner = "a", "b", "c", "d", "e", "f", "g", "h"
    code = """
if x:
    import a
else:
    import b
try:
    import c
except ImportError:
    import d
finally:
    import e
async def function():
    with x:
        while x:
            import f
        else:
            import g
match x:
    case 1:
        import h
"""
    path = tmp_path / "file.py"
    path.write_text(code)
    assert sorted(imports_of(path)) == sorted(inner)
    assert len(statements_of(path)) == sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse(code)))


def test_trace_is_still_the_standard_librarys():
    import trace

    assert "tracereel" not in (trace.__file__ or "")
    assert hasattr(trace, "Trace")
    assert hasattr(trace, "CoverageResults")


ABOVE = ("tracereel.scenes", "tracereel.player", "tracereel.cli")


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("trace", ("tracereel.engine", "tracereel.film", *ABOVE, "torch", "manim")),
        ("film", ("tracereel.engine", *ABOVE, "manim", "torch")),
        ("scenes", ("tracereel.engine", "tracereel.player", "tracereel.cli", "torch")),
        ("player", ("tracereel.engine", "tracereel.scenes", "tracereel.cli", "torch", "manim")),
        ("engine", ("tracereel.film", *ABOVE, "manim")),
    ],
)
def test_the_arrows_point_one_way(room, forbidden):
    assert PYTHON_FILES[room]
    for path in PYTHON_FILES[room]:
        for name in imports_of(path):
            assert not name.startswith(forbidden), f"{path} imports {name}"


def test_no_module_imports_itself_by_a_detour():
    graph = {name: imports_of(path) & MODULES.keys() - {name} for name, path in MODULES.items()}
    assert sum(map(len, graph.values())) > 500
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_only_scenes_knows_manim_and_only_in_one_module():
    knows = [path for path in EVERY_FILE if any(name.split(".")[0] == "manim" for name in imports_of(path))]
    assert {str(path.relative_to(ROOT)) for path in knows} == {"scenes/film_scene.py"}


def is_kernel(node):
    """Is this a Triton program? It is launched as one, with an argument for each array and size."""
    return any("triton.jit" in ast.unparse(decorator) for decorator in node.decorator_list)


def test_modules_and_functions_are_short():
    for path in EVERY_FILE:
        lines = len(path.read_text().splitlines())
        assert lines <= LONGEST_MODULE, f"{path} has {lines} lines"
        for node in statements_of(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_kernel(node):
                lines = (node.end_lineno or 0) - node.lineno + 1
                assert lines <= LONGEST_FUNCTION, f"{path}: {node.name} has {lines} lines"


@pytest.mark.long
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
        ("tracereel.cli.main", "cairo"),
        ("tracereel.film.verification", "manim"),
        ("tracereel.film.captions", "manim"),
        ("tracereel.film.storyboards", "manim"),
        ("tracereel.film.storyboards", "torch"),
        ("tracereel.film.frames", "manim"),
        ("tracereel.scenes.film_scene", "torch"),
    ],
)
def test_importing_does_not_bring_in(module, absent):
    code = f"import sys, {module}; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def scene_files() -> list[Path]:
    return [path for path in PYTHON_FILES["scenes"] if path.stem not in ("__init__", "film_scene")]


def test_no_scene_file_bears_a_standard_name():
    # Manim puts the scene file's folder first on the path.
    for path in PYTHON_FILES["scenes"]:
        assert path.stem not in sys.stdlib_module_names, path


def test_a_scene_file_is_a_name_and_no_more():
    from tracereel.film.registry import class_name
    from tracereel.film.storyboards import names

    assert {path.stem for path in scene_files()} == set(names())
    for path in scene_files():
        text = path.read_text()
        assert len(text.splitlines()) <= 15, path
        # One class: with several Manim asks which one is meant.
        (made,) = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef))
        assert made.name == class_name(path.stem)
        assert f'name = "{path.stem}"' in text


def test_every_module_says_what_it_is():
    for path in EVERY_FILE:
        assert ast.get_docstring(tree_of(path)), path


TAKES_FROM_A_TEST = re.compile(r"^[ ]*(?:from[ ]+test_\w+|import[ ][^#\n]*\btest_\w+)", re.MULTILINE)


def test_tests_take_helpers_from_support_alone():
    for line in ("from test_house import x", "    import test_house", "import os, test_house as house"):
        assert TAKES_FROM_A_TEST.search(f"import sys\n{line}\n"), "a pattern that finds nothing proves nothing"
    tests = sorted((ROOT / "tests").rglob("*.py"))
    assert len(tests) > 100
    for path in tests:
        taken = TAKES_FROM_A_TEST.search(path.read_text())
        assert not taken, f"{path}: {taken[0].strip()}: what several tests share belongs to tests/support"
