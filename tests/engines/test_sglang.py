"""SGLang itself, recorded on a CPU with a tiny random GPT-2: every token as its engine gave it back."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from recorded import render, said, trace_of
from tracereel.trace.check.conformance import strictly

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def model(model_folder, tmp_path_factory):
    """A tiny GPT-2."""
    folder = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, HERE / "tiny_models.py", model_folder, folder], check=True)
    return folder / "tiny-gpt2"


@pytest.mark.parametrize("overlap", [True, False])
def test_what_sglang_answers_is_what_the_trace_says(model, tmp_path, overlap):
    answers, recordings = tmp_path / "answers.json", tmp_path / "run"
    command = [os.environ["TRACEREEL_SGLANG_PYTHON"], HERE / "sglang_offline.py", model, answers]
    command += [json.dumps({"disable_overlap_schedule": not overlap})]
    own = {
        "TRACEREEL_SGLANG": str(recordings),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "SGLANG_TEST_RETRACT": "1",
    }
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (path,) = recordings.glob("*.jsonl.zst")
    trace = trace_of(path)
    assert not list(strictly(path))
    assert {name: tokens for name, (tokens, _) in said(trace).items()} == {
        name: tokens for name, (tokens, _) in json.loads(answers.read_text()).items()
    }
    assert trace.header.engine.name == "SGLang"
    assert trace.header.model.weights == "random"
    # All that a scheduler can do to a request was done here.
    assert trace.residencies.preempted.any()
    assert trace.residencies.cached.any()
    assert any(arrival.prompt_tokens > 64 for arrival in trace.arrivals)
    assert {reason for _, reason, _ in trace.endings.values()} == {"length"}
    render(path, tmp_path)
