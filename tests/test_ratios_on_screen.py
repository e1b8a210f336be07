"""A ratio on screen follows from the numbers next to it, or the screen says of how many pairs it is the median."""

from pathlib import Path

import pytest
from drawing import SIZE, draw
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import storyboard
from tracereel.trace.format.storage import TraceError

H100 = Path(__file__).parent / "data" / "h100"
SHOWS = {"cpu": Settings(device="cpu"), "cuda": Settings(device="cuda"), "h100": Settings(recordings=H100)}
SCENES = ("throughput_comparison", "engine_race", "cut_out_the_red", "closing")


@pytest.mark.slow
@pytest.mark.parametrize("recorded", SHOWS)
@pytest.mark.parametrize("name", SCENES)
def test_every_ratio_is_the_median_of_as_many_pairs_as_are_said(name, recorded):
    show = Show(SHOWS[recorded], SIZE)
    try:
        beats = storyboard(name, show)
    except TraceError:
        pytest.skip("not recorded there")
    beat = beats[0]
    _, drawn = draw(lambda canvas: beat.picture(canvas, beat.clock.film_s - 0.1), SIZE)
    phrases = [*drawn, *(phrase for _, _, phrase in beat.spoken()[-1:])]
    figures = [piece.source for phrase in phrases for piece in phrase.figures]
    pairs = {
        value.traces: [phrase.text for phrase in phrases if any(piece.source == value for piece in phrase.figures)]
        for value in figures
        if value.query == "throughput_ratio_pairs"
    }
    ratios = {value.traces: value.value for value in figures if value.query == "throughput_ratio_median"}
    rates = [value.value for value in figures if value.query == "output_throughput"]
    if not ratios:
        pytest.skip("nothing is compared there")
    for traces, ratio in ratios.items():
        baseline = len(set(traces)) < len(traces)  # a case against itself
        if baseline:
            assert ratio == 1.0
        elif traces in pairs:
            assert any("edian of" in text for text in pairs[traces]), traces
        else:
            assert any(abs(ratio - one / other) < 0.005 for one in rates for other in rates), (
                "it follows from the rates"
            )
