"""Recordings that were altered, cut off or made under other conditions: what each command says of them."""

from pathlib import Path

import pytest
from tracereel.cli.main import main

DATA = Path(__file__).parent / "data" / "misleading"
BROKEN = {
    "continuous-times-halved-digest-broken": ("digest: the records are not", "the digest differs"),
    "static-120-steps-dropped": ("loss: step 420 follows where step 300 is next", "120 of 892 steps are missing"),
    "static-24-of-48": ("counts: the header's workload has 48", "it holds 24 requests, its workload has 48"),
}
CUT = {"continuous-cut-300": 300, "static-cut": 400}
THREADS, TWO_AT_ONCE = (DATA / f"{name}.jsonl.zst" for name in ("continuous-96-threads", "two-records-one-file"))


def path_of(name):
    return str(DATA / f"{name}.jsonl.zst")


def test_each_file_has_its_test():
    there = {file.name.removesuffix(".jsonl.zst") for file in DATA.iterdir()}
    assert there == {*BROKEN, *CUT, "continuous-96-threads", "two-records-one-file"}


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_an_altered_recording_is_refused_and_with_the_word_every_output_says_so(name, film_recordings, capsys):
    found, reason = BROKEN[name]
    path, other = path_of(name), str(film_recordings / f"{name.split('-')[0]}-1.jsonl.zst")
    assert main(["check", path]) == 1
    assert found in capsys.readouterr().out
    for command in (["inspect", path], ["compare", path, other], ["plot", path], ["diff", path, other]):
        assert main(command) == 2
        assert reason in capsys.readouterr().err
    assert main(["inspect", "--allow-broken", path]) == 0
    assert "This recording is broken: " in capsys.readouterr().out


@pytest.mark.parametrize("name", CUT)
def test_a_recording_that_was_cut_off_is_read_and_said_to_be(name, capsys):
    assert main(["inspect", path_of(name)]) == 0
    assert f"This recording is not whole: cut off after line {CUT[name]}" in capsys.readouterr().out


def test_another_number_of_threads_is_not_compared(film_recordings, capsys):
    assert main(["check", str(THREADS)]) == 0
    assert main(["compare", str(THREADS), str(film_recordings / "static-1.jsonl.zst")]) == 2
    assert "differ in device.threads: 96 and 2" in capsys.readouterr().err


def test_what_two_recorders_wrote_into_one_file_is_no_recording(capsys):
    assert main(["check", str(TWO_AT_ONCE)]) == 1
    assert "line 157: format" in capsys.readouterr().out
    for command in (["inspect"], ["inspect", "--allow-broken"]):
        assert main([*command, str(TWO_AT_ONCE)]) == 2
        assert f"{TWO_AT_ONCE}, line 157: " in capsys.readouterr().err
