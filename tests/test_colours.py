"""Requests' colours: neighbours in a slot are distinguished, and a request looks the same in every run."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tracereel.film.colours import RequestColours
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS
from tracereel.trace.state.columns import Trace

SUITES = sorted(
    folder
    for folder in PACKAGE_RECORDINGS.iterdir()
    if folder.is_dir() and folder.name not in ("replicas", "vllm-kinds", "llama-cpp", "sglang", "__pycache__")
)


def same_colour_in_a_row(trace: Trace, colours: RequestColours) -> int:
    residencies = trace.residencies
    order = np.lexsort((residencies.from_ns, residencies.slot)).tolist()
    return sum(
        residencies.slot[a] == residencies.slot[b]
        and residencies.request[a] != residencies.request[b]
        and colours[int(residencies.request[a])] == colours[int(residencies.request[b])]
        for a, b in pairwise(order)
    )


@pytest.mark.slow
@pytest.mark.parametrize("suite", [folder.name for folder in SUITES])
def test_neighbours_in_a_slot_never_share_a_colour(suite):
    show = Show(Settings(), (854, 480))
    index = show.recordings_of(suite)
    colours = show.colours(suite)
    for case in {recording.case for recording in index.recordings}:
        assert same_colour_in_a_row(show.run(case, suite).trace, colours) == 0, case


@pytest.mark.slow
def test_a_request_keeps_its_colour_in_every_case():
    show = Show(Settings(), (854, 480))
    one, other = show.run("static"), show.run("continuous")
    colours = show.colours()
    assert show.colours() is colours
    assert len(colours.indices) == len(one.trace.arrivals) == len(other.trace.arrivals)


def test_handovers_of_a_static_batch_change_colour(film_recordings: Path):
    # A request's number modulo the number of colours gave 40 of 40 handovers one colour.
    trace = Trace.read(film_recordings / "static-1.jsonl.zst")
    by_number = RequestColours([trace])
    by_number.indices = tuple(i % 8 for i in range(len(trace.arrivals)))
    assert same_colour_in_a_row(trace, by_number) == 40
    assert same_colour_in_a_row(trace, RequestColours([trace])) == 0
