"""The wheel: everything that a film needs is in it, and nothing that is not the package's."""

import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import tracereel.trace
from tracereel.cli.main import main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    # By way of a source archive: a build folder of an earlier day would leave its own files in the wheel.
    command = [sys.executable, "-m", "build", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(next(out.glob("*.tar.gz"))) as source:
        assert not [name for name in source.getnames() if "/tests" in name], "some tests, without what they need"
    return zipfile.ZipFile(next(out.glob("*.whl")))


@pytest.mark.slow
def test_the_wheel_holds_what_a_film_needs(wheel):
    names = set(wheel.namelist())
    for room in ("engine", "trace", "film", "player", "scenes", "cli"):
        for path in (ROOT / room).rglob("*.py"):
            assert f"tracereel/{path.relative_to(ROOT)}" in names, path
    for path in [
        *(ROOT / "trace" / "recordings").rglob("*.zst"),
        *(ROOT / "film" / "text").glob("*.toml"),
        *(ROOT / "player" / "web").iterdir(),
        *(ROOT / "engine" / "suites").iterdir(),
        *((ROOT / "trace" / name) for name in ("SCHEMA.md", "schema.json", "example.jsonl")),
        ROOT / "engine" / "layer_ops" / "cpu.c",
        ROOT / "trace" / "py.typed",
    ]:
        assert f"tracereel/{path.relative_to(ROOT)}" in names, path
    assert "tracereel/__init__.py" not in names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "media"))]


def test_the_version_is_the_distributions(capsys):
    assert tracereel.trace.__version__ == metadata.version("tracereel")
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"tracereel {tracereel.trace.__version__}\n"


@pytest.mark.slow
def test_fonts_come_with_the_scenes_extra(wheel):
    metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith("METADATA"))).decode()
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    scenes = [line for line in required if 'extra == "scenes"' in line]
    assert any("fontpkg-inter" in line for line in scenes)
    assert not any("torch" in line for line in scenes)
    plain = [line for line in required if "extra" not in line]
    assert not any(name in line for line in plain for name in ("torch", "manim"))
