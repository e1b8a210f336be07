"""The tiers of tests hold themselves: what `make check` runs is fast, and what is read once is what is there."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from lazily import Lazily
from tracereel.trace.recordings.index import RecordingIndex


@pytest.fixture
def conftest(request):
    return request.config.pluginmanager.get_plugin(str(Path(__file__).with_name("conftest.py")))


def ran(conftest, marks, taken):
    """A test with such marks that takes so much CPU time, run through the hook: its properties."""
    item = SimpleNamespace(get_closest_marker=lambda name: name if name in marks else None, user_properties=[])
    times = iter([0.0, taken])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conftest, "cpu_s", lambda: next(times))
        running = conftest.pytest_runtest_call(item)
        next(running)
        with pytest.raises(StopIteration):
            next(running)
    return dict(item.user_properties)


def test_a_test_without_a_mark_that_takes_long_fails(conftest):
    most = conftest.MOST_CPU_S
    assert ran(conftest, (), most - 0.1) == {"cpu_s": most - 0.1}
    with pytest.raises(pytest.fail.Exception, match="make it cheaper, or mark it as slow"):
        ran(conftest, (), most + 0.1)
    for mark in conftest.TIERS:
        assert ran(conftest, (mark,), most + 0.1) == {}


def test_tests_that_are_no_longer_fast_are_named(conftest):
    def report(name, taken):
        return SimpleNamespace(nodeid=name, when="call", user_properties=[("cpu_s", taken)])

    lines = []
    reporter = SimpleNamespace(
        getreports=lambda _: [report("a", 0.9), report("b", 1.1), report("c", 3.0)],
        section=lines.append,
        write_line=lines.append,
    )
    conftest.pytest_terminal_summary(reporter)
    assert lines[1:] == ["  3.0 s c", "  1.1 s b"]


def test_what_is_imported_lazily_is_imported_by_no_question_of_pytests():
    lazy = Lazily("no_such_module")
    for asked in ("__pytest_wrapped__", "_pytestfixturefunction", "__test__", "__code__"):
        assert not hasattr(lazy, asked)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        lazy.name  # noqa: B018


def test_a_recording_is_read_again_where_the_file_is_another(tmp_path, small_trace):
    path = tmp_path / "run.jsonl"
    path.write_bytes(small_trace.read_bytes())
    (recording,) = RecordingIndex(tmp_path).recordings
    whole = recording.read()
    assert recording.read() is whole
    path.write_bytes(b"".join(small_trace.read_bytes().splitlines(keepends=True)[:10]))
    assert len(recording.read().steps) < len(whole.steps)
