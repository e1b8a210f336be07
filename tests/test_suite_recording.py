"""A suite's recording: kept across Ctrl-C and kill -9, one process at a time, put in place when all are whole."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tracereel.cli.main import main
from tracereel.engine.model_config import ModelConfig, rotary_frequencies
from tracereel.engine.weights.random_weights import MODEL_CONFIGS
from tracereel.trace.check.invariants import check
from tracereel.trace.format.locks import Lock
from tracereel.trace.recordings.index import read_header

SUITE = """
name = "own"
prompts = "p.jsonl"
repeats = 3
[[case]]
name = "continuous"
policy = "continuous"
[[case]]
name = "static"
policy = "static"
"""


TINY = ModelConfig("llama", 2, 48, 4, 2, 16, 80, 300, 4096, 1e-6, rotary_frequencies(16, 1e4), True)
IN_A_PROCESS = """
import sys, time
from tracereel.cli.main import main
from tracereel.engine import suite_recording
from tracereel.engine.model_config import ModelConfig, rotary_frequencies
from tracereel.engine.weights.random_weights import MODEL_CONFIGS
MODEL_CONFIGS["Tiny"] = ModelConfig(
    "llama", 2, 48, 4, 2, 16, 80, 300, 4096, 1e-6, rotary_frequencies(16, 1e4), True)
run = suite_recording.record_run
def slowly(*args, **options):
    time.sleep(0.3)
    return run(*args, **options)
suite_recording.record_run = slowly
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch):
    monkeypatch.setitem(MODEL_CONFIGS, "Tiny", TINY)


@pytest.fixture
def arguments(tmp_path) -> list[str]:
    (tmp_path / "p.jsonl").write_text('{"id": "a", "prompt": "Hello", "output_tokens": 3}\n')
    (tmp_path / "own.toml").write_text(SUITE)
    chosen = ["--suite", str(tmp_path / "own.toml"), "--out", str(tmp_path / "out")]
    return ["record", *chosen, "--model", "random:tiny", "--device", "cpu", "--dtype", "fp32"]


def whole(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.jsonl.zst") if check(path).ok)


def began(path: Path) -> int:
    return read_header(path).clock.wall_ns


def finish_and_compare(arguments: list[str], folder: Path, before: dict[str, int], capsys) -> None:
    """The same command again goes on: what was whole is in place as it was, and the rest was made."""
    assert main(arguments) == 0
    assert f"{len(before)} of 6 recordings are kept of an interrupted run" in capsys.readouterr().err
    out = folder / "out"
    assert len(whole(out)) == 6
    assert {name: began(out / name) for name in before} == before
    assert {path.name for path in folder.iterdir()} == {"p.jsonl", "own.toml", "out"}


def test_after_ctrl_c_whole_recordings_are_kept_and_stale_ones_made_again(arguments, tmp_path, monkeypatch, capsys):
    from tracereel.engine import suite_recording

    record_run, calls = suite_recording.record_run, []

    def interrupted(*args, **options):
        calls.append(args)
        if len(calls) == 4:  # a run to warm up, two recordings, and then Ctrl-C
            raise KeyboardInterrupt
        return record_run(*args, **options)

    monkeypatch.setattr(suite_recording, "record_run", interrupted)
    assert main(arguments) == 130
    monkeypatch.setattr(suite_recording, "record_run", record_run)
    unfinished = tmp_path / ".out.new"
    before = {path.name: began(path) for path in whole(unfinished)}
    assert len(before) == 2
    assert not (tmp_path / "out").exists()
    (unfinished / "static-3.jsonl.zst").write_bytes(b"torn")
    capsys.readouterr()
    finish_and_compare(arguments, tmp_path, before, capsys)


@pytest.mark.slow
def test_after_kill_9_whole_recordings_are_kept(arguments, tmp_path, capsys):
    unfinished = tmp_path / ".out.new"
    with subprocess.Popen([sys.executable, "-c", IN_A_PROCESS, *arguments], stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and len(whole(unfinished)) < 2:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    before = {path.name: began(path) for path in whole(unfinished)}
    assert 2 <= len(before) < 6
    finish_and_compare(arguments, tmp_path, before, capsys)


def test_a_second_process_is_refused_by_name(arguments, tmp_path, capsys):
    with Lock(tmp_path / "out"):
        assert main(arguments) == 2
    err = capsys.readouterr().err
    assert f"{tmp_path / 'out'}: process " in err
    assert "is writing it" in err
    assert not (tmp_path / "out").exists()
