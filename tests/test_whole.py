"""Whether a trace holds what was recorded is asked once, where it is read, for every command."""

import json

import fakes
import pytest
from tracereel.cli.main import main
from tracereel.film.ledger import read_ledger
from tracereel.trace.format.events import RunInfo
from tracereel.trace.state.columns import BrokenTraceError, Trace


def records_of(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def write(path, records, *, seal=True):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    if seal:
        fakes.seal(path)
    return path


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "run.jsonl"
    fakes.record_small_run(path, run=RunInfo(suite="test", case="continuous", repeat=0, repeats=1))
    return path


def halved(records):
    for record in records:
        for name in ("start_ns", "end_ns", "scheduled_ns"):
            if name in record:
                record[name] //= 2


def fewer_steps(records):
    steps = [i for i, record in enumerate(records) if record["event"] == "step"]
    del records[steps[3] : steps[3] + 1]
    records[-1] |= {"dropped": 1, "steps": len(steps) - 1}


def said_requests(count):
    def change(records):
        records[0]["workload"]["requests"] = count

    return change


BROKEN = {
    "times halved": (halved, False, "the digest differs"),
    "a step dropped": (fewer_steps, True, "1 of 43 steps are missing"),
    "fewer requests": (said_requests(24), True, "it holds 12 requests, its workload has 24"),
    "more requests": (said_requests(11), True, "it holds 12 requests, its workload has 11"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_recording_is_refused_by_everybody_and_taken_with_the_word(what, run, tmp_path, capsys):
    change, seal, reason = BROKEN[what]
    records = records_of(run)
    steps = sum(record["event"] == "step" for record in records)
    reason = reason.replace("43", str(steps))
    change(records)
    path = str(write(tmp_path / "broken.jsonl", records, seal=seal))
    with pytest.raises(BrokenTraceError, match=reason.replace("(", r"\(")):
        Trace.read(path)
    commands = (
        ["inspect", path],
        ["compare", path, str(run)],
        ["diff", path, str(run)],
        ["plot", path, "--out", str(tmp_path / "plots"), "--figure", "tokens"],
        ["export", path, "--out", str(tmp_path / "run.json")],
        ["export", path, "--format", "parquet", "--out", str(tmp_path / "tables")],
    )
    for command in commands:
        assert main(command) == 2, command
        err = capsys.readouterr().err
        assert reason in err
        assert "--allow-broken" in err
        assert len(err.splitlines()) == 1
    assert not list(tmp_path.glob("*.json"))
    for command in commands[3:]:
        assert main([*command, "--allow-broken"]) == 0
    assert reason in (tmp_path / "run.json").read_text()
    assert reason.split(" (")[0] in " ".join((tmp_path / "plots" / "tokens.svg").read_text().split())
    import pyarrow.parquet

    metadata = pyarrow.parquet.read_metadata(tmp_path / "tables" / "steps.parquet").metadata
    assert reason in metadata[b"tracereel.caveats"].decode()
    capsys.readouterr()
    assert main(["inspect", path, "--allow-broken"]) == 0
    out = capsys.readouterr().out
    assert "This recording is broken: " in out
    assert reason in out
    assert main(["inspect", path, "--allow-broken", "--json"]) == 0
    assert reason in json.loads(capsys.readouterr().out)["broken"]
    assert main(["diff", path, str(run), "--allow-broken"]) == 0
    assert f"{path}: This recording is broken" in capsys.readouterr().out


def test_what_was_cut_off_is_read_and_every_output_says_so(run, tmp_path, capsys):
    records = records_of(run)
    said_requests(12)(records)
    arrivals = sum(record["event"] == "arrival" for record in records)
    path = str(write(tmp_path / "cut.jsonl", records[: arrivals + 20], seal=False))
    trace = Trace.read(path)
    assert trace.broken is None
    assert "cut off after line" in trace.cut
    other = str(write(tmp_path / "whole.jsonl", records))
    for command in (["inspect", path], ["diff", path, other]):
        assert main(command) == 0, capsys.readouterr().err
        assert "This recording is not whole: cut off after line" in capsys.readouterr().out
    assert main(["diff", path, other, "--json"]) == 0
    assert "not whole" in json.loads(capsys.readouterr().out)["old"]["caveats"][path][0]
    assert main(["plot", path, "--out", str(tmp_path / "plots"), "--figure", "tokens"]) == 0
    assert "This recording is not whole" in " ".join((tmp_path / "plots" / "tokens.svg").read_text().split())


FILM = ("--size", "480x270", "--fps", "2")


def filmed(path, folder, *options):
    """The claims of a film of a recording, and how many frames it has."""
    assert main(["render", "pipeline_flow", "--recordings", path, *FILM, "--media", str(folder), *options]) == 0
    (film,) = folder.rglob("PipelineFlow.mp4")
    assert main(["verify", str(film), "--trace", path]) == 0
    ledger, _ = read_ledger(film)
    return ledger.claims, ledger.frames


@pytest.mark.slow
def test_a_film_of_a_broken_recording_is_refused_and_says_so_in_every_frame_where_it_is_wanted(run, tmp_path, capsys):
    records = records_of(run)
    fewer_steps(records)
    path = str(write(tmp_path / "broken.jsonl", records))
    with pytest.raises(SystemExit) as ended:
        main(["render", "pipeline_flow", "--recordings", path, *FILM, "--media", str(tmp_path)])
    assert ended.value.code == 2
    assert "steps are missing; --allow-broken" in capsys.readouterr().err
    claims, frames = filmed(path, tmp_path / "broken", "--allow-broken")
    said = [claim for claim in claims if claim.text.startswith("Broken recording: ")]
    assert [(claim.first, claim.last) for claim in said] == [(0, frames - 1)]
    claims, _ = filmed(str(run), tmp_path / "whole", "--allow-broken")
    assert not [claim for claim in claims if "recording" in claim.text]


@pytest.mark.slow
def test_a_film_of_a_recording_that_was_cut_off_says_so_in_every_frame(run, tmp_path):
    records = records_of(run)
    said_requests(12)(records)
    arrivals = sum(record["event"] == "arrival" for record in records)
    path = str(write(tmp_path / "cut.jsonl", records[: arrivals + 20], seal=False))
    claims, frames = filmed(path, tmp_path / "cut")
    said = [claim for claim in claims if claim.text.startswith("Recording cut off before its end: ")]
    assert [(claim.first, claim.last) for claim in said] == [(0, frames - 1)]
