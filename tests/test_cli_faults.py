"""What goes wrong around a command: each ends in one printable line and the documented exit code, never a traceback."""

import ast
import contextlib
import io
import json
import os
import subprocess
import sys
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest
import tracereel.cli.main as cli
from tracereel.cli.errors import explained
from tracereel.cli.main import main

CLI = Path(cli.__file__).parent
HOSTILE = "\x1b[2J\x9b31m\u202eevil\u2066\x07"


def command(*arguments: str, stdout: object = subprocess.PIPE, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from tracereel.cli.main import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        stdout=stdout,  # type: ignore[call-overload]
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, **environment},
        timeout=60,
    )


@pytest.fixture(scope="module")
def hostile(small_trace, tmp_path_factory) -> Path:
    """A valid trace whose names and ids hold what no terminal should get."""
    lines = [json.loads(line) for line in small_trace.read_text().splitlines()]
    lines[0]["model"]["name"] = lines[0]["workload"]["name"] = HOSTILE
    lines[0]["policy"] = lines[0]["device"]["name"] = f"$\\frac{{{HOSTILE}$"
    lines[0]["config"] = {HOSTILE: HOSTILE}
    for line in lines:
        if line["event"] == "arrival":
            line["id"] = f"{HOSTILE}{line['id']}"
    path = tmp_path_factory.mktemp("hostile") / f"{HOSTILE.replace('/', '')}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["inspect"],
        ["inspect", "--json"],
        ["inspect", "--markdown"],
        ["export", "--out", "{}/x.json"],
        ["export", "--format", "csv", "--out", "{}/csv"],
        ["plot", "--figure", "tokens", "--out", "{}/plots"],
        ["merge", "--out", "{}/merged.jsonl"],
        ["no-such-command"],
        ["check", "no such trace\x1b[2J"],
    ],
    ids=" ".join,
)
def test_control_characters_never_reach_a_terminal(hostile, tmp_path, capsys, recwarn, arguments):
    filled = [argument.format(tmp_path) for argument in arguments]
    with contextlib.suppress(SystemExit):
        main([*filled, str(hostile), *([str(hostile)] if arguments[0] == "merge" else [])])
    out, err = capsys.readouterr()
    said = [out, err, *(str(warning.message) for warning in recwarn)]
    said += [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.svg")]
    assert any(text.strip() for text in said)
    for text in said:
        assert all(char.isprintable() or char == "\n" for char in text), ascii(text)


def test_json_for_a_terminal_says_the_same_to_who_reads_it(hostile, capsys):
    assert main(["inspect", "--json", str(hostile)]) == 0
    assert json.loads(capsys.readouterr().out)["model"].startswith(HOSTILE)


def test_all_that_is_printed_goes_through_one_place():
    """`say`, `say_json` and `warn` print what is printable: nothing else of the commands prints."""
    for path in CLI.glob("*.py"):
        if path.name == "terminal.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path.name}, line {node.lineno}: print"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", [["check"], ["inspect"], ["inspect", "--json"]], ids=" ".join)
def test_an_output_that_is_full_is_one_line(small_trace, arguments):
    with open("/dev/full", "w") as full:
        done = command(*arguments, str(small_trace), stdout=full)
    assert (done.returncode, done.stderr) == (2, "tracereel: the output: No space left on device\n")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["check"], ["inspect"], ["inspect", "--json"]], ids=" ".join)
def test_a_reader_that_left_is_no_fault(small_trace, arguments):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        done = command(*arguments, str(small_trace), stdout=pipe)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_encoding_that_lacks_a_character_gets_its_escape(small_trace, tmp_path, monkeypatch):
    path = tmp_path / "größe-測.jsonl"
    path.write_bytes(small_trace.read_bytes())
    for encoding, arguments in (
        ("cp1252", ["inspect", str(path)]),
        ("cp1252", ["check", str(path)]),
        ("ascii", ["inspect", str(path)]),
    ):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
        assert main(arguments) in (0, 1)
        sys.stdout.flush()
        assert b"\\u" in raw.getvalue()


def test_a_wrong_option_is_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        main(["plot", "--figure", "nonsense\x1b[2J", "x"])
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("tracereel plot: argument --figure: invalid choice")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file or directory", "a\nb"), "a b: No such file or directory"),
        (PermissionError(13, "Permission denied", b"raw"), "raw: Permission denied"),
        (MemoryError(), "not enough memory"),
        (BrokenExecutor(), "ended from outside"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
            "not enough",
        ),
        (ModuleNotFoundError("no", name="matplotlib.pyplot"), "pip install 'tracereel[analysis]'"),
    ],
)
def test_what_a_user_can_mend_is_told_in_a_line(error, line):
    said = explained(error)
    assert said is not None
    assert line in said
    assert "\n" not in said


def test_a_librarys_refusal_is_told_as_the_librarys():
    import numpy as np

    with pytest.raises(np.ma.MaskError) as raised:
        np.ma.masked_array([1], mask=[1, 0, 1])
    assert str(explained(raised.value)).startswith("numpy refuses this: ")


def test_a_fault_of_our_own_is_a_report_to_send_and_no_traceback(monkeypatch, capsys, small_trace, tmp_path):
    def run(args: object) -> int:
        raise KeyError("what nobody foresaw")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("tracereel.cli.check.run", run)
    assert main(["check", str(small_trace)]) == 70
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    (report,) = tmp_path.glob("tracereel-fault-*.txt")
    assert str(report) in err
    assert "Traceback" in report.read_text()
    assert "what nobody foresaw" in report.read_text()


@pytest.mark.slow
def test_sigterm_ends_a_command_in_order(small_trace, tmp_path):
    code = (
        "import os, signal, sys, tracereel.cli.check as check\n"
        "from tracereel.cli.main import main\n"
        "from tracereel.trace.format.atomic import replacing\n"
        "from pathlib import Path\n"
        "def run(args):\n"
        f"    with replacing(Path({str(tmp_path / 'x')!r})):\n"
        "        os.kill(os.getpid(), signal.SIGTERM); signal.pause()\n"
        "check.run = run\n"
        "sys.exit(main(['check', 'x']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (143, "tracereel: ended by SIGTERM\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", ["ledger {film}", "verify {film}", "clip {film} out.gif"])
def test_a_film_that_is_not_there_is_named_and_not_its_ledger(arguments, tmp_path, capsys):
    film = tmp_path / "none.mp4"
    assert main(arguments.format(film=film).split()) == 2
    assert capsys.readouterr().err == f"tracereel: {film}: cannot be read (No such file or directory)\n"


def test_a_film_whose_ledger_is_not_there_is_named(tmp_path, capsys):
    film = tmp_path / "film.mp4"
    film.write_bytes(b"x")
    assert main(["ledger", str(film)]) == 2
    assert f"{film}.ledger.jsonl.zst: cannot be read" in capsys.readouterr().err
