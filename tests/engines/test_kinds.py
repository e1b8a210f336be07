"""vLLM with tiny random models, recorded: layers that keep different KV, LoRA, drafts, experts, KV from elsewhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from recorded import said, trace_of
from tracereel.trace.analysis.special import special_facts
from tracereel.trace.check.conformance import strictly

HERE = Path(__file__).parent
SAYS = {
    "sliding-window": ("kv_groups", "sliding_window"),
    "mamba": ("kv_groups", "mamba × 2, full × 2"),
    "lora": ("lora_requests", "clerk 2, poet 3"),
    "speculation": ("drafts", "accepted"),
    "moe": ("experts", "2 layers × 8"),
    "elsewhere": ("cached_tokens_by_source", "external"),
    "loading": ("requests_that_waited_for_kv", ""),
}
"""Of each kind what only it says."""


@pytest.fixture(scope="module")
def models(model_folder, tmp_path_factory):
    """The folder of the tiny models."""
    folder = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, HERE / "tiny_models.py", model_folder, folder], check=True)
    return folder


def run_by_vllm(script: str, *arguments: object, cwd: Path) -> None:
    """Run a script of this folder by vLLM's interpreter."""
    own = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    command = [os.environ["TRACEREEL_VLLM_PYTHON"], str(HERE / script), *map(str, arguments)]
    settings = os.environ | own | {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    done = subprocess.run(command, cwd=cwd, env=settings, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_kv_that_another_engine_prefilled_is_recorded_with_how_long_its_transfers_took(models, tmp_path):
    path, answers = tmp_path / "run.jsonl.zst", tmp_path / "answers.json"
    run_by_vllm("vllm_prefill_decode.py", models, path, answers, cwd=tmp_path)
    trace = trace_of(path)
    assert not list(strictly(path))
    decoded, by_itself = json.loads(answers.read_text())
    assert [tokens for tokens, _ in said(trace).values()] == decoded == by_itself
    facts = special_facts(path)
    assert facts["requests_that_waited_for_kv"]
    # A transfer a request, of whole blocks of three layers: K and V of two heads of 32, in bf16.
    assert facts["kv_transfers"].startswith("8, median ")
    blocks = sum(-(-arrival.prompt_tokens // 32) for arrival in trace.arrivals)
    assert facts["kv_transfers"].endswith(f"{blocks * 32 * 3 * 2 * 2 * 32 * 2:,} bytes in all")


@pytest.mark.parametrize("kind", SAYS)
def test_a_kind_is_recorded_and_says_what_it_is(kind, models, tmp_path):
    path, answers = tmp_path / "run.jsonl.zst", tmp_path / "answers.json"
    run_by_vllm("vllm_kinds.py", models, kind, path, answers, cwd=tmp_path)
    trace = trace_of(path)
    assert not list(strictly(path))
    assert trace.header.model.weights == "random"
    name, what = SAYS[kind]
    assert what in special_facts(path)[name]
    # What the last call was answered: kinds that ask twice are answered the same, with KV from elsewhere as without.
    told = list(said(trace).items())
    assert {name: list(answer) for name, answer in told[-8:]} == json.loads(answers.read_text())
    assert [answer for _, answer in told[:8]] == [answer for _, answer in told[-8:]]
