"""A model in words: its name, and the arithmetic that ran it."""

import re

from tracereel.trace.format.events import ModelInfo

_QUANTISED = re.compile(r"\.I?Q\d(_[0-9A-Z]+)*$", re.ASCII)
"""How the name of a GGUF file ends whose weights are quantised, such as `.Q4_1` or `.IQ4_NL`."""
_COMPUTED_IN = {"bf16", "fp16", "fp32", "bfloat16", "float16", "float32"}


def named_model(model: ModelInfo) -> str:
    """The model's name and its dtype: `SmolLM2.Q4_1, dequantised to bf16`, `Llama · bf16`.

    Quantised weights that were computed with in a float type were dequantised to it.
    """
    if model.weights == "real" and model.dtype in _COMPUTED_IN and _QUANTISED.search(model.name):
        return f"{model.name}, dequantised to {model.dtype}"
    return f"{model.name} · {model.dtype}"
