"""The recordings of other engines in the package: every tool and every scene works on them."""

import json
from pathlib import Path

import pytest
from tracereel.cli.main import main
from tracereel.trace.check.invariants import check
from tracereel.trace.recordings.index import ENVIRONMENT, PACKAGE_RECORDINGS, traces_below
from tracereel.trace.state.columns import Trace

ENGINES = PACKAGE_RECORDINGS / "film-engines"
CASES = ("vllm", "transformers", "transformers-static")


def first(case: str) -> Path:
    return ENGINES / "cpu" / f"{case}-1.jsonl.zst"


@pytest.mark.slow
def test_all_are_whole_valid_and_of_the_same_requests():
    lengths = set()
    for path in traces_below(ENGINES):
        assert check(path).ok, path
        trace = Trace.read(path)
        lengths.add((trace.header.workload.digest, tuple(len(trace.tokens_of(i)) for i in range(len(trace.arrivals)))))
    assert len(lengths) == 1


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_the_tools_take_them(case, tmp_path, capsys):
    path = str(first(case))
    assert main(["check", "--strict", path]) == 0
    assert main(["inspect", "--json", path]) == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert shown["output_tokens"] > 0
    assert main(["diff", path, str(ENGINES / "cpu" / f"{case}-2.jsonl.zst")]) == 0
    assert main(["compare", path, str(first("tracereel"))]) == 0
    assert main(["plot", path, "--out", str(tmp_path / "plots")]) == 0
    for form in ("perfetto", "csv"):
        assert main(["export", path, "--format", form, "--out", str(tmp_path / form)]) == 0
    assert any((tmp_path / "plots").iterdir())


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_every_scene_that_one_run_can_tell_is_rendered(case, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, str(first(case)))  # as --recordings does; gone when the test is
    options = ["--size", "256x144", "--fps", "1", "--media", str(tmp_path)]
    assert main(["render", "--all", *options]) == 0
    told = capsys.readouterr()
    films = {Path(line).parts[-3] for line in told.out.splitlines()}
    assert {"pipeline_flow", "decode_batching", "throughput_comparison", "latency", "where_it_hurts"} <= films
    assert {"continuous_batching", "full_length", "engine_race"} <= films
    # How far it is never passes the whole.
    assert all(int(line[1:4]) <= 100 for line in told.err.splitlines() if line.startswith("["))


KINDS = PACKAGE_RECORDINGS / "vllm-kinds" / "cpu"


def test_a_recording_of_a_hybrid_model_keeps_to_the_schema_and_says_what_it_is(capsys):
    path = KINDS / "sliding-window.jsonl.zst"
    assert main(["check", "--strict", str(path)]) == 0
    assert main(["inspect", "--json", str(path)]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["engine"] == "vLLM 0.33.0"
    assert facts["model"].endswith("random weights")
    assert facts["kv_groups"].count("sliding_window") == 5
    assert int(facts["kv_blocks_freed_early"]) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("lora", "lora_requests"),
        ("speculation", "drafts"),
        ("sliding-window", "kv_groups"),
        ("mamba", "kv_groups"),
        ("loading", "requests_that_waited_for_kv"),
        ("moe", "experts"),
        ("prefill-decode", "kv_transfers"),
    ],
)
def test_a_recording_of_vllms_kinds_says_what_only_it_has_and_can_be_filmed(kind, says, capsys, tmp_path):
    path = KINDS / f"{kind}.jsonl.zst"
    assert main(["check", "--strict", str(path)]) == 0
    assert main(["inspect", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])[says]
    film = ["render", "pipeline_flow", "--recordings", str(path), "--media", str(tmp_path), "-q", "l", "--fps", "2"]
    assert main(film) == 0


LLAMA_CPP = PACKAGE_RECORDINGS / "llama-cpp" / "cpu" / "film-12.jsonl.zst"


def test_a_recording_of_llama_cpps_server_keeps_to_the_schema():
    path = LLAMA_CPP
    assert main(["check", "--strict", str(path)]) == 0
    trace = Trace.read(path)
    assert trace.header.engine.name == "llama.cpp"
    assert trace.header.device.kind == "unknown"
    assert {len(trace.tokens_of(i)) for i in range(len(trace.arrivals))} <= set(range(1, 65))
    assert (trace.steps.kv_used < 0).all()


@pytest.mark.slow
def test_a_recording_of_llama_cpps_server_can_be_filmed(tmp_path):
    played = ["--recordings", str(LLAMA_CPP), "--media", str(tmp_path)]
    assert main(["render", "pipeline_flow", *played, "-q", "l", "--fps", "2"]) == 0


def same_answers_twice(path: Path) -> bool:
    """Were the last eight of sixteen requests, with KV from elsewhere, answered as the first, which were without?"""
    trace = Trace.read(path)
    answers = [trace.steps.token_id[trace.tokens_of(number)].tolist() for number in range(16)]
    return answers[:8] == answers[8:]


def test_kv_that_vllm_took_from_elsewhere_is_told_by_its_source(capsys):
    """A run of vLLM 0.33 with its ExampleConnector: the same prompts twice, the second time partly from files.

    Made by tests/engines/vllm_kinds.py, its kind `elsewhere`.
    """
    path = Path(__file__).parent / "data" / "vllm-elsewhere.jsonl.zst"
    assert main(["check", "--strict", str(path)]) == 0
    assert main(["inspect", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["cached_tokens_by_source"] == "external 448"
    # The example connector keeps a prompt's first chunk alone: a chunked prompt would be answered wrongly.
    assert same_answers_twice(path)


def test_requests_that_wait_for_kv_hold_blocks_and_answer_as_without():
    """A run of vLLM 0.33 with the example connector made to load aside: the same prompts twice."""
    path = KINDS / "loading.jsonl.zst"
    trace = Trace.read(path)
    assert len(trace.loading.step) > 0
    assert (trace.loading.blocks > 0).all()
    assert same_answers_twice(path)


@pytest.mark.slow
def test_a_recording_of_sglang_keeps_to_the_schema_and_can_be_filmed(tmp_path):
    path = PACKAGE_RECORDINGS / "sglang" / "cpu" / "tiny-gpt2.jsonl.zst"
    assert main(["check", "--strict", str(path)]) == 0
    trace = Trace.read(path)
    assert (trace.header.engine.name, trace.header.engine.version) == ("SGLang", "0.5.23")
    assert trace.header.model.weights == "random"
    assert [len(trace.tokens_of(i)) for i in range(12)] == [1 + 13 * i % 60 for i in range(12)]
    assert trace.residencies.preempted.any()
    assert (trace.residencies.cached > 0).any()
    film = ["render", "pipeline_flow", "--recordings", str(path), "--media", str(tmp_path), "-q", "l", "--fps", "2"]
    assert main(film) == 0
