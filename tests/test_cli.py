"""The command line as a stranger meets it: help, output, and one clear line for everything that is wrong."""

import json
import os
import subprocess
import sys

import fakes
import pytest
from tracereel.cli.main import main
from tracereel.cli.openmp import SPIN_COUNT
from tracereel.cli.progress import ProgressReport
from tracereel.trace.format.events import RunInfo


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    try:
        code = main(arguments)
    except SystemExit as leaving:
        code = leaving.code
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    "command", ["record", "render", "check", "inspect", "compare", "verify", "clip", "pin", "fetch"]
)
def test_each_command_explains_itself(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"usage: tracereel {command}" in out
    assert len(out.splitlines()) > 5


def test_check_says_ok_and_names_violations(capsys, small_trace, tmp_path):
    code, out, _ = run(capsys, "check", str(small_trace))
    assert code == 0
    assert "ok (12 requests" in out

    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(small_trace.read_bytes().replace(b'"waiting":7', b'"waiting":8'))
    code, out, _ = run(capsys, "check", str(small_trace), str(broken))
    assert code == 1
    assert "queues: waiting is 8, the records before say 7" in out


def test_check_and_inspect_say_that_a_recording_was_cut(capsys, small_trace, tmp_path):
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(small_trace.read_bytes()[:-900])
    code, out, _ = run(capsys, "check", str(cut))
    assert code == 1
    assert "cut off after line" in out
    code, out, _ = run(capsys, "inspect", str(cut))
    assert code == 0
    assert "This recording is not whole: cut off after line" in out


def test_inspect_prints_definitions_and_json(capsys, small_trace):
    code, out, _ = run(capsys, "inspect", str(small_trace))
    assert code == 0
    assert "TTFT: scheduled arrival (`arrival_ns`) to first output token" in out
    assert "not the device's utilisation" in out
    code, out, _ = run(capsys, "inspect", "--json", str(small_trace))
    facts = json.loads(out)
    assert facts["requests"] == 12
    assert facts["cut"] is None
    assert facts["ttft_ms"]["n"] > 0
    code, out, _ = run(capsys, "inspect", "--slo", "ttft=1e6,e2el=1e6", "--markdown", str(small_trace))
    assert code == 0
    assert "| goodput, requests/s |" in out
    assert "ttft ≤ 1e+06 ms" in out


def test_a_trace_cannot_write_to_the_terminal(capsys, tmp_path):
    path = tmp_path / "evil.jsonl"
    fakes.record_small_run(path, run=RunInfo(suite="[bold]x[/bold]\x1b[31m", case="c", repeat=0, repeats=1))
    _, out, _ = run(capsys, "inspect", str(path))
    assert "\x1b" not in out
    assert "[bold]x[/bold]" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "nowhere.jsonl"), "tracereel: nowhere.jsonl: cannot be read (No such file or directory)"),
        (("inspect", "."), "tracereel: .: holds no trace"),
        (("inspect", "--slo", "speed=3", "."), "tracereel: slo: 'speed=3' in 'speed=3' is not one of ttft, tpot, e2el"),
        (
            ("record", "--suite", "nothing"),
            "tracereel: suite 'nothing': there is no such suite; the package has chunked, film",
        ),
        (("pin", "nowhere.jsonl"), "tracereel: nowhere.jsonl: cannot be read"),
        (("record", "--model", "nowhere.gguf"), "tracereel: nowhere.gguf: there is no such model; a GGUF file"),
        (("record", "--workload", "nowhere.csv"), "tracereel: nowhere.csv: cannot be read"),
        (("record", "--workload", "x.csv", "--policy", "magic"), "tracereel: policy: 'magic' is not one of continuous"),
        (("record", "--workload", "x.csv", "--slots", "0"), "tracereel: max_num_seqs: 0 is less than 1"),
        (("record", "--slots", "4"), "tracereel: max_num_seqs: is for --workload; a suite's file says it for a suite"),
        (("record", "--model", "random:gpt-9"), "tracereel: random:gpt-9: this model is not known; known: Llama"),
        (("record", "--device", "abacus"), "tracereel: device: 'abacus'"),
        (("record", "--dtype", "int3"), "tracereel: dtype: 'int3' is not one of"),
        (("record", "--device", "cpu:7"), "tracereel: device: 'cpu:7' is not supported"),
        (("record", "--workload", "x.csv", "--kv-blocks", "9" * 30), "tracereel: num_blocks: 9999"),
        (("record", "--workload", "x.csv", "--max-wait-ms", "86400001"), "is more than 86400000"),
        (("verify", "nothing.mp4"), "tracereel: nothing.mp4: cannot be read"),
        (("verify", "."), "tracereel: .: cannot be read (Is a directory)"),
        (("ledger", "."), "tracereel: .: is not a regular file"),
        (("clip", ".", "x.gif"), "tracereel: .: is not a regular file"),
        (("render", "--size", "17x9"), "tracereel render: argument --size: "),
        (("render", "nothing"), "'nothing' is not a scene"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(capsys, tmp_path, monkeypatch, model_file, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("record", "--model", ""), "tracereel: argument 3 is empty, after --model"),
        (("render", "latency", "--from", ""), "tracereel: argument 4 is empty, after --from"),
        (("", "x"), "tracereel: argument 1 is empty"),
    ],
)
def test_an_empty_argument_is_not_taken_for_the_default(capsys, arguments, said):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize("name", ["film.mp4", "page.html"])
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(capsys, tmp_path, name):
    pipe = tmp_path / name
    os.mkfifo(pipe)
    code, _, err = run(capsys, "verify", str(pipe))
    assert (code, err) == (2, f"tracereel: {pipe}: cannot be read (is not a regular file)\n")
    if name.endswith(".mp4"):
        assert run(capsys, "ledger", str(pipe))[0] == 2


def test_the_name_of_a_file_within_a_file_may_hold_nothing_odd(capsys, tmp_path):
    suite = tmp_path / "own.toml"
    suite.write_text('name = "x"\nprompts = "a\\u0000b"\n[[case]]\nname = "a"\npolicy = "static"\n')
    code, _, err = run(capsys, "record", "--suite", str(suite), "--model", "random:SmolLM2-135M")
    assert (code, err) == (2, "tracereel: the name of a file holds a null byte\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"id": "a", "prompt": ""}\n', "line 1: prompt: 1 to"),
        ('{"id": "a", "prompt": "x"}\n{"id": "a", "prompt": "y"}\n', "line 2: id: 'a' is on an earlier line"),
        ('{"id": "a", "prompt": "x", "colour": 1}\n', "line 1: Object contains unknown field `colour`"),
        ('{"id": "a", "prompt": "x", "output_tokens": 0}\n', "line 1: output_tokens: 0"),
        ("not json\n", "line 1: "),
        ("\n", "holds no prompt"),
    ],
)
def test_a_broken_prompt_file_is_named_by_line_and_field(capsys, tmp_path, content, message):
    path = tmp_path / "prompts.jsonl"
    path.write_text(content)
    code, _, err = run(capsys, "pin", str(path))
    assert code == 2
    assert message in err
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name = 'x'", "missing required field `prompts`"),
        ("nonsense", "own.toml: "),
        ('name = "x"\nprompts = "nowhere.jsonl"\n[[case]]\nname = "a"\npolicy = "static"\n', "nowhere.jsonl"),
        *(
            (f'name = "x"\nprompts = "p.jsonl"\n{top}\n[[case]]\nname = "a"\npolicy = "static"\n{own}\n', said)
            for top, own, said in (
                ("repeats = 0", "", "$.repeats"),
                ("", "repeats = -1", "$.case[0].repeats"),
                ("", f"repeats = {10**30}", "$.case[0].repeats"),
                ("copies = 1001", "", "$.copies"),
            )
        ),
        ('name = "../x"\nprompts = "p.jsonl"\n[[case]]\nname = "a"\npolicy = "static"\n', "$.name"),
        ('name = "x"\nprompts = "p.jsonl"\n[[case]]\nname = "a"\npolicy = "magic"\n', "policy: 'magic'"),
        ('name = "x"\nprompts = "p.jsonl"\n[engine]\nsteam = 3\n[[case]]\nname = "a"\npolicy = "static"\n', "steam"),
        (
            'name = "x"\nprompts = "p.jsonl"\n[[case]]\nname = "a"\npolicy = "static"\n'
            'arrivals = { kind = "poisson" }\n',
            "rate 0.0 is not above 0",
        ),
    ],
)
def test_a_broken_suite_is_one_line(capsys, tmp_path, content, message):
    (tmp_path / "p.jsonl").write_text('{"id": "a", "prompt": "x", "output_tokens": 3}\n')
    path = tmp_path / "own.toml"
    path.write_text(content)
    code, _, err = run(capsys, "record", "--suite", str(path))
    assert code == 2
    assert message in err
    assert "Traceback" not in err


OWN_SUITE = """
name = "own"
prompts = "p.jsonl"
repeats = 2
[engine]
max_num_seqs = 2
[[case]]
name = "static"
policy = "static"
[[case]]
name = "online"
policy = "continuous"
repeats = 1
arrivals = { kind = "fixed", rate = 50.0 }
"""


@pytest.mark.long
def test_a_suite_of_ones_own_is_pinned_and_recorded_and_replaced_whole(capsys, tmp_path, model_file):
    (tmp_path / "p.jsonl").write_text(
        '{"id": "a", "prompt": "What is the capital of France?"}\n{"id": "b", "prompt": "Name five fruits."}\n'
    )
    suite = tmp_path / "own.toml"
    suite.write_text(OWN_SUITE)
    code, _, err = run(capsys, "record", "--suite", str(suite), "--out", str(tmp_path / "out"))
    assert code == 2
    assert "tracereel pin" in err
    code, out, _ = run(capsys, "pin", str(tmp_path / "p.jsonl"), "--max-tokens", "12")
    assert code == 0
    assert "Paris" in out
    out_folder = tmp_path / "out"
    out_folder.mkdir()
    (out_folder / "old.jsonl").write_text("what was here before")
    code, out, err = run(capsys, "record", "--suite", str(suite), "--out", str(out_folder), "--dtype", "fp32")
    assert code == 0, err
    names = ["online-1.jsonl.zst", "static-1.jsonl.zst", "static-2.jsonl.zst"]
    assert sorted(path.name for path in out_folder.iterdir()) == ["old.jsonl", *names], "what is not ours stays"
    assert len(out.splitlines()) == 3
    (out_folder / "old.jsonl").unlink()
    assert "[" in err
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    code, out, _ = run(capsys, "check", str(out_folder))
    assert code == 0


def test_an_interrupted_recording_leaves_the_old_ones(capsys, tmp_path, model_file, monkeypatch):
    from tracereel.engine import suite_recording as module

    (tmp_path / "p.jsonl").write_text('{"id": "a", "prompt": "Hello", "output_tokens": 4}\n')
    (tmp_path / "own.toml").write_text(OWN_SUITE)
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "old.jsonl").write_text("old")
    calls = []

    def interrupt(path):
        calls.append(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "check", interrupt)
    code, _, err = run(capsys, "record", "--suite", str(tmp_path / "own.toml"), "--out", str(folder))
    assert code == 130
    assert calls
    assert "stopped" in err
    assert [path.name for path in folder.iterdir()] == ["old.jsonl"]


@pytest.mark.slow
def test_output_may_be_cut_short_by_its_reader(small_trace):
    command = f"{sys.executable} -m tracereel.cli.main inspect {small_trace} {small_trace} {small_trace} | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert done.stdout.strip().startswith("/")


@pytest.mark.slow
def test_without_an_extra_the_missing_package_is_named(tmp_path):
    blocker = "import sys; sys.modules['torch'] = None; sys.modules['manim'] = None\n"
    for arguments, name in ((["record"], "torch"), (["render"], "manim")):
        code = f"{blocker}from tracereel.cli.main import COMMANDS, main; sys.exit(main({arguments!r}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
        assert done.returncode == 2, done.stderr
        assert f"{name} is not installed" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_compare_shows_ratios_and_the_waterfall(capsys, film_recordings):
    static, continuous = (sorted(map(str, film_recordings.glob(f"{case}-*"))) for case in ("static", "continuous"))
    code, out, _ = run(capsys, "compare", *static, *continuous)
    assert code == 0
    for words in ("95 % interval", "refilling slots", "larger batches", "faster steps", "at most here", "5 pairs"):
        assert words in out
    code, out, _ = run(capsys, "compare", "--json", *static, *continuous)
    found = json.loads(out)
    fall = found["waterfall"]
    assert sum(part["saved_ms"] for part in fall["parts"]) == pytest.approx(fall["before_ms"] - fall["after_ms"])
    assert fall["parts"][0]["speedup"] < fall["ceiling"]
    assert found["ratios"]["output_throughput"]["n"] == len(found["waterfalls_of_pairs"]) == len(static)
    code, _, err = run(capsys, "compare", *static)
    assert code == 2
    assert "repeats of one case (static)" in err
    code, _, err = run(capsys, "compare", static[0])
    assert code == 2
    assert "the only run is of one case (static); name the runs of two" in err
    code, _, err = run(capsys, "compare", str(film_recordings))
    assert code == 2
    assert "differ in workload.digest" in err


@pytest.mark.slow
def test_diff_shows_metrics_schedule_and_requests(capsys, film_recordings):
    static, continuous = (str(film_recordings / f"{case}-1.jsonl.zst") for case in ("static", "continuous"))
    code, out, _ = run(capsys, "diff", static, continuous)
    assert code == 0
    for words in ("the schedules part at step", "only old:", "most helped", "too few for an interval"):
        assert words in out
    code, out, _ = run(capsys, "diff", "--json", str(film_recordings), str(film_recordings))
    found = [json.loads(line) for line in out.splitlines()]
    assert {each["old"]["label"] for each in found} == {"static", "continuous", "same-position", "online"}
    for each in found:
        assert each["parting"] is None
        assert each["ratios"]["output_throughput"]["ratio"] == 1


def test_a_workload_is_read_before_torch_is(tmp_path):
    (tmp_path / "w.jsonl").write_text("{}\n")
    code = (
        "import sys; from tracereel.cli.main import main; rc = main(sys.argv[1:]);"
        "sys.exit(3 if 'torch' in sys.modules else rc)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "record", "--workload", str(tmp_path / "w.jsonl")], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "line 1: Object missing required field `prompt`" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, (SPIN_COUNT, None)),
        ({"GOMP_SPINCOUNT": "7"}, ("7", None)),
        ({"OMP_WAIT_POLICY": "active"}, (None, "active")),
    ],
)
@pytest.mark.parametrize("command", ["record", "pin"])
def test_threads_give_the_cores_to_others_from_before_torch_is_imported(tmp_path, command, own, expected):
    (tmp_path / "w.jsonl").write_text('{"id": "a", "prompt": "hello", "output_tokens": 1}\n')
    code = """if True:
        import os, sys
        class AtTorch:
            def find_spec(self, name, path=None, target=None):
                if name == "torch":
                    print((os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY")), flush=True)
                    os._exit(5)
        sys.meta_path.insert(0, AtTorch())
        from tracereel.cli.main import main
        main(sys.argv[1:])
    """
    arguments = ["record", "--workload"] if command == "record" else ["pin"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, str(tmp_path / "w.jsonl")],
        capture_output=True,
        text=True,
        env={**environment, **own},
    )
    assert done.returncode == 5, done.stderr
    assert done.stdout == f"{expected}\n"


def test_progress_that_nobody_watches_is_a_line_for_each_stage(capsys):
    with ProgressReport() as report:
        for label, done, total in (("reading", 0, 4), ("reading", 2, 4), ("writing", 3, 4), ("closing", 0, 0)):
            report(label, done, total)
    assert capsys.readouterr().err.splitlines() == ["[  0 %] reading", "[ 75 %] writing", "[  0 %] closing"]
