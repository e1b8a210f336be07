"""What many tests need: the model, a small recording, and where the package's own recordings are."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fakes
import pytest
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS

if not Path("/dev/nvidiactl").exists():
    # Triton's kernels run in its interpreter where there is no GPU; Triton looks at this when it is first imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Give each worker of pytest-xdist one thread: the workers share the cores. torch reads the variable once."""
    if getattr(config.option, "numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


SLOW_FIXTURES = {"model_file", "rendered"}
"""The real model, which `make check` does without, and whole films."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests as slow that need something slow."""
    for item in items:
        if SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def model_file() -> Path:
    """The real model's file; without it the tests that need it fail and say how to get it."""
    from tracereel.engine.model_store import require_model

    return require_model()


@pytest.fixture(scope="session")
def film_recordings() -> Path:
    """The recordings that the film plays on a CPU."""
    return PACKAGE_RECORDINGS / "film" / "cpu"


@pytest.fixture(scope="session")
def small_trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording by the real engine of a fake model: a dozen requests, with preemptions and a cancellation."""
    path = tmp_path_factory.mktemp("traces") / "small.jsonl"
    fakes.record_small_run(path)
    return path


@pytest.fixture(scope="module")
def right_products() -> Iterator[None]:
    """Triton's interpreter multiplies bf16 as if it were whole numbers: it is shown what they are."""
    import torch

    if find_spec("triton") is None or torch.cuda.is_available():
        yield
        return
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def widened(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    theirs = InterpreterBuilder.create_dot
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            InterpreterBuilder, "create_dot", lambda self, a, b, *rest: theirs(self, widened(a), widened(b), *rest)
        )
        yield
