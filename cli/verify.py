"""Verify a film, a page of `play` or a report: make it again from the traces, and compare.

A film is held to what its traces draw: sampled frames (--all-frames: each), every figure and line of its ledger, the
captions, chapters, sound and still that go with it, and what its metadata says. Pages and reports hold their own
ledger. Exit code 0: all of it is what the traces say; 1: something is not, or cannot be made again; 2: something cannot
be read.
"""

import argparse
from pathlib import Path

from tracereel.cli.terminal import say


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `verify`."""
    parser.add_argument(
        "film", type=Path, help="a film made by tracereel, its ledger next to it, a page of play, or a report"
    )
    parser.add_argument(
        "--trace",
        type=Path,
        nargs="+",
        metavar="TRACE",
        help="trace files or folders (default: $TRACEREEL_RECORDINGS, then the package's recordings)",
    )
    parser.add_argument("--all-frames", action="store_true", help="compare every frame")
    parser.add_argument("--brand", type=Path, metavar="FILE", help="the brand file that the film was made with")
    parser.add_argument("--font", type=Path, action="append", default=[], help="a font file that it was made with")
    parser.add_argument(
        "--voice", default="espeak-ng", metavar="VOICE", help="the voice that reads it: piper:MODEL.onnx"
    )
    parser.add_argument("--scene", type=Path, metavar="FILE.py", help="the file of your own scene; it is run")


def run(args: argparse.Namespace) -> int:
    """Recompute and say what differs."""
    import os

    from tracereel.trace.recordings.index import ENVIRONMENT, PACKAGE_RECORDINGS

    traces = args.trace or [Path(os.environ.get(ENVIRONMENT) or PACKAGE_RECORDINGS)]
    if args.film.suffix == ".html":
        return _verify_page(args.film, traces)
    from tracereel.cli.progress import ProgressReport
    from tracereel.film.verification import Wanted, verify
    from tracereel.film.voices import Voice

    if args.scene:
        _load(args.scene)
    wanted = Wanted(args.brand, tuple(args.font), args.all_frames, Voice.read(args.voice))
    with ProgressReport() as report:
        verdict = verify(args.film, traces, wanted, lambda done, total: report(f"verifying {args.film}", done, total))
    for note in verdict.notes:
        say(f"  {note}")
    for fault in verdict.faults[:20]:
        say(f"  {fault}")
    more = len(verdict.faults) - 20
    if more > 0:
        say(f"  and {more} more")
    compared = f"{verdict.compared} of {verdict.frames} frames compared"
    say(f"{args.film}: {verdict.claims} claims, {compared}, {len(verdict.faults)} fault(s)")
    return 1 if verdict.faults else 0


class SceneFileError(Exception):
    """A file of a scene cannot be run; the message is one line."""


def _load(file: Path) -> None:
    """Run a scene's file, which registers the scene and its queries. Raises SceneFileError, OSError."""
    import runpy

    try:
        runpy.run_path(str(file))
    except OSError:
        raise
    except Exception as error:  # it is a program of the user's
        raise SceneFileError(f"{file}: cannot be run ({type(error).__name__}: {error})") from error


def _verify_page(page: Path, traces: list[Path]) -> int:
    from tracereel.cli.progress import ProgressReport
    from tracereel.cli.report_verification import ReportVerdict, is_report, verify_report
    from tracereel.player.verification import PageVerdict, read_page, verify_text

    text = read_page(page)
    verdict: PageVerdict | ReportVerdict
    if is_report(text):
        with ProgressReport() as report:
            verdict = verify_report(text, page, traces, report)
        for note in verdict.notes:
            say(f"  {note}")
    else:
        verdict = verify_text(text, page, traces)
    for fault in verdict.faults[:20]:
        say(f"  {fault}")
    say(f"{page}: {verdict.runs} run(s), {verdict.figures} figures, {len(verdict.faults)} fault(s)")
    return 1 if verdict.faults else 0
