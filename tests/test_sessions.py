"""Recording engines side by side: what can go wrong before one of them runs, and our own engine as one of them."""

import sys

import pytest
from tracereel.cli.main import main
from tracereel.engine.adapters.session import Session, SessionRequest
from tracereel.engine.race import SessionError, require_engine, run_session
from tracereel.engine.workload import Arrivals, Prompt, Workload
from tracereel.trace.check.invariants import check
from tracereel.trace.format.events import RunInfo
from tracereel.trace.state.columns import Trace


@pytest.mark.slow
def test_an_engine_that_is_not_there_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("TRACEREEL_VLLM_PYTHON", str(tmp_path / "nothing"))
    with pytest.raises(SessionError, match="cannot be run"):
        require_engine("vllm")
    monkeypatch.delenv("TRACEREEL_VLLM_PYTHON")
    monkeypatch.setenv("TRACEREEL_VLLM_PYTHON", str(without_packages(tmp_path)))
    assert main(["record", "--engine", "vllm", "--suite", "film", "--out", str(tmp_path / "out")]) == 2
    assert "TRACEREEL_VLLM_PYTHON may name an interpreter that has it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def without_packages(place):
    """An interpreter that finds nothing but the standard library."""
    script = place / "bare-python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    script.chmod(0o755)
    return script


PROMPTS = [Prompt(f"q{i}", "Hello", 3 + i) for i in range(3)]
WORKLOAD = Workload.of("small", PROMPTS, Arrivals())
# Our own engine encodes the text itself, so that these ids are nobody's.
REQUESTS = [SessionRequest(prompt.id, prompt.prompt, [1, 2, 3], prompt.output_tokens) for prompt in PROMPTS]


def session(model_file, path) -> Session:
    return Session(
        model=str(model_file),
        path=str(path),
        requests=REQUESTS,
        slots=2,
        token_budget=64,
        kv_blocks=16,
        block_size=16,
        max_model_len=128,
        workload=WORKLOAD.info(),
        run=RunInfo(suite="small-engines", case="tracereel", repeat=0, repeats=1),
        variant="continuous",
    )


@pytest.mark.long
def test_our_own_engine_runs_a_session_in_a_process_of_its_own(model_file, tmp_path):
    path = tmp_path / "run.jsonl"
    run_session(session(model_file, path), "tracereel")
    assert check(path).ok
    trace = Trace.read(path)
    assert [len(trace.tokens_of(i)) for i in range(3)] == [3, 4, 5]
    assert trace.header.workload == WORKLOAD.info(), "or it could not be compared with the others"
    assert trace.header.run is not None
    assert trace.header.run.case == "tracereel"


@pytest.mark.slow
def test_a_run_that_fails_says_why_in_one_line(tmp_path):
    with pytest.raises(SessionError, match=r"nothing\.gguf") as caught:
        run_session(session(tmp_path / "nothing.gguf", tmp_path / "run.jsonl"), "tracereel")
    assert "\n" not in str(caught.value)
