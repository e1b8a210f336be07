"""Render a scene, the whole film, or everything, from recordings.

The scenes are those of the package; `manim -pql scenes/NAME.py` renders the same. With --all every scene is rendered,
side by side on the cores there are; a scene whose recordings are not there is left out, with a line that says why. What
is there already and still true is left as it is, and the films are joined from their scenes without encoding anew.
--part K/N renders the K-th of N shares of the scenes, for machines that share a folder; whoever renders with --all last
joins. Prints the films' paths.
"""

import argparse
import os
import re
import sys
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from queue import Empty
from typing import Any

from tracereel.cli.progress import ProgressReport
from tracereel.cli.terminal import printable
from tracereel.scenes.playbill import FILMS, SCENES

QUALITIES = {
    "l": (854, 480, 15.0),
    "m": (1280, 720, 30.0),
    "h": (1920, 1080, 60.0),
    "p": (2560, 1440, 60.0),
    "k": (3840, 2160, 60.0),
}
FORMATS = ("mp4", "webm", "gif")
_ENVIRONMENT = {
    "recordings": "TRACEREEL_RECORDINGS",
    "device": "TRACEREEL_DEVICE",
    "brand": "TRACEREEL_BRAND",
    "theme": "TRACEREEL_THEME",
    "language": "TRACEREEL_LANGUAGE",
    "captions": "TRACEREEL_CAPTIONS",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `render`."""
    parser.add_argument("scene", nargs="?", default=SCENES[0], choices=SCENES, help=f"default: {SCENES[0]}")
    parser.add_argument("--all", action="store_true", help="every scene, side by side, and the film joined from them")
    parser.add_argument("--part", type=_part, metavar="K/N", help="the K-th of N shares of the scenes, not joined")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="renders at a time (default: the cores)")
    parser.add_argument(
        "-q", "--quality", choices=QUALITIES, default="l", help="l 480p15, m 720p30, h 1080p60, p 1440p60, k 2160p60"
    )
    parser.add_argument("--recordings", type=Path, help="play the traces of this folder instead of the package's")
    parser.add_argument("--device", help="play what was measured on it: cpu, cuda, or its name (default: a GPU's)")
    parser.add_argument("--size", type=_size, metavar="WxH", help="pixels, such as 1080x1920 for an upright film")
    parser.add_argument("--fps", type=float, help="frames a second")
    parser.add_argument("--format", choices=FORMATS, default="mp4", help="default: mp4")
    parser.add_argument("--transparent", action="store_true", help="no ground: a .mov with an alpha channel, or .webm")
    parser.add_argument("--crf", type=int, help="quality of the encoding, lower is better (default: 20)")
    parser.add_argument("--preset", help="x264's preset, slower is smaller (default: superfast with a look-ahead)")
    parser.add_argument("--brand", type=Path, metavar="FILE", help="a brand file (TOML): title, logo, accent, end card")
    parser.add_argument("--theme", help="dark or light (default: dark, or the brand's)")
    parser.add_argument("--language", help="of all words: en or zh (default: en)")
    parser.add_argument("--font", type=Path, action="append", help="a file of a further face, such as one with CJK")
    parser.add_argument("--captions", choices=("on", "off"), help="captions in the picture (default: on)")
    parser.add_argument("--sound", action="store_true", help="let each token be heard at its measured time")
    parser.add_argument("--narration", action="store_true", help="let espeak-ng read the captions")
    parser.add_argument("--media", type=Path, default=Path("media"), help="folder for the result (default: media)")


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{2,5})x(\d{2,5})", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT in pixels, such as 1080x1920")
    width, height = int(found[1]), int(found[2])
    if width % 2 or height % 2:
        raise argparse.ArgumentTypeError(f"{text}: both sides must be even, for the video encoder")
    return width, height


def _part(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not K/N, such as 2/3")
    return int(found[1]), int(found[2])


def run(args: argparse.Namespace) -> int:
    """Render and print what was made."""
    for name, variable in _ENVIRONMENT.items():
        if (value := getattr(args, name)) is not None:
            os.environ[variable] = str(value)
    for name in ("sound", "narration"):
        if getattr(args, name):
            os.environ[f"TRACEREEL_{name.upper()}"] = "on"
    if args.font:
        os.environ["TRACEREEL_FONTS"] = os.pathsep.join(map(str, args.font))
    options = _options(args)
    if args.all or args.part:
        return _render_all(args, options)
    with ProgressReport() as report:
        print(_render(args.scene, options, None, lambda done, total: report(f"rendering {args.scene}", done, total)))
    return 0


def _options(args: argparse.Namespace) -> dict[str, object]:
    """Manim's settings, but for the scene's."""
    width, height, fps = QUALITIES[args.quality]
    encoder = {name: str(value) for name in ("crf", "preset") if (value := getattr(args, name)) is not None}
    width, height = args.size or (width, height)
    return {
        "pixel_width": width,
        "pixel_height": height,
        "frame_rate": args.fps or fps,
        "media_dir": str(args.media),
        "video_dir": "{media_dir}/videos/{module_name}/" + _folder(width, height, args.fps or fps),
        "format": "mov" if args.transparent and args.format == "mp4" else args.format,
        "transparent": args.transparent,
        "video_encoder_options": encoder,
        "verbosity": "ERROR",
        "progress_bar": "none",
    }


def _folder(width: int, height: int, fps: float) -> str:
    """Manim's own name for a resolution; with the width where the height alone would not tell the shape."""
    tells = abs(max(width, height) / min(width, height) - 16 / 9) < 0.01
    return f"{height}p{fps:g}" if tells else f"{width}x{height}p{fps:g}"


def _render(name: str, options: dict[str, object], job: str | None, report: Any) -> str:
    """Render one scene; `report(done, total)` is told of frames. Returns the film's path."""
    from manim import tempconfig
    from tracereel.film.assembly import JOB
    from tracereel.scenes.playbill import scene_class, scene_file

    with tempconfig({**options, "input_file": str(scene_file(name))}):
        scene = scene_class(name)()
        scene.extra_facts = {JOB: job} if job else {}
        scene.renderer.on_progress = lambda done: report(done, scene.expected_frames)
        scene.render()
        return str(scene.renderer.file_writer.final_file_path)


_told: Any = None
"""In a worker: the queue by which it tells how far it is."""


def _start_worker(told: Any) -> None:
    global _told
    _told = told


def _work(name: str, options: dict[str, object], job: str) -> str:
    return _render(name, options, job, lambda done, total: _told.put((name, done, total)))


def _render_all(args: argparse.Namespace, options: dict[str, object]) -> int:
    from manim import tempconfig
    from tracereel.film.assembly import is_fresh, job_digest, join
    from tracereel.scenes.playbill import scene_class
    from tracereel.trace.analysis.comparable import NotComparableError
    from tracereel.trace.format.storage import TraceError

    # What each scene would tell is made here too, unpainted: whether it can, how long it is, what it says.
    reels, scripts, played = {}, {}, {}
    with tempconfig(options):
        for name in SCENES:
            reels[name] = reel = scene_class(name)()
            try:
                scripts[name] = reel.script()
            except (TraceError, NotComparableError) as error:
                if name == SCENES[0]:
                    raise
                print(f"left out: {name}: {printable(str(error))}", file=sys.stderr)
            else:
                played[name] = reel.show.files
    asked = {name: os.environ.get(name, "") for name in sorted(os.environ) if name.startswith("TRACEREEL_")}
    asked |= {name: str(value) for name, value in options.items() if name != "media_dir"}
    extra = [*reel.show.settings.brand.files, *reel.show.settings.fonts]
    cast = [name for name in played if name not in FILMS]
    if args.part:
        k, n = args.part
        cast = cast[k - 1 :: n]
    paths = {name: _path(name, options) for name in cast}
    jobs = {name: job_digest([*files, *extra], asked) for name, files in played.items()}
    todo = {name: jobs[name] for name in cast if not is_fresh(paths[name], jobs[name])}
    _work_off(todo, options, args.jobs)
    for name in cast:
        print(paths[name])
    if args.part or options["format"] == "gif":
        return 0
    for film in FILMS:
        target, beats, reel = _path(film, options), scripts[film], reels[film]
        if not todo.keys().isdisjoint(beat.name for beat in beats) or not is_fresh(target, jobs[film]):
            join([paths[beat.name] for beat in beats], beats, target, reel.show.settings, jobs[film])
            with tempconfig(options):
                reel.write_still(target, beats)
        print(target)
    return 0


def _path(name: str, options: dict[str, object]) -> Path:
    """Where Manim puts a scene's film."""
    from tracereel.scenes.playbill import scene_class

    folder = str(options["video_dir"]).format(media_dir=options["media_dir"], module_name=name)
    return Path(folder) / f"{scene_class(name).__name__}.{options['format']}"


def _work_off(todo: dict[str, str], options: dict[str, object], at_once: int) -> None:
    """Render scenes, each with what its render depends on, side by side, with one bar for all of them.

    Raises what the first that fails raises.
    """
    if not todo:
        return
    context = get_context("spawn")
    with context.Manager() as manager, ProgressReport() as report:
        told = manager.Queue()
        with ProcessPoolExecutor(max(at_once, 1), context, _start_worker, (told,)) as pool:
            running: dict[str, Future[str]] = {
                name: pool.submit(_work, name, options, job) for name, job in todo.items()
            }
            frames: dict[str, tuple[int, int]] = {}
            while not all(future.done() for future in running.values()):
                failed = [f for f in running.values() if f.done() and f.exception()]
                if failed:
                    for future in running.values():
                        future.cancel()
                    break
                try:
                    name, done, total = told.get(timeout=0.2)
                except Empty:
                    continue
                frames[name] = (done, total)
                # A scene that has not begun is taken to be as long as those that have.
                known = sum(total for _, total in frames.values())
                ended = sum(future.done() for future in running.values())
                label = f"{ended} of {len(todo)} scenes are rendered"
                report(label, sum(done for done, _ in frames.values()), known * len(todo) // len(frames))
        for future in running.values():
            if not future.cancelled():
                future.result()
