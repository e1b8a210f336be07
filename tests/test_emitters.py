"""The generic door: traces by programs that share no code with tracereel, and the check that holds emitters to it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tracereel.cli.main import main
from tracereel.trace.check.conformance import strictly
from tracereel.trace.check.invariants import check
from tracereel.trace.state.columns import Trace

ROOT = Path(__file__).resolve().parents[1]
EMITTERS = Path(__file__).parent / "emitters"


def conforms(path: Path, capsys: pytest.CaptureFixture[str]) -> Trace:
    code = main(["check", "--strict", str(path)])
    assert code == 0, capsys.readouterr().out
    return Trace.read(path)


def test_the_reference_emitter_conforms(tmp_path, capsys):
    path = tmp_path / "run.jsonl"
    subprocess.run([sys.executable, "-I", str(ROOT / "docs" / "emitter.py"), str(path)], check=True)
    trace = conforms(path, capsys)
    assert trace.texts_of(1) == ("one ", "two ", "three")


def test_an_emitter_in_c_conforms(tmp_path, capsys):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    subprocess.run([compiler, "-O1", "-o", str(tmp_path / "emit"), str(EMITTERS / "emit.c")], check=True)
    subprocess.run([str(tmp_path / "emit"), str(tmp_path / "run.jsonl")], check=True)
    trace = conforms(tmp_path / "run.jsonl", capsys)
    assert "".join(trace.texts_of(0) or ()) == "Grüß dich"
    assert trace.endings[1][1] == "abort"


def test_an_emitter_in_javascript_conforms(tmp_path, capsys):
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node here")
    subprocess.run([node, str(EMITTERS / "emit.mjs"), str(tmp_path / "run.jsonl")], check=True)
    trace = conforms(tmp_path / "run.jsonl", capsys)
    assert trace.endings[0][1] == "stop"


def changed(path: Path, change) -> Path:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    change(records)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def emitted(tmp_path) -> Path:
    path = tmp_path / "run.jsonl"
    subprocess.run([sys.executable, "-I", str(ROOT / "docs" / "emitter.py"), str(path)], check=True)
    return path


def test_a_misspelt_field_is_named_where_it_stands(emitted, capsys):
    def misspell(records):
        records[3]["kv_usd"] = 3
        records[3]["admitted"][0]["cachd"] = 1
        records[0]["model"]["paramters"] = 7

    changed(emitted, misspell)
    # Readers pass over what they do not know: only the digest tells that the file was changed.
    assert [violation.rule for violation in check(emitted).violations] == ["digest"]
    found = [(violation.line, violation.message.split()[0]) for violation in strictly(emitted)]
    assert found == [(1, "model.paramters"), (4, "admitted.cachd"), (4, "kv_usd")]
    assert main(["check", str(emitted), "--strict", "--limit", "2"]) == 1
    assert "2 or more violation(s)" in capsys.readouterr().out


def test_a_request_that_never_ends_and_a_name_given_twice_are_named(emitted):
    def forget(records):
        records[2]["id"] = records[1]["id"]
        del records[-2]["finished"]

    messages = [str(violation) for violation in strictly(changed(emitted, forget))]
    assert len(messages) == 2
    assert "line 3: strict: the id 'question-0' stands on line 2 already" in messages
    assert "line 3: strict: request 1 never ends, though the recording does" in messages


def test_the_guide_shows_the_emitter_that_is_tested():
    guide = (ROOT / "docs" / "emit-your-own.md").read_text()
    code = (ROOT / "docs" / "emitter.py").read_text()
    assert code[code.index("class Emitter") : code.index("def main")].strip() in guide
