"""Cut a short moving picture from a film: a GIF for a README.

The film is one that `tracereel render` made; times are seconds of film. The GIF gets a ledger of its own, and
`tracereel verify` checks it against its traces.
"""

import argparse
from pathlib import Path

from tracereel.cli.options import number, whole


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `clip`."""
    parser.add_argument("film", type=Path, help="a film")
    parser.add_argument("target", type=Path, help="the picture to write: a .gif")
    parser.add_argument("--from", dest="from_s", type=number(0, 86_400), default=0.0, help="first second (default: 0)")
    parser.add_argument("--to", dest="to_s", type=number(0, 86_400), default=10.0, help="last second (default: 10)")
    parser.add_argument("--width", type=whole(16, 7680), default=640, help="pixels (default: 640)")
    parser.add_argument("--fps", type=number(1, 50), default=12.0, help="frames a second (default: 12)")


def run(args: argparse.Namespace) -> int:
    """Cut it and print what was made."""
    from tracereel.cli.terminal import say
    from tracereel.film.clip import clip

    frames = clip(args.film, args.target, args.from_s, args.to_s, args.width, args.fps)
    say(f"{args.target}: {frames} frames, {args.target.stat().st_size / 1e6:.1f} MB")
    return 0
