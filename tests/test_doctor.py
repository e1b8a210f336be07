"""`tracereel doctor` ends on every machine, whatever is installed there, and says what to do."""

import json
import os
import subprocess
import sys

import pytest
from tracereel.cli import doctor
from tracereel.cli.errors import EXTRAS
from tracereel.cli.main import main


def findings(capsys) -> dict[str, dict]:
    capsys.readouterr()
    main(["doctor", "--json"])
    return {found["subject"]: found for found in map(json.loads, capsys.readouterr().out.splitlines())}


def test_it_names_what_is_here(capsys, model_file):
    found = findings(capsys)
    for subject in ("python", "tracereel", "memory", "disk, films", "device cpu", "model", "recordings", "encoder"):
        assert found[subject]["state"] == "ok", found[subject]
    assert "bf16" in found["device cpu"]["says"]
    assert "torch" in found["tracereel[engine]"]["says"]


def test_what_is_installed_is_read_once(monkeypatch):
    counted, there = [], {"msgspec": ["msgspec"], "numpy": ["numpy"]}
    monkeypatch.setattr(doctor.metadata, "packages_distributions", lambda: counted.append(1) or there)
    monkeypatch.setattr(doctor.metadata, "version", lambda distribution: "9.8")
    assert "msgspec 9.8" in next(doctor._packages()).says
    assert list(doctor._packages())
    assert len(counted) == 2


@pytest.mark.long
@pytest.mark.parametrize("lacking", [[*EXTRAS], ["engine"], ["scenes"], ["analysis"]])
def test_it_works_with_any_extras_and_says_how_to_get_the_others(lacking, tmp_path):
    modules = [module for extra in lacking for module in EXTRAS[extra]]
    code = (
        "import sys, importlib.util as util\n"
        f"gone = {modules!r}\n"
        "found = util.find_spec\n"
        "util.find_spec = lambda name, package=None: None if name.split('.')[0] in gone else found(name, package)\n"
        "for name in gone: sys.modules[name] = None\n"
        "from tracereel.cli.main import main\n"
        "sys.exit(main(['doctor', '--json']))\n"
    )
    env = {**os.environ, "TRACEREEL_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {each["subject"]: each for each in map(json.loads, done.stdout.splitlines())}
    for extra in EXTRAS:
        state = found[f"tracereel[{extra}]"]
        assert state["state"] == ("absent" if extra in lacking else "ok")
        assert state["remedy"] == (f"pip install 'tracereel[{extra}]'" if extra in lacking else None)


@pytest.mark.long
def test_each_problem_has_a_remedy(capsys, monkeypatch, tmp_path, model_file):
    from tracereel.engine import model_store

    broken = tmp_path / "model.gguf"
    broken.write_bytes(b"not it")
    monkeypatch.setattr(model_store, "model_path", lambda: broken)
    monkeypatch.setattr(doctor, "_free_memory", lambda: 2**28)
    monkeypatch.setenv("TRACEREEL_RECORDINGS", str(tmp_path / "nowhere"))
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    found = findings(capsys)
    for subject in ("model", "memory", "recordings"):
        assert found[subject]["state"] == "problem"
        assert found[subject]["remedy"]
    assert found["opener"]["state"] == "absent"
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "✗ memory: 0.2 GiB free" in out
    assert "    → delete" in out


@pytest.mark.long
def test_a_look_that_fails_is_a_finding(capsys, monkeypatch):
    def fail():
        raise ImportError("libsomething.so.6: cannot open shared object file\x1b[31m")

    monkeypatch.setattr(doctor, "_encoder", fail)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "libsomething.so.6" in out
    assert "\x1b[31m" not in out
