"""Make a talk of scenes: a presentation for manim-slides, a slide a caption, which plays, stops and goes back.

Each scene is rendered, then cut; the captions are the speaker's notes. Shows with `manim-slides present NAME`, converts
with `manim-slides convert NAME talk.html` (or .pdf, .pptx): pip install 'tracereel[slides]'. Prints the presentations.
"""

import argparse
from pathlib import Path

from tracereel.cli.progress import ProgressReport
from tracereel.cli.render import film_options, options_of, render_scene, settings_of
from tracereel.cli.terminal import say

_DEFAULT = "continuous_batching"


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `slides`."""
    parser.add_argument("scenes", nargs="*", default=[_DEFAULT], metavar="SCENE", help=f"default: {_DEFAULT}")
    parser.add_argument(
        "--out", type=Path, default=Path("slides"), help="folder of the presentations (default: slides)"
    )
    film_options(parser)
    whole_and_silent = {"format": "mp4", "transparent": False, "sound": False, "narration": False, "voice": None}
    parser.set_defaults(**whole_and_silent, digest=None, from_s=None, to_s=None, slots=None)


def run(args: argparse.Namespace) -> int:
    """Render, cut, and print what was made."""
    from tracereel.film.slides import slides_of, write_presentation

    settings, options = settings_of(args), options_of(args)
    for name in args.scenes:
        with ProgressReport() as report:
            label = f"rendering {name}"
            film, timed_beats = render_scene(
                name, settings, options, {}, lambda *done, label=label: report(label, *done)
            )
            report(f"cutting {name}", 0, 1)
            slides = slides_of(timed_beats, options["frame_rate"])
            path = write_presentation(film, slides, settings.palette, args.out)
        say(path)
    return 0
