"""The end card names the command that records these runs again, and the run plays on it once."""

import dataclasses
import shutil
import statistics
from pathlib import Path

import msgspec
import pytest
from drawing import SIZE, draw
from tracereel.engine.suite import suite_named
from tracereel.film.beats.end_card import end_card
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.trace.analysis.queries import Run
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS
from tracereel.trace.state.columns import Trace

H100 = Path(__file__).parent / "data" / "h100"


@pytest.mark.slow
@pytest.mark.parametrize(("recordings", "suite"), [("cpu", "film"), (H100, "film-gpu")])
def test_the_command_is_that_of_the_suite_that_was_recorded(recordings, suite):
    settings = Settings(device="cpu") if recordings == "cpu" else Settings(recordings=recordings)
    beat = end_card(Show(settings, SIZE))
    _, phrases = draw(lambda canvas: beat.picture(canvas, beat.clock.film_s - 0.1), SIZE)
    assert f"tracereel record --suite {suite}" in [phrase.text for phrase in phrases]
    header = beat.runs[0].trace.header
    assert suite_named(suite).engine["max_num_seqs"] == header.slots


@pytest.mark.slow
@pytest.mark.parametrize(("size", "said"), [((1920, 1080), True), ((1080, 1920), True), ((1080, 1080), False)])
def test_the_films_number_stands_on_it_once_more_where_there_is_room(size, said):
    show = Show(Settings(), size)
    beat = end_card(show)
    _, phrases = draw(lambda canvas: beat.picture(canvas, beat.clock.film_s - 0.1), size)
    runs = [show.runs(case) for case in ("continuous", "static")]
    ratio = statistics.median(
        after.metrics.output_throughput / before.metrics.output_throughput for after, before in zip(*runs, strict=True)
    )
    lettered = [phrase.text for phrase in phrases]
    assert any(text.startswith(f"{ratio:.2f}×") for text in lettered) is said
    assert any("median of 5 pairs" in text for text in lettered) is said


def test_without_pairs_the_end_card_has_no_number(tmp_path, film_recordings):
    for case in ("static-1", "continuous-1"):
        shutil.copy(film_recordings / f"{case}.jsonl.zst", tmp_path)
    beat = end_card(Show(Settings(recordings=tmp_path), SIZE))
    _, phrases = draw(lambda canvas: beat.picture(canvas, beat.clock.film_s - 0.1), SIZE)
    assert phrases
    assert not any("×" in phrase.text for phrase in phrases if "shown" not in phrase.text)


@pytest.mark.slow
def test_the_run_plays_once():
    beat = end_card(Show(Settings(), SIZE))
    timeline = beat.runs[0].timeline
    assert beat.clock.engine_ns(0.0) == timeline.begin_ns
    assert beat.clock.engine_ns(beat.clock.film_s) == timeline.end_ns
    one, other = (draw(lambda canvas, s=s: beat.picture(canvas, s), SIZE)[0] for s in (3.0, 3.4))
    assert (one != other).any(), "it moves"


def changed(trace, **fields):
    return Run(dataclasses.replace(trace, header=msgspec.structs.replace(trace.header, **fields)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recording", "command"),
    [
        ("film/cpu", "manim -pql scenes/continuous_batching.py"),
        ("vllm-kinds/cpu/lora.jsonl.zst", "tracereel render --recordings RUNS"),
        ("film-8b", "tracereel render --recordings RUNS"),
    ],
)
def test_the_command_renders_the_runs_that_were_played(recording, command):
    beat = end_card(Show(Settings(recordings=PACKAGE_RECORDINGS / recording), SIZE))
    _, phrases = draw(lambda canvas: beat.picture(canvas, beat.clock.film_s - 0.1), SIZE)
    assert command in [phrase.text for phrase in phrases]


def test_models_with_random_weights_are_named_and_other_engines_have_no_command(film_recordings):
    trace = Trace.read(film_recordings / "continuous-1.jsonl.zst")
    header = trace.header
    model = msgspec.structs.replace(header.model, name="Llama", weights="random")
    run = msgspec.structs.replace(header.run, suite="film-8b")
    command = changed(trace, model=model, run=run).measure("record_command").value
    assert command == "tracereel record --suite film-8b --model random:Llama"
    for fields in ({"run": None}, {"engine": msgspec.structs.replace(header.engine, name="vllm")}):
        with pytest.raises(ValueError, match="not recorded by a suite"):
            changed(trace, **fields).measure("record_command")
