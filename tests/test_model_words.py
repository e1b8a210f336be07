"""How a model is named: quantised weights that were computed with in a float type were dequantised."""

import pytest
from tracereel.trace.analysis.model_words import named_model
from tracereel.trace.analysis.queries import Run
from tracereel.trace.analysis.summary import provenance
from tracereel.trace.format.events import ModelInfo
from tracereel.trace.state.columns import Trace


@pytest.mark.parametrize(
    ("name", "weights", "dtype", "said"),
    [
        ("SmolLM2.Q4_1", "real", "bf16", "SmolLM2.Q4_1, dequantised to bf16"),
        ("llama.Q4_K_M", "real", "fp32", "llama.Q4_K_M, dequantised to fp32"),
        ("llama.IQ4_NL", "real", "bf16", "llama.IQ4_NL, dequantised to bf16"),
        ("llama.Q4_1", "real", "Q4_1", "llama.Q4_1 · Q4_1"),
        ("llama.Q4_1", "random", "bf16", "llama.Q4_1 · bf16"),
        ("Llama-3.1-8B", "real", "bf16", "Llama-3.1-8B · bf16"),
    ],
)
def test_a_model_is_named_with_what_ran_it(name, weights, dtype, said):
    assert named_model(ModelInfo(name=name, weights=weights, dtype=dtype)) == said


def test_films_and_reports_name_it_alike(film_recordings):
    trace = Trace.read(film_recordings / "continuous-1.jsonl.zst")
    name = "SmolLM2-135M-Instruct.Q4_1, dequantised to bf16"
    assert Run(trace).measure("model").value == name
    assert provenance(trace)["model"] == f"{name}, real weights"
