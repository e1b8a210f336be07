"""The recordings in the package: whole, valid, of the workload they name, and comparable with each other."""

import subprocess
import sys
from pathlib import Path

import pytest
from tracereel.engine.model_store import FILE_SHA256
from tracereel.engine.suite import Suite, suite_named
from tracereel.engine.workload import Workload
from tracereel.trace.analysis.comparable import require_comparable
from tracereel.trace.analysis.pairs import repeat_of, throughput_ratio
from tracereel.trace.analysis.queries import Run, measure
from tracereel.trace.check.invariants import check
from tracereel.trace.recordings.index import RecordingIndex


def film() -> Suite:
    return suite_named("film")


def test_every_recording_is_whole_and_valid(film_recordings):
    files = sorted(film_recordings.iterdir())
    assert files
    for path in files:
        report = check(path)
        assert report.ok, (path, report.violations[:3], report.cut)


def test_the_suite_is_there_as_it_says(film_recordings):
    index, suite = RecordingIndex(film_recordings), film()
    for case in suite.cases:
        recordings = index.case(case.name)
        assert sorted(recording.header.run.repeat for recording in recordings) == list(range(suite.repeats_of(case)))
        workload = Workload.of(suite.name, list(suite.prompts), case.arrivals)
        for recording in recordings:
            header = recording.header
            assert header.workload.digest == workload.digest
            assert header.policy == case.policy
            assert header.slots == suite.engine["max_num_seqs"]
            assert header.model.digest == FILE_SHA256
            assert header.model.weights == "real"
            assert header.device.kind == "cpu"
            assert header.device.name
            assert header.engine.source_digest


def test_prompts_are_enough_and_each_has_the_length_it_is_pinned_to(film_recordings):
    suite = film()
    assert len(suite.prompts) >= 32
    assert len({prompt.prompt for prompt in suite.prompts}) == len(suite.prompts)
    for recording in RecordingIndex(film_recordings).recordings:
        run = Run(recording.read())
        lengths = {arrival.id: len(run.trace.tokens_of(i)) for i, arrival in enumerate(run.trace.arrivals)}
        assert lengths == {prompt.id: prompt.output_tokens for prompt in suite.prompts}
        # Nobody was cut short: an answer ends with the model's end token, or at the stated cap.
        longest = max(lengths.values())
        for request, (_, reason, _) in run.trace.endings.items():
            assert reason == "stop" or len(run.trace.tokens_of(request)) == longest


def test_every_policy_decoded_the_same_tokens(film_recordings):
    runs = [Run(recording.read()) for recording in RecordingIndex(film_recordings).recordings]
    same = measure("requests_with_same_tokens", runs).value
    assert same == len(film().prompts)


def test_ratios_can_be_made_from_interleaved_pairs(film_recordings):
    index = RecordingIndex(film_recordings)
    traces = {case: [r.read() for r in index.case(case)] for case in ("continuous", "static", "same-position")}
    require_comparable([trace for case in traces.values() for trace in case])
    for case in ("continuous", "same-position"):
        assert throughput_ratio(traces[case], traces["static"]).n == film().repeats
    # Interleaved: between two repeats of a case lies a run of each other case.
    starts = sorted(
        (trace.header.clock.wall_ns, case, repeat_of(trace)) for case, some in traces.items() for trace in some
    )
    repeats = [repeat for _, _, repeat in starts]
    assert repeats == sorted(repeats)


@pytest.mark.slow
def test_the_readmes_numbers_are_the_recordings():
    root = Path(__file__).resolve().parents[1]
    code = [sys.executable, str(root / "benchmarks" / "film_table.py")]
    table = subprocess.run(code, capture_output=True, text=True, check=True).stdout.strip()
    readme = (root / "README.md").read_text()
    assert table in readme, f"README.md does not show what was recorded; it should say:\n{table}"


@pytest.mark.slow
def test_the_traces_of_a_served_run_say_what_its_client_saw():
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, str(root / "benchmarks" / "served_table.py")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() in (root / "docs" / "engines.md").read_text(), "run `make docs`"
    rows = [line.strip("|").split("|") for line in done.stdout.replace(",", "").splitlines()[2:]]
    seen = {name.strip(): (float(client), float(traces)) for name, client, traces in rows}
    client, traces = seen.pop("output tokens")
    assert client == traces
    client, traces = seen.pop("output tokens/s")
    assert 0.95 * traces < client < traces
    # What the client measures is longer by the way to the engine core and back, which is some 10 ms here.
    assert len(seen) == 8
    assert all(-0.1 <= client - traces < 25 for client, traces in seen.values())
