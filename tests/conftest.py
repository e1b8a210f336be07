"""What many tests need: the model, a small recording, and where the package's own recordings are."""

import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import fakes
import pytest
from tracereel.trace.recordings import index
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS
from tracereel.trace.state.columns import Trace

T = TypeVar("T")

if not Path("/dev/nvidiactl").exists():
    # Triton's kernels run in its interpreter where there is no GPU; Triton looks at this when it is first imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Give each worker of pytest-xdist one thread: the workers share the cores. torch reads the variable once."""
    if getattr(config.option, "numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


SLOW_FIXTURES = {"model_file", "rendered", "families_made", "full_length"}
"""The real model, which `make check` does without; whole films; models made by transformers, which takes seconds to
import; and the film of all scenes, which reads the recordings of all suites."""
ENGINES = Path(__file__).parent / "engines"
TIERS = ("slow", "long", "exhaustive")
MOST_CPU_S = 6.0
"""What a test without one of these marks may take. It is marked from half a second on: the rest is for old machines,
busy machines, and for whatever a test is the first to import."""
NOTED_CPU_S = 1.0


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests as slow that need something slow."""
    for item in items:
        if SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())) or ENGINES in item.path.parents:
            item.add_marker(pytest.mark.slow)


def cpu_s() -> float:
    """The CPU time of this process and of the children that have ended: a busy machine hardly changes it."""
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test of `make check` that is not fast fails."""
    before = cpu_s()
    yield
    if not any(map(item.get_closest_marker, TIERS)):
        taken = cpu_s() - before
        item.user_properties.append(("cpu_s", taken))
        if taken > MOST_CPU_S:
            pytest.fail(f"this test took {taken:.1f} s of CPU: make it cheaper, or mark it as slow", pytrace=False)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Name the fast tests that are no longer fast."""
    taken = {
        report.nodeid: dict(report.user_properties)["cpu_s"]
        for report in terminalreporter.getreports("passed")
        if report.when == "call" and "cpu_s" in dict(report.user_properties)
    }
    slowest = sorted((cpu, test) for test, cpu in taken.items() if cpu > NOTED_CPU_S)[::-1]
    if slowest:
        terminalreporter.section(f"no longer fast: more than {NOTED_CPU_S:.0f} s of CPU without a mark")
    for cpu, test in slowest:
        terminalreporter.write_line(f"{cpu:5.1f} s {test}")


def once_a_file(read: Callable[..., T]) -> Callable[..., T]:
    """Read a file once for as long as it stays the same file, of one size and one time."""

    @lru_cache(maxsize=64)
    def remembered(path: Path, state: tuple[int, ...], options: tuple[tuple[str, Any], ...]) -> T:
        return read(path, **dict(options))

    def reading(path: Path, **options: Any) -> T:
        state = path.stat() if path.is_file() else None
        if state is None:
            return read(path, **options)
        return remembered(path, (state.st_ino, state.st_size, state.st_mtime_ns), tuple(options.items()))

    return reading


@pytest.fixture(scope="session", autouse=True)
def recordings_are_read_once() -> Iterator[None]:
    """Scenes are made hundreds of times from a few recordings: a process reads each of them once, for all its tests."""
    trace_of = once_a_file(Trace.read)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index.Recording, "read", lambda self, **options: trace_of(self.path, **options))
        patch.setattr(index, "read_header", once_a_file(index.read_header))
        yield


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
