"""Files that once ended in a traceback or took gigabytes: each command says in a line what is wrong with them."""

from pathlib import Path

import av
import numpy as np
import pytest
import zstandard
from confined import run_command
from tracereel.film.ledger import ledger_path
from tracereel.trace.format.toml_file import MAX_BYTES, TomlFileError, read_toml

DATA = Path(__file__).parent / "data" / "malformed"
FEW, CUT, SLOTS, MISSING, REPEAT = (
    DATA / name
    for name in (
        "few-decode-steps.jsonl",
        "cut-before-any-step.jsonl",
        "more-slots-than-stated.jsonl",
        "a-step-is-missing.jsonl.zst",
        "repeat-of-none.jsonl.zst",
    )
)


@pytest.mark.long
@pytest.mark.parametrize("trace", [FEW, CUT, SLOTS, MISSING, REPEAT], ids=lambda path: path.name.split(".")[0])
def test_every_command_has_an_answer_for_a_malformed_trace(trace, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for command in (
        ["check", trace],
        ["inspect", "--json", trace],
        ["compare", trace, trace],
        ["diff", trace, trace],
        ["plot", trace, "--out", tmp_path],
        ["export", trace, "--out", tmp_path / "x.json"],
        *(["export", trace, "--format", kind, "--out", tmp_path / kind] for kind in ("csv", "parquet")),
        ["merge", trace, trace, "--out", tmp_path / "merged.jsonl"],
        ["play", trace, "--out", tmp_path / "page.html"],
    ):
        reads = command[0] not in ("check", "merge", "play")
        for options in ([], ["--allow-broken"]) if reads else ([],):
            outcome = run_command(*command, *options)
            assert not outcome.faults(), (outcome.command, outcome.err, outcome.faults())
            assert outcome.code != 2 or outcome.err.splitlines()[-1].startswith("tracereel: ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["diff", CUT, CUT], f"{CUT}: holds no output token"),
        (["plot", FEW, "--figure", "steps"], "steps: no run has 3 steps that decode the same number of sequences"),
        (["inspect", SLOTS], f"{SLOTS}, line 18: slot 2 of 2"),
    ],
)
def test_what_is_wrong_is_told(arguments, told, tmp_path, capsys, monkeypatch):
    from tracereel.cli.main import main

    monkeypatch.chdir(tmp_path)
    assert main(list(map(str, arguments))) == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_request_whose_admission_is_missing_has_no_time_in_the_queue(tmp_path, capsys):
    import csv

    from tracereel.cli.main import main

    assert main(["export", str(MISSING), "--format", "csv", "--allow-broken", "--out", str(tmp_path)]) == 0
    with (tmp_path / "requests.csv").open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    without = [row for row in rows if row["e2el_ms"] and not row["queue_ms"]]
    assert len(without) == 1
    assert all(float(row["queue_ms"]) <= float(row["ttft_ms"]) for row in rows if row["queue_ms"])


def test_a_command_that_fails_on_a_trace_that_is_not_valid_says_so(monkeypatch, capsys):
    from tracereel.cli.main import main

    def run(args: object) -> int:
        raise IndexError("what such a trace leads to")

    monkeypatch.setattr("tracereel.cli.inspect.run", run)
    assert main(["inspect", str(REPEAT)]) == 2
    err = capsys.readouterr().err
    assert "is not valid (line 1: lifecycle: repeat 2147483647 (from 0) of 0 repeats)" in err
    assert err.count("\n") == 1


@pytest.fixture
def film(tmp_path):
    """A film of one black frame, and a ledger with a format that would take gigabytes."""
    film = tmp_path / "film.mp4"
    with av.open(str(film), "w") as container:
        stream = container.add_stream("mpeg4", rate=1)
        stream.width = stream.height = 64
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))
        for packet in (*stream.encode(frame), *stream.encode()):
            container.mux(packet)
    ledger_path(film).write_bytes(zstandard.compress((DATA / "format-of-gigabytes.ledger.jsonl").read_bytes()))
    return film


def test_a_format_of_gigabytes_in_a_ledger_is_no_format(film):
    outcome = run_command("verify", film, "--trace", FEW)
    assert outcome.code == 1
    assert not outcome.faults()
    assert outcome.growth_bytes < 200 << 20


def test_what_verify_is_given_and_cannot_read_is_named(film, tmp_path, capsys):
    from tracereel.cli.main import main

    scene = tmp_path / "own.py"
    scene.write_bytes(b"x = 1 +")
    absent = str(tmp_path / "absent")
    for options, said in (
        (("--trace", str(FEW), absent), f"{absent}: there is no such file or folder"),
        (("--scene", str(scene)), f"{scene}: cannot be run (SyntaxError: "),
        (("--scene", absent), f"{absent}: No such file or directory"),
    ):
        assert main(["verify", str(film), *options]) == 2
        assert capsys.readouterr().err.startswith(f"tracereel: {said}")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"x = " + b"[" * 5000, "is nested too deep"),
        (b"x = " + b"9" * 5000, "Exceeds the limit"),
        (b"x = '\xff'", "is not UTF-8 (byte 5)"),
        (b"#" * (MAX_BYTES + 1), "is over 1,048,576 bytes"),
        (b"x = ", "Invalid value"),
        (b"x = 1", "Expected `str`, got `int`"),
        (None, "cannot be read (No such file or directory)"),
    ],
    ids=["nested", "digits", "bytes", "long", "torn", "type", "absent"],
)
def test_a_toml_file_is_refused_in_a_line(tmp_path, content, told):
    path = tmp_path / "a.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TomlFileError) as refused:
        read_toml(path, dict[str, str])
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_brand_that_is_nested_too_deep_is_named(capsys):
    from tracereel.cli.main import main

    brand = DATA / "nested.brand.toml"
    assert main(["render", "opening", "--brand", str(brand)]) == 2
    assert capsys.readouterr().err == f"tracereel: {brand}: is nested too deep\n"


@pytest.mark.parametrize("options", [["--dry-run"], ["--engine", "tracereel"]], ids=["suite", "engines"])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"name = " + b"[" * 5000 + b"]" * 5000, "is nested too deep"),
        ((DATA / "digits.toml").read_bytes(), "Exceeds the limit (4300 digits)"),
        (b"name = '\xff'", "is not UTF-8 (byte 8)"),
        (b"#" * (MAX_BYTES + 1), "is over 1,048,576 bytes"),
        (b"name = ", "Invalid value"),
        (b"name = 1", "Expected `str`, got `int`"),
    ],
    ids=["nested", "digits", "bytes", "long", "torn", "type"],
)
def test_a_suite_that_cannot_be_read_is_refused_in_a_line(tmp_path, capsys, content, told, options):
    from tracereel.cli.main import main

    suite = tmp_path / "own.toml"
    suite.write_bytes(content)
    assert main(["record", "--suite", str(suite), *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"tracereel: {suite}: ")
    assert told in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("unknown", [b'"\xff":1', b'"other":"\xff"'], ids=["name", "value"])
def test_a_field_of_another_schema_that_cannot_be_read_is_named_by_its_line(small_trace, tmp_path, capsys, unknown):
    from tracereel.cli.main import main

    head, *rest = small_trace.read_bytes().splitlines(keepends=True)
    path = tmp_path / "odd.jsonl"
    path.write_bytes(b"".join([head.replace(b"{", b"{" + unknown + b",", 1), *rest[:-1]]))
    assert main(["check", "--strict", str(path)]) == 1
    assert "line 1: strict: a field of another schema cannot be read" in capsys.readouterr().out
