"""`tracereel slides`: clips of the film's own frames, their reverses, loops, notes; as manim-slides reads them."""

import json
import os
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tracereel.cli.main import main
from tracereel.film.beat import FADE_S, Beat, Caption
from tracereel.film.clock import Script
from tracereel.film.phrases import words
from tracereel.film.slides import Slide, slides_of, write_presentation
from tracereel.film.theme import DARK

RATE, SIZE = 10, (64, 48)


def beat(clock, *captions):
    spoken = tuple(Caption(from_s, words(text)) for from_s, text in captions)
    return Beat("a", words("Title"), spoken, clock, (), lambda canvas, film_s: None)


def write_film(path, levels):
    """A film of grey frames, each of one level."""
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=RATE, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for i, level in enumerate(levels):
            frame = av.VideoFrame.from_ndarray(np.full((SIZE[1], SIZE[0]), level, np.uint8), format="gray")
            frame.pts, frame.time_base = i, Fraction(1, RATE)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))


def levels(path):
    with av.open(str(path)) as source:
        return [round(float(frame.to_ndarray(format="gray").mean())) for frame in source.decode(video=0)]


def test_a_slide_a_caption_ends_while_its_caption_is_whole():
    first = beat(Script(0).run(10**9, 4.0).hold(2.0).clock(), (0.0, "first"), (2.0, "second"), (4.0, "third"))
    second = beat(Script(0).hold(3.0).clock(), (0.0, "fourth"))
    slides = slides_of([(0.5, first), (7.5, second)], RATE)
    assert [slide.notes for slide in slides] == ["first", "second", "third", "fourth"]
    assert [slide.end for slide in slides] == [round((0.5 + 2 - FADE_S) * RATE), round((4.5 - FADE_S) * RATE), 65, 105]
    assert [slide.first for slide in slides] == [0, *(slide.end for slide in slides[:-1])]
    assert [slide.still for slide in slides] == [False, False, True, True]


@pytest.mark.slow
def test_clips_hold_the_films_frames_and_their_reverses_the_same_backwards(tmp_path):
    film = tmp_path / "Film.mp4"
    shown = [*[120] * 5, *range(40, 240, 2), *[90] * 4, 90, 120, 150, 180]
    write_film(film, shown)
    slides = [Slide(0, 5, True, "held"), Slide(5, 105, False, "moves"), Slide(105, 109, False, "not held")]
    slides.append(Slide(109, 113, True, "held, and changes"))
    path = write_presentation(film, slides, DARK, tmp_path / "talk")
    assert path == tmp_path / "talk" / "Film.json"
    entries = json.loads(path.read_text())["slides"]
    assert [entry["loop"] for entry in entries] == [True, False, False, False]
    assert [entry["notes"] for entry in entries] == [slide.notes for slide in slides]
    for entry, slide in zip(entries, slides, strict=True):
        there = levels(tmp_path / entry["file"])
        assert there == pytest.approx(shown[slide.first : slide.end], abs=3)
        assert levels(tmp_path / entry["rev_file"]) == pytest.approx(there[::-1], abs=3)


def test_an_older_presentation_leaves_no_clip_behind(tmp_path):
    film = tmp_path / "Film.mp4"
    write_film(film, range(40, 60))
    write_presentation(film, [Slide(0, 10, False, "a"), Slide(10, 20, False, "b")], DARK, tmp_path / "talk")
    write_presentation(film, [Slide(0, 20, False, "a")], DARK, tmp_path / "talk")
    clips = sorted(path.name for path in (tmp_path / "talk" / "files" / "Film").iterdir())
    assert clips == ["001-reversed.mp4", "001.mp4"]


@pytest.fixture(scope="module")
def talk(film_recordings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("talk")
    options = ("--fps", "4", "--size", "256x144", "--media", str(folder / "media"), "--out", str(folder / "slides"))
    assert main(("slides", "decode_batching", *options, "--recordings", str(film_recordings))) == 0
    return folder / "slides"


@pytest.mark.slow
def test_a_scene_becomes_a_talk_whose_notes_are_its_captions(talk):
    shown = json.loads((talk / "DecodeBatching.json").read_text())
    assert shown["resolution"] == [256, 144]
    film = talk.parent / "media" / "videos" / "decode_batching" / "144p4" / "DecodeBatching.mp4"
    lines = film.with_suffix(".srt").read_text().split("\n")
    assert [entry["notes"] for entry in shown["slides"]] == lines[2::4]
    frames = sum(len(levels(talk.parent / entry["file"])) for entry in shown["slides"])
    whole = len(levels(film))
    assert whole - 4 < frames <= whole, "all of it but the last fade"
    with av.open(str(talk.parent / shown["slides"][0]["file"])) as clip:
        assert clip.metadata["tracereel_traces"]
        assert "tracereel_ledger" not in clip.metadata


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["html", "pdf", "pptx"])
def test_manim_slides_converts_it(talk, tmp_path, kind):
    command = shutil.which("manim-slides")
    if command is None:
        pytest.skip("needs manim-slides: pip install 'tracereel[slides]'")
    out = tmp_path / f"talk.{kind}"
    done = subprocess.run([command, "convert", "--folder", str(talk), "DecodeBatching", str(out)], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-400:]
    assert out.stat().st_size > 10_000


@pytest.mark.slow
def test_manim_slides_presents_every_slide_of_it(talk):
    command = shutil.which("manim-slides")
    if command is None:
        pytest.skip("needs manim-slides: pip install 'tracereel[slides]'")
    shown = subprocess.run(
        [command, "present", "--skip-all", "--folder", str(talk), "DecodeBatching"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
    )
    assert shown.returncode == 0, shown.stderr[-400:]
    assert "Traceback" not in shown.stderr


def test_a_scene_that_is_not_there_is_named(tmp_path, capsys):
    assert main(("slides", "nothing", "--out", str(tmp_path / "slides"))) == 2
    assert "'nothing' is not a scene" in capsys.readouterr().err
    assert not Path(tmp_path / "slides").exists()
