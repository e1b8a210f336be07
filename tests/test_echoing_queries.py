"""Which queries give back what they are asked with: a figure of one says nothing of a trace; each is known by name."""

import inspect

import pytest
from tracereel.trace.analysis.queries import QUERIES, Run

ECHOES = {"slots_shown", "block_number", "step_rows"}
"""What a picture shows of a run, which the film that is made again is compared with: frames and ledger."""
PROBE = 3


@pytest.fixture(scope="module")
def run(film_recordings):
    return Run.read(film_recordings / "continuous-1.jsonl.zst")


def test_no_other_query_gives_back_its_argument(run):
    echoing = set()
    for name, function in QUERIES.items():
        named = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
        if len(named) != 1:
            continue
        answers = []
        for probe in (PROBE, PROBE + 1, PROBE + 2):
            try:
                answers.append(function(run, **{named[0]: probe})[0])
            except Exception:  # a query of something else than a number
                break
        if answers == [PROBE, PROBE + 1, PROBE + 2]:
            echoing.add(name)
    assert echoing <= ECHOES
    assert "slots_shown" in echoing
