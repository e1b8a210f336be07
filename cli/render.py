"""Render a scene, the whole film, or everything, from recordings.

`--list` prints the scenes; `manim -pql scenes/NAME.py` renders the same. --all renders every scene, in parallel on
the machine's cores. It leaves out a scene whose recordings are missing, and says why; it keeps films that are up to
date, and joins the films from their scenes without encoding them again. --part K/N renders the K-th of N shares of
the scenes, for machines that share a folder; a last call with --all alone joins. Prints the films' paths.
"""

import argparse
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any

from tracereel.cli.options import allow_broken_option, number, whole
from tracereel.cli.progress import ProgressReport
from tracereel.cli.terminal import say, warn

if TYPE_CHECKING:
    from tracereel.film.beat import Beat
    from tracereel.film.settings import Settings
    from tracereel.film.show import Show
    from tracereel.film.window import Window

QUALITIES = {
    "l": (854, 480, 15.0),
    "m": (1280, 720, 30.0),
    "h": (1920, 1080, 60.0),
    "p": (2560, 1440, 60.0),
    "k": (3840, 2160, 60.0),
}
FORMATS = ("mp4", "webm", "gif")
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")
_GRACE_S = 5.0
_DEFAULT = "continuous_batching"
_SETTINGS = ("recordings", "device", "brand", "theme", "language", "captions", "voice")
"""The options that are settings of the film, as they are called there."""
_STRETCH = {"run": "digest", "from": "from_s", "to": "to_s", "slots": "slots"}
"""The same for the options of a stretch, whose own names argparse or Python keep."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `render`."""
    parser.add_argument("scene", nargs="?", default=_DEFAULT, metavar="SCENE", help=f"default: {_DEFAULT}")
    parser.add_argument("--list", action="store_true", help="print the scenes and what each is about")
    parser.add_argument("--all", action="store_true", help="every scene, in parallel, and the films joined from them")
    parser.add_argument("--part", type=_part, metavar="K/N", help="the K-th of N shares of the scenes, not joined")
    parser.add_argument(
        "--jobs",
        type=whole(1, 256),
        metavar="N",
        default=os.cpu_count() or 1,
        help="renders at a time (default: the cores)",
    )
    film_options(parser)
    parser.add_argument("--format", choices=FORMATS, default="mp4", help="default: mp4")
    parser.add_argument("--transparent", action="store_true", help="no ground: a .mov with an alpha channel, or .webm")
    parser.add_argument("--sound", action="store_true", help="let each token be heard at its measured time")
    parser.add_argument("--narration", action="store_true", help="let a voice read the captions")
    parser.add_argument(
        "--voice", metavar="VOICE", help="what reads them: espeak-ng (default) or piper:MODEL.onnx; means --narration"
    )
    stretch = parser.add_argument_group(
        "a stretch of one run", "for decode_batching, pipeline_flow and kv_cache_paging"
    )
    stretch.add_argument("--run", dest="digest", metavar="DIGEST", help="first digits of the trace's digest")
    stretch.add_argument("--from", dest="from_s", metavar="S", help="engine time in s (default: the run's beginning)")
    stretch.add_argument("--to", dest="to_s", metavar="S", help="engine time in s (default: the run's end)")
    stretch.add_argument("--slots", metavar="A-B", help="slots from A to B, counted from 0, of decode_batching")


def film_options(parser: argparse.ArgumentParser) -> None:
    """The options of whatever renders: recordings, sizes, encoding, words and looks."""
    parser.add_argument(
        "-q", "--quality", choices=QUALITIES, default="l", help="l 480p15, m 720p30, h 1080p60, p 1440p60, k 2160p60"
    )
    parser.add_argument("--recordings", type=Path, help="play the traces of this folder instead of the package's")
    parser.add_argument("--device", help="play what was measured on it: cpu, cuda, or its name (default: a GPU's)")
    parser.add_argument("--size", type=_size, metavar="WxH", help="pixels, such as 1080x1920 for an upright film")
    parser.add_argument("--fps", type=number(1, 240), help="frames a second, 1 to 240")
    parser.add_argument(
        "--crf", type=whole(0, 51), metavar="N", help="quality of the encoding, lower is better (default: 20)"
    )
    parser.add_argument(
        "--preset", choices=PRESETS, help="x264's preset, slower is smaller (default: superfast with a look-ahead)"
    )
    parser.add_argument("--brand", type=Path, metavar="FILE", help="a brand file (TOML): title, logo, accent, end card")
    parser.add_argument("--theme", help="dark or light (default: dark, or the brand's)")
    parser.add_argument("--language", help="of all words: en or zh (default: en)")
    parser.add_argument("--font", type=Path, action="append", help="a file of a further face, such as one with CJK")
    parser.add_argument("--captions", choices=("on", "off"), help="captions in the picture (default: on)")
    allow_broken_option(parser)
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
    from tracereel.film.window import WindowError

    if args.list:
        return _list()
    settings, options = settings_of(args), options_of(args)
    if (args.all or args.part) and settings.window is not None:
        raise WindowError("--all and --part render whole scenes: leave out --run, --from, --to and --slots")
    if args.all or args.part:
        return _render_all(args, settings, options)
    with ProgressReport() as report:
        label = f"rendering {args.scene}"
        say(render_scene(args.scene, settings, options, {}, lambda done, total: report(label, done, total))[0])
    return 0


def _list() -> int:
    from tracereel.film.storyboards import about, names

    width = max(map(len, names()))
    for name in names():
        say(f"{name:{width}}  {about(name)}")
    return 0


def settings_of(args: argparse.Namespace) -> "Settings":
    """What was asked for; what was not is as the environment says."""
    from tracereel.film.settings import Settings

    asked = {name: str(value) for name in _SETTINGS if (value := getattr(args, name)) is not None}
    asked |= {name: text for name, option in _STRETCH.items() if (text := getattr(args, option)) is not None}
    asked |= {name: "on" for name in ("sound", "narration") if getattr(args, name)}
    if args.voice:
        asked["narration"] = "on"
    if args.allow_broken:
        asked["allow_broken"] = "on"
    if args.font:
        asked["fonts"] = os.pathsep.join(map(str, args.font))
    return Settings.from_environment(asked)


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """Manim's settings, but for the scene's."""
    width, height, fps = QUALITIES[args.quality]
    encoder = {name: str(value) for name in ("crf", "preset") if (value := getattr(args, name)) is not None}
    width, height = args.size or (width, height)
    return {
        "pixel_width": width,
        "pixel_height": height,
        "frame_rate": args.fps or fps,
        "media_dir": str(args.media),
        "video_dir": _folder(width, height, args.fps or fps),
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


def render_scene(
    name: str, settings: "Settings", options: dict[str, Any], facts: dict[str, str], report: Callable[[int, int], None]
) -> "tuple[Path, list[tuple[float, Beat]]]":
    """Render one scene; `report` is called with the frames done and all frames.

    Returns the film's path, and its beats, each with the second of film at which its own clock begins.
    """
    from tracereel.film.registry import find
    from tracereel.film.storyboards import FILMS

    if name not in FILMS:
        find(name)
    from tracereel.film.staging import staged
    from tracereel.scenes.film_scene import configured, scene_class

    target = _path(name, options, settings.window)
    with staged(target) as folder:
        places = {"media_dir": str(folder), "video_dir": str(folder), "input_file": f"{name}.py"}
        with configured({**options, **places, "output_file": target.stem}):
            scene = scene_class(name)(settings, facts, report)
            scene.render()
    return target, scene.timed_beats


_progress: Any = None
"""In a worker: the queue by which it reports how far it is."""


def _start_worker(progress: Any) -> None:
    global _progress
    _progress = progress
    progress.cancel_join_thread()  # a parent that has ended reads nothing any more
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends its workers
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers: they do it themselves."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(143)


def _work(name: str, settings: "Settings", options: dict[str, Any], job: str) -> str:
    from tracereel.film.assembly import JOB

    return str(render_scene(name, settings, options, {JOB: job}, lambda *done: _progress.put((name, *done)))[0])


@dataclass
class _Plan:
    """The scenes that the recordings can tell, with their beats and what each render depends on."""

    shows: dict[str, "Show"] = field(default_factory=dict)
    beats: dict[str, "list[Beat]"] = field(default_factory=dict)
    jobs: dict[str, str] = field(default_factory=dict)


def _plan(settings: "Settings", options: dict[str, Any]) -> _Plan:
    """Ask every scene for its beats; one without what it needs is left out, with a line that says why."""
    from tracereel.film.assembly import job_digest
    from tracereel.film.show import Show
    from tracereel.film.storyboards import names, storyboard
    from tracereel.trace.analysis.comparable import NotComparableError
    from tracereel.trace.format.storage import TraceError

    asked = {name: str(value) for name, value in options.items() if name != "media_dir"} | settings.facts
    plan = _Plan()
    for name in names():
        show = Show(settings, (options["pixel_width"], options["pixel_height"]))
        try:
            plan.beats[name] = storyboard(name, show)
        except (TraceError, NotComparableError) as error:
            if name == _DEFAULT:
                raise
            warn(f"left out: {name}: {error}")
        else:
            plan.shows[name] = show
            plan.jobs[name] = job_digest([*show.files, *settings.files], asked)
    return plan


def _render_all(args: argparse.Namespace, settings: "Settings", options: dict[str, Any]) -> int:
    from tracereel.film.assembly import is_fresh, join
    from tracereel.film.storyboards import FILMS

    if settings.narration:
        settings.voice.ready(settings.language)  # once, rather than by each worker
    plan = _plan(settings, options)
    cast = [name for name in plan.beats if name not in FILMS]
    whole: list[str] = []  # films whose chapters are not their scenes' pictures: a request is followed through them
    if args.part:
        k, n = args.part
        cast = cast[k - 1 :: n]
    elif options["format"] != "gif":
        whole = [name for name in FILMS if any(beat.follow is not None for beat in plan.beats.get(name, ()))]
    paths = {name: _path(name, options) for name in (*cast, *whole)}
    todo = {name: plan.jobs[name] for name, path in paths.items() if not is_fresh(path, plan.jobs[name])}
    _work_off(todo, settings, options, args.jobs)
    for name in cast:
        say(paths[name])
    if args.part or options["format"] == "gif":
        return 0
    for film in (name for name in FILMS if name in plan.beats):
        target, beats = _path(film, options), plan.beats[film]
        stale = not todo.keys().isdisjoint(beat.name for beat in beats) or not is_fresh(target, plan.jobs[film])
        if film not in whole and stale:
            join(film, [paths[beat.name] for beat in beats], beats, target, plan.shows[film], plan.jobs[film])
        say(target)
    return 0


def _path(name: str, options: dict[str, Any], window: "Window | None" = None) -> Path:
    """Where a scene's film goes: where Manim puts it too. A stretch's name says what was asked for, without points."""
    from tracereel.film.registry import class_name

    asked = "".join(f"-{name}-{text}" for name, text in window.facts).replace(".", "_") if window else ""
    file = f"{class_name(name)}{asked}.{options['format']}"
    return Path(options["media_dir"], "videos", name, options["video_dir"], file)


def _work_off(todo: dict[str, str], settings: "Settings", options: dict[str, Any], at_once: int) -> None:
    """Render scenes, each with what its render depends on, side by side, with one bar for all of them.

    Raises what the first that fails raises.
    """
    if not todo:
        return
    context = get_context("spawn")
    progress = context.Queue()
    pool = ProcessPoolExecutor(at_once, context, _start_worker, (progress,))
    with ProgressReport() as report:
        try:
            running = {name: pool.submit(_work, name, settings, options, job) for name, job in todo.items()}
            _follow(running, progress, report)
            for future in running.values():
                if not future.cancelled():
                    future.result()
            pool.shutdown()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            _end_workers()
            raise


def _end_workers() -> None:
    """Have the workers end, with what they began put in order; those that do not are killed."""
    workers = active_children()
    for worker in workers:
        worker.terminate()
    by = time.monotonic() + _GRACE_S
    for worker in workers:
        worker.join(max(by - time.monotonic(), 0))
        if worker.is_alive():
            worker.kill()
            worker.join()


def _follow(running: dict[str, Future[str]], progress: Any, report: ProgressReport) -> None:
    """Report how far the renders are until all are done, or one has failed."""
    frames: dict[str, tuple[int, int]] = {}
    while not all(future.done() for future in running.values()):
        if any(future.done() and future.exception() for future in running.values()):
            for future in running.values():
                future.cancel()
            return
        try:
            name, done, total = progress.get(timeout=0.2)
        except Empty:
            continue
        frames[name] = (done, total)
        # A scene that has not begun is taken to be as long as those that have.
        known = sum(total for _, total in frames.values())
        ended = sum(future.done() for future in running.values())
        label = f"{ended} of {len(running)} scenes are rendered"
        report(label, sum(done for done, _ in frames.values()), known * len(running) // len(frames))
