"""Scenes as films: what they draw frame by frame, without Manim, and the files that Manim makes of them."""

from pathlib import Path

from tracereel.film.frames import BeatFrames
from tracereel.film.layout import Kind, faults
from tracereel.film.registry import find
from tracereel.film.schedule import frames_of
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import FILMS, storyboard
from tracereel.trace.recordings.index import FILM

SIZES = {"wide": (854, 480), "tall": (480, 854), "square": (480, 480)}


def suite_of(name):
    """The suite whose recordings a scene or a film plays."""
    return FILM if name in FILMS else find(name).suite


def drawn_by(name, size, settings=None, rate=2):
    """What a scene draws: (show, beats, everything drawn in each of so many frames a second)."""
    show = Show(settings or Settings(), size)
    beats = storyboard(name, show)
    frames = []
    for beat in beats:
        drawn = []
        painted = BeatFrames(beat, show, watch=drawn.append)
        for i in range(frames_of(beat, rate)):
            painted.at(i / rate)
            frames.append(list(drawn))
            drawn.clear()
    return show, beats, frames


def laid_out(name, size, rate=1, texts=50, settings=None):
    """(Beats, frames) of a scene with more than so many texts in all, and nothing in the way of anything else."""
    show, beats, frames = drawn_by(name, size, settings, rate=rate)
    assert sum(thing.kind is Kind.TEXT for drawn in frames for thing in drawn) > texts
    found = {
        fault: i
        for i, drawn in enumerate(frames)
        for fault in [*faults(drawn, show.stage.safe), *covered(drawn, show.stage)]
    }
    assert not found, "\n".join(f"{i / rate:.1f} s: {fault}" for fault, i in list(found.items())[:8])
    return beats, frames


def covered(drawn, stage):
    """What apps would cover of an upright frame: every text, but where the picture comes from, below the clock."""
    left, top, right, bottom = stage.clear
    provenance = stage.strip_lines[0] + 10
    return [
        f"{thing} is where apps put their controls"
        for thing in drawn
        if thing.kind is Kind.TEXT and thing.alpha > 0.25 and not thing.moving and thing.sides[1] < provenance
        if thing.sides[0] < left - 2
        or thing.sides[1] < top - 2
        or thing.sides[2] > right + 2
        or thing.sides[3] > bottom + 2
    ]


def rendered(name, size, folder, rate=2):
    """Let Manim render a scene into a folder; (its scene, the film)."""
    from manim import tempconfig
    from tracereel.scenes.film_scene import scene_class

    options = {
        "pixel_width": size[0],
        "pixel_height": size[1],
        "frame_rate": rate,
        "media_dir": str(folder),
        "input_file": f"{name}.py",
        "verbosity": "ERROR",
        "progress_bar": "none",
    }
    with tempconfig(options):
        scene = scene_class(name)(Settings())
        scene.render()
        return scene, Path(scene.renderer.file_writer.final_file_path)
