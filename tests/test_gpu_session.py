"""The session on a GPU: what is done is not done again, what takes too long is cut off and not taken for done."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def session(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_session

    return gpu_session


def stage(session, code, **changes):
    return session.Stage(**{"name": "x", "command": (sys.executable, "-c", code), "minutes": 1, **changes})


def test_what_is_done_is_not_done_again(session, tmp_path):
    made = session.stages(tmp_path, None, "some-gpu")
    assert len({stage.name for stage in made}) == len(made)
    first = session.left_to_do(made, tmp_path, has_model=True)
    assert first == made
    (tmp_path / made[0].name).touch()
    assert session.left_to_do(made, tmp_path, has_model=True) == made[1:]
    without = session.left_to_do(made, tmp_path, has_model=False)
    assert without
    assert not any(stage.needs_model for stage in without)


def test_every_stage_of_the_benchmark_has_its_turn(session, tmp_path):
    pytest.importorskip("torch")
    import gpu

    asked = [stage.command[-1] for stage in session.stages(tmp_path, None, "g") if "--only" in stage.command]
    assert sorted(asked) == sorted(gpu.STAGES)


def test_how_a_stage_ended(session, tmp_path):
    assert session.run(stage(session, "print(7)"), tmp_path, 60) == "done"
    assert (tmp_path / "x.log").read_text() == "7\n"
    assert session.run(stage(session, "raise SystemExit(3)"), tmp_path, 60) == "failed with 3"
    assert session.run(stage(session, "import time; time.sleep(60)"), tmp_path, 0.2) == "out of time"
