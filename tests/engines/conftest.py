"""Recordings of other engines, by those engines: `make test-engines` builds what they need and runs these tests.

TRACEREEL_VLLM_PYTHON and TRACEREEL_SGLANG_PYTHON name interpreters of environments that hold the engine and tracereel;
without them these tests are not there.
"""

import os
from pathlib import Path

import pytest

collect_ignore = [
    *([] if "TRACEREEL_VLLM_PYTHON" in os.environ else ["test_vllm.py", "test_kinds.py", "test_transformers.py"]),
    *([] if "TRACEREEL_SGLANG_PYTHON" in os.environ else ["test_sglang.py"]),
]


@pytest.fixture(scope="session")
def model_folder(model_file: Path) -> Path:
    """The default model, exported for engines that load folders."""
    from tracereel.engine.adapters.export import exported_model

    return exported_model(model_file)
