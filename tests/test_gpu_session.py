"""The session on a GPU: what is whole is not run again, what overruns is stopped and keeps what it had."""

import json
import sys
import time
import zipfile
from pathlib import Path

import pytest
from tracereel.engine.weights.random_weights import MODEL_CONFIGS

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    # A dry run's tiny model is known for as long as its test: set here, so that it is removed again.
    monkeypatch.setitem(MODEL_CONFIGS, "tiny", None)


@pytest.fixture
def session():
    import gpu_session

    return gpu_session


@pytest.fixture
def parcel():
    import gpu_parcel

    return gpu_parcel


# The session.


def place_of(session, tmp_path):
    place = session.Place(tmp_path / "out")
    place.make()
    return place


def test_two_runs_with_limits(session):
    assert max(session.RUN_S["first"], session.RUN_S["second"]) <= 360
    assert session.RUN_S["first"] <= 300
    assert all(stage.limit_s <= 90 for stage in session.STAGES)
    wanted = [stage.name for stage in session.STAGES]
    assert len(set(wanted)) == len(wanted)
    assert wanted[:4] == ["film", "ratios", "mixed", "decode"], "the most wanted come first"


def test_every_stage_of_the_benchmark_has_its_turn(session):
    pytest.importorskip("torch")
    import gpu

    assert {stage.name for stage in session.STAGES} == {*gpu.stages(), "tests"}
    assert all((ROOT / test).is_file() for test in session.TESTS)


def test_how_a_stage_ended(session, tmp_path):
    def ended(code, limit_s=60):
        return session.run([sys.executable, "-c", code], tmp_path / "x.log", limit_s)

    assert ended("print(7)") == "done"
    assert (tmp_path / "x.log").read_text() == "7\n"
    assert ended("raise SystemExit(3)") == "failed with 3"


@pytest.mark.slow
def test_a_stage_that_overruns_is_stopped_with_all_that_it_started(session, tmp_path):
    code = (
        "import subprocess, sys, time\n"
        "child = 'import time, pathlib; time.sleep(2); pathlib.Path(sys.argv[1]).touch()'\n"
        "subprocess.Popen([sys.executable, '-c', 'import sys; ' + child, sys.argv[1]])\n"
        "print('begun', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "outlived")]
    assert session.run(command, tmp_path / "x.log", 1) == "stopped after 1 s"
    assert (tmp_path / "x.log").read_text() == "begun\n"
    time.sleep(2.5)
    assert not (tmp_path / "outlived").exists()


def commands(session, monkeypatch, codes):
    """Stages that are small programs; a `@` in them is the file of their result."""
    stages = [session.Stage(name, "first", needs=("vllm",) if name == "vllm" else ()) for name in codes]

    def command_of(stage, place, parcel, dry):
        return [sys.executable, "-c", codes[stage.name], str(place.results / f"{stage.name}.json")]

    monkeypatch.setattr(session, "command_of", command_of)
    return stages


RESULT = {"figures": {"x": [1.0]}, "whole": False, "device": "d", "driver": "1", "torch": "2", "dry": False}
WRITES = f"import sys; open(sys.argv[1], 'w').write({json.dumps(RESULT)!r})"


@pytest.mark.slow
def test_what_a_stopped_stage_had_is_kept_and_said(session, monkeypatch, tmp_path):
    monkeypatch.setattr(session, "SHORTEST_S", 0.0)
    codes = {"quick": WRITES, "slow": f"{WRITES}; import time; time.sleep(60)", "vllm": WRITES}
    stages, place = commands(session, monkeypatch, codes), place_of(session, tmp_path)
    assert session.session(stages, place, set(), 4) == 1
    assert sorted(file.name for file in place.done.iterdir()) == ["quick"]
    table = (place.out / "gpu.md").read_text()
    assert "| slow | stopped after" in table
    assert "| vllm | left out: vllm is not there" in table
    assert "Not whole: the stage was stopped" in table
    with zipfile.ZipFile(place.out / "carry" / "results.zip") as archive:
        assert {"results/slow.json", "logs/slow.log", "gpu.md", "done/quick"} <= set(archive.namelist())


def test_what_is_done_is_not_done_again_and_what_failed_is(session, monkeypatch, tmp_path):
    codes = {"a": WRITES, "b": "raise SystemExit('no')"}
    stages, place = commands(session, monkeypatch, codes), place_of(session, tmp_path)
    assert session.session(stages, place, set(), 60) == 1
    codes |= {"a": "raise SystemExit('again')", "b": WRITES}
    assert session.session(stages, place, set(), 60) == 0
    assert "| a | done before" in (place.out / "gpu.md").read_text()


def test_no_stage_begins_when_the_time_is_up(session, monkeypatch, tmp_path):
    stages, place = commands(session, monkeypatch, {"a": WRITES}), place_of(session, tmp_path)
    assert session.session(stages, place, set(), session.SHORTEST_S - 1) == 1
    assert not (place.results / "a.json").exists()
    assert "not begun: the time is up" in (place.out / "gpu.md").read_text()


def test_recordings_come_back_as_one_file_a_suite_with_those_of_a_stopped_run(session, tmp_path):
    place = place_of(session, tmp_path)
    names = (
        "film/gpu/a-1.jsonl.zst",
        "film/.gpu.new/b-1.jsonl.zst",
        "film/.gpu.new/.c.partial",
        "race/gpu/c-1.jsonl.zst",
    )
    for name in names:
        file = place.recordings / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    made = session.carry(place, place.out / "carry")
    assert sorted(file.name for file in made) == ["film.zip", "race.zip", "results.zip"]
    with zipfile.ZipFile(place.out / "carry" / "film.zip") as archive:
        assert sorted(archive.namelist()) == [f"recordings/{name}" for name in (names[1], names[0])]


# What was wanted.


def test_a_target_is_met_by_its_median_and_its_spread(session):
    from gpu_stages.report import Target

    least = Target("x", "s", "f", "ms", at_least=2.0, spread_at_most=10)
    assert least.met([2.0, 2.1])
    assert not least.met([1.9])
    assert not least.met([2.0, 2.5]), "the spread is more than 10 %"
    most = Target("x", "s", "f", "ms", at_most=2.0)
    assert most.met([1.0, 2.0, 9.0])
    assert not most.met([2.1])
    with pytest.raises(ValueError, match="exactly one"):
        Target("x", "s", "f", "ms")


def test_the_table_says_wanted_measured_and_met(session):
    from gpu_stages.report import Target, wanted_table

    targets = [
        Target("fast", "s", "f_us", "ms", at_most=2.0, scale=1e-3, before="9"),
        Target("slow", "s", "f_us", "ms", at_most=1.0, scale=1e-3),
        Target("absent", "s", "g", "ms", at_most=1.0),
    ]
    table = wanted_table(targets, {"s": {"figures": {"f_us": [1400.0, 1500.0, 1600.0]}}})
    assert table[2] == "| fast | ≤ 2 ms | 1.5 (1.4–1.6) ms, n = 3 | yes | 9 |"
    assert table[3].split(" | ")[3] == "**no**"
    assert table[4] == "| absent | ≤ 1 ms | not measured | – | – |"


def test_each_wanted_figure_is_one_that_its_stage_gives_at_full_size(session):
    pytest.importorskip("torch")
    from gpu_stages.report import read_targets
    from gpu_stages.setting import FULL
    from gpu_stages.steps import Shape

    rows, prefill = FULL.mixed
    mixed = Shape(rows, 256, prefill)
    shapes = {
        "mixed": [mixed],
        "decode": [Shape(*point) for point in FULL.decode_points],
        "large": [mixed, *(Shape(*point) for point in FULL.large_points)],
    }
    for target in read_targets():
        if target.stage in shapes and target.figure != "start_s":
            assert any(target.figure.startswith(f"{shape} ") for shape in shapes[target.stage]), target.figure
        if target.stage == "ratios":
            assert int(target.figure.split()[0]) in FULL.ratio_slots


# The dry run.


@pytest.mark.long
def test_the_whole_session_runs_on_a_cpu(session, tmp_path):
    """In processes of their own: Triton's interpreter is chosen when Triton is imported."""
    pytest.importorskip("triton")
    command = [sys.executable, str(BENCHMARKS / "gpu_session.py"), "--dry-run", "--out", str(tmp_path / "out")]
    assert session.run(command, tmp_path / "log", 900) == "done", (tmp_path / "log").read_text()[-3000:]
    done = {file.name for file in (tmp_path / "out" / "done").iterdir()}
    assert done == {stage.name for stage in session.STAGES}
    assert "the numbers mean nothing" in (tmp_path / "out" / "gpu.md").read_text()
    assert (tmp_path / "out" / "carry" / "film-engines.zip").is_file()
    results = {
        name: json.loads((tmp_path / "out" / "results" / f"{name}.json").read_text()) for name in ("film", "mixed")
    }
    assert all(result["whole"] and result["dry"] for result in results.values())
    assert {"continuous over static", "continuous, the device waits, %"} <= set(results["film"]["figures"])
    assert list((tmp_path / "out" / "recordings" / "film").rglob("continuous-1.jsonl.zst"))


def test_a_random_model_is_exported_as_it_is_computed(tmp_path):
    torch = pytest.importorskip("torch")
    from gpu_stages.random_export import export_random
    from gpu_stages.setting import dry_setting
    from tracereel.engine.loading import load_model
    from tracereel.engine.weights import open_weights

    dry_setting()
    loaded = load_model("random:tiny", "cpu", "bf16")
    export_random(loaded, tmp_path)
    back = open_weights(tmp_path)
    assert back.names() == open_weights("random:tiny").names()
    for name in back.names():
        one, two = (w.read(name, torch.device("cpu"), torch.bfloat16) for w in (back, open_weights("random:tiny")))
        assert torch.equal(one, two), name
    assert back.config.rope_frequencies == pytest.approx(loaded.model.config.rope_frequencies)


# The parcel.


def wheel(folder, name, version, requires=()):
    file = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{about}/METADATA", "\n".join(lines) + "\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return file


@pytest.fixture
def packed(parcel, tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    model = made / "model.bin"
    model.write_bytes(bytes(range(256)) * 20)
    requires = ["inner>=2", "torch==2.11.0", 'never; python_version < "3"', 'extra-only; extra == "x"']
    files = [("model", model), ("vllm", wheel(made, "vllm", "0.25.1", requires)), ("vllm", wheel(made, "inner", "2.0"))]
    parcel.pack(files, tmp_path / "parcel", 1000)
    return tmp_path / "parcel", model


@pytest.mark.slow
def test_no_part_is_too_large_and_files_are_put_together_as_they_were(parcel, packed, tmp_path):
    folder, model = packed
    parts = sorted(folder.glob("part-*"))
    assert len(parts) > 5
    for part in parts:
        assert sum(f.stat().st_size for f in part.iterdir() if f.name != parcel.MANIFEST) <= 1000
    place = tmp_path / "place"
    place.mkdir()
    parcel.unpack(folder, place, ("model", "vllm"))
    assert (place / "model.bin").read_bytes() == model.read_bytes()
    assert (place / "vllm" / "inner.py").is_file()


@pytest.mark.parametrize("harm", ["missing", "changed", "no list"])
def test_a_harmed_parcel_is_refused_in_one_line(harm, parcel, packed, tmp_path, capsys, monkeypatch):
    folder, _ = packed
    piece = next((folder / "part-2").glob("model.bin.*"))
    if harm == "missing":
        piece.unlink()
    elif harm == "changed":
        piece.write_bytes(b"\0" * piece.stat().st_size)
    else:
        for file in (folder / parcel.MANIFEST, folder / "part-1" / parcel.MANIFEST):
            file.write_text('{"entries": 1}')
    monkeypatch.setattr(sys, "argv", ["gpu_parcel.py", "unpack", str(folder), "--to", str(tmp_path / "place")])
    assert parcel.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert {"missing": "part-2 brings it", "changed": "carry it again", "no list": "is not a parcel's list"}[
        harm
    ] in line
    assert not (tmp_path / "place" / "model.bin").exists()


def test_a_requirement_that_is_nowhere_is_found(parcel, packed):
    folder, _ = packed
    machine = {"torch": "2.11.0"}
    assert parcel.check(folder, machine) == []
    with pytest.raises(parcel.ParcelError, match=r"torch==2\.11\.0, for vllm: is neither in the parcel nor on"):
        parcel.check(folder, {"torch": "2.12.0"})
    assert parcel.check(folder, {"torch": None}) == ["torch==2.11.0"], "its version is not known: the machine tells"


def test_the_machines_list_can_be_read(parcel, tmp_path):
    machine = parcel.machine_packages(BENCHMARKS / "gpu_machine.txt")
    assert machine["torch"] == "2.11.0"
    assert "vllm" not in machine
    (tmp_path / "list.txt").write_text("numpy==2\n\n!!\n")
    with pytest.raises(parcel.ParcelError, match=r"list\.txt:3: '!!' is neither a name"):
        parcel.machine_packages(tmp_path / "list.txt")
