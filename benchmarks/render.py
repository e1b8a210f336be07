"""How long films take to render: each scene against its own length, and against the same replay drawn naively.

`python benchmarks/render.py --write` renders in fresh processes, alternating between the cases, and writes
benchmarks/results/render.md. Naive: the far view of the slot grid with one VMobject a step and slot, as one would draw
it in plain Manim; it is measured in ms a frame, without encoding, as are the same frames of the layer.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results" / "render.md"
SCENES = ("decode_batching", "pipeline_flow", "continuous_batching")
QUALITIES = {"1080p60": (1920, 1080, 60), "480p15": (854, 480, 15)}
NAIVE_FRAMES = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="at most, each of every case once")
    parser.add_argument("--minutes", type=float, default=8.0, help="no round is begun that would end later")
    parser.add_argument("--write", action="store_true", help="write the table into benchmarks/results")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*json.loads(args.one))))
        return
    cases = [("film", scene, quality) for quality in QUALITIES for scene in SCENES]
    cases += [("layer", "", ""), ("naive", "", "")]
    found: dict[tuple[str, str, str], list[dict[str, float]]] = {case: [] for case in cases}
    begin, rounds = time.monotonic(), 0
    while rounds < args.rounds and (time.monotonic() - begin) * (rounds + 1) <= 60 * args.minutes * max(rounds, 1):
        rounds += 1
        for case in cases:
            command = [sys.executable, __file__, "--one", json.dumps(case)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[case].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{rounds}/{args.rounds} {' '.join(case)}: {found[case][-1]}", file=sys.stderr, flush=True)
    text = table(found, rounds)
    print(text)
    if args.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(text)


def measure(kind: str, scene: str, quality: str) -> dict[str, float]:
    """One measurement in this process: seconds and frames."""
    return film(scene, *QUALITIES[quality]) if kind == "film" else replay(kind == "naive")


def film(name: str, width: int, height: int, fps: int) -> dict[str, float]:
    """Render a scene as `tracereel render` does: from reading the traces to the finished file."""
    from manim import tempconfig
    from tracereel.scenes.film_scene import scene_class

    with tempfile.TemporaryDirectory() as folder:
        options = {"pixel_width": width, "pixel_height": height, "frame_rate": fps, "media_dir": folder}
        quiet = {"verbosity": "ERROR", "progress_bar": "none", "input_file": f"{name}.py"}
        with tempconfig({**options, **quiet}):
            begin = time.perf_counter()
            scene = scene_class(name)()
            scene.render()
            seconds = time.perf_counter() - begin
        return {
            "seconds": seconds,
            "frames": scene.renderer.ledger.frames,
            "length": scene.renderer.ledger.frames / fps,
        }


def replay(naive: bool) -> dict[str, float]:
    """The continuous run's slots over all of its steps, growing; seconds for the frames alone, nothing encoded."""
    import numpy as np
    from manim import ManimColor, Rectangle, Scene, VGroup, config, tempconfig
    from tracereel.film.colours import RequestColours
    from tracereel.film.components.slot_grid import SlotGrid
    from tracereel.film.phrases import Phrasebook
    from tracereel.film.stage import Box
    from tracereel.film.theme import DARK
    from tracereel.film.time_axis import View
    from tracereel.scenes.film_scene import FilmRenderer, Layer
    from tracereel.trace.analysis.queries import Run
    from tracereel.trace.recordings.index import RecordingIndex

    run = Run(RecordingIndex().case("continuous")[0].read())
    steps, view = run.trace.steps, View.of_run(run)
    colours = RequestColours([run.trace])
    with tempconfig({"pixel_width": 1920, "pixel_height": 1080, "verbosity": "ERROR"}):
        renderer = FilmRenderer()
        scene = Scene(renderer=renderer)
        box, now = Box(60, 60, 1800, 960), [0]
        cells: list[tuple[int, Rectangle]] = []
        if naive:
            unit = config.frame_height / 1080
            pitch = box.h / run.trace.header.slots
            for step in range(len(steps)):
                begin, end = (
                    box.x + box.w * (t - view.from_ns) / (view.to_ns - view.from_ns)
                    for t in (int(steps.start_ns[step]), int(steps.end_ns[step]))
                )
                members = steps.members(step)
                columns = (steps.member_request[members].tolist(), steps.member_slot[members].tolist())
                for request, slot in zip(*columns, strict=True):
                    colour = ManimColor.from_rgb(DARK.rgb(colours[request]))
                    cell = Rectangle(width=(end - begin) * unit, height=pitch * 0.88 * unit, stroke_width=0)
                    cell.set_fill(colour, 1)
                    middle = ((begin + end) / 2 * unit, (box.y + (slot + 0.5) * pitch) * unit)
                    corner = np.array([-config.frame_width / 2, config.frame_height / 2, 0.0])
                    cell.move_to(corner + np.array([middle[0], -middle[1], 0.0]))
                    cells.append((int(steps.end_ns[step]), cell))
        else:
            grid = SlotGrid(run, Phrasebook(), colours)
            layer = Layer(lambda canvas: grid.paint(canvas, box, view, now[0]), run.trace.digest)
        seconds = 0.0
        for frame in range(NAIVE_FRAMES):
            now[0] = round(view.from_ns + (view.to_ns - view.from_ns) * (frame + 1) / NAIVE_FRAMES)
            shown = [VGroup(*(cell for end, cell in cells if end <= now[0]))] if naive else [layer]
            begin_s = time.perf_counter()
            renderer.camera.reset()
            renderer.camera.capture_mobjects(shown)
            seconds += time.perf_counter() - begin_s
        scene.clear()
    return {"seconds": seconds, "frames": NAIVE_FRAMES}


def table(found: dict[tuple[str, str, str], list[dict[str, float]]], rounds: int) -> str:
    """The results as Markdown."""
    lines = [
        "# Rendering",
        "",
        f"{_processor()}, {os.cpu_count()} threads; Python {platform.python_version()},"
        f" Manim {metadata.version('manim')}, PyAV {metadata.version('av')}; {datetime.date.today().isoformat()}.",
        f"Made by `python benchmarks/render.py --write`: medians of {rounds} renders in turns, lowest to highest.",
        "",
        "| scene | quality | film, s | rendered in, s | spread, s | film / render | ms a frame |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for (kind, scene, quality), runs in found.items():
        if kind != "film":
            continue
        taken = [run["seconds"] for run in runs]
        length, median = runs[0]["length"], statistics.median(taken)
        lines.append(
            f"| `{scene}` | {quality} | {length:.1f} | {median:.1f} | {min(taken):.1f} to {max(taken):.1f}"
            f" | {length / median:.2f}× | {1000 * median / runs[0]['frames']:.1f} |"
        )
    each = {
        kind: statistics.median(1000 * run["seconds"] / run["frames"] for run in found[kind, "", ""])
        for kind in ("layer", "naive")
    }
    lines += [
        "",
        "The continuous run's slot grid over all of its steps at 1080p, growing; drawing alone, nothing encoded:",
        "",
        "| drawn | ms a frame |",
        "|---|---:|",
        f"| one VMobject a slot and step | {each['naive']:.1f} |",
        f"| the replay layer | {each['layer']:.1f} |",
        f"| ratio | {each['naive'] / each['layer']:.1f}× |",
        "",
    ]
    return "\n".join(lines)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
