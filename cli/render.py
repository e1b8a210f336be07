"""Render a scene, or the whole film, from recordings.

The scenes are those of the package; `manim -pql scenes/NAME.py` renders the same. Prints the film's path last.
"""

import argparse
import os
import re
import sys
from pathlib import Path

SCENES = (
    "continuous_batching",
    "pipeline_flow",
    "decode_batching",
    "same_position",
    "throughput_comparison",
    "latency",
    "where_it_hurts",
)
QUALITIES = {
    "l": "low_quality",
    "m": "medium_quality",
    "h": "high_quality",
    "p": "production_quality",
    "k": "fourk_quality",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `render`."""
    parser.add_argument("scene", nargs="?", default=SCENES[0], choices=SCENES, help=f"default: {SCENES[0]}")
    parser.add_argument(
        "-q", "--quality", choices=QUALITIES, default="l", help="l 480p15, m 720p30, h 1080p60, p 1440p60, k 2160p60"
    )
    parser.add_argument("--recordings", type=Path, help="play the traces of this folder instead of the package's")
    parser.add_argument("--size", type=_size, metavar="WxH", help="pixels, such as 1080x1920 for an upright film")
    parser.add_argument("--fps", type=float, help="frames a second")
    parser.add_argument("--format", choices=("mp4", "webm", "gif"), default="mp4", help="default: mp4")
    parser.add_argument("--media", type=Path, default=Path("media"), help="folder for the result (default: media)")


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{2,5})x(\d{2,5})", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT in pixels, such as 1080x1920")
    width, height = int(found[1]), int(found[2])
    if width % 2 or height % 2:
        raise argparse.ArgumentTypeError(f"{text}: both sides must be even, for the video encoder")
    return width, height


def run(args: argparse.Namespace) -> int:
    """Render and print the film's path."""
    from manim import tempconfig
    from tracereel.scenes.playbill import scene_class, scene_file
    from tracereel.trace.catalogue import ENVIRONMENT

    if args.recordings:
        os.environ[ENVIRONMENT] = str(args.recordings)
    settings: dict[str, object] = {
        "quality": QUALITIES[args.quality],
        "media_dir": str(args.media),
        "format": args.format,
        "input_file": str(scene_file(args.scene)),
        "verbosity": "WARNING",
        "progress_bar": "leave" if sys.stderr.isatty() else "none",
    }
    if args.fps:
        settings["frame_rate"] = args.fps
    if args.size:
        settings["pixel_width"], settings["pixel_height"] = args.size
    if not sys.stderr.isatty():
        print(f"rendering {args.scene}", file=sys.stderr, flush=True)
    with tempconfig(settings):
        scene = scene_class(args.scene)()
        scene.render()
        print(scene.renderer.file_writer.final_file_path)
    return 0
