"""What the player costs: the page's size, and the processor time that a frame of it takes Chromium without a GPU.

    python benchmarks/player.py [--steps 1000000] [--trace FILE]

Pages of the film's two runs, of a GPU's 64 slots, and of a trace of many steps (made as benchmarks/trace_scale.py makes
it, or given). In each a zoom from the whole run down to single tokens and back, a drag along the run close up, and a
clock that moves are drawn, 200 frames of each. What counts is the processor time of the page's main thread, all of it
(script, drawing, layout), a frame: the rest of the machine may be busy. Prints the table of
benchmarks/results/player.md.
"""

import argparse
import platform
import shutil
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from tracereel.player.page import build_page
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS
from tracereel.trace.state.columns import Trace

ROOT = Path(__file__).resolve().parents[1]
ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
FRAMES = """([kind, count]) => new Promise((done) => {
  const { app } = tracereel, View = app.view.constructor, middle = app.length * 0.37;
  app.whole();
  if (kind === "drag") {
    const width = Math.max(app.length / 2000, app.lanes[0].axis.least * 200);
    app.look(new View(middle, middle + width));
  }
  let i = 0;
  const frame = () => {
    if (i++ >= count) return done();
    if (kind === "zoom") app.look(app.view.zoomed(i < count / 2 ? 0.88 : 1 / 0.88, middle));
    if (kind === "drag") app.look(app.view.moved(app.view.width / 50));
    if (kind === "play") app.goTo(app.clock.end * (0.2 + i / 4000));
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
})"""
COUNT = 200


def busy_s(session: Any) -> float:
    """Processor seconds that the page's main thread has worked."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))


def row(name: str, paths: Sequence[Path], browser: Any) -> str:
    """One line of the table."""
    traces = [Trace.read(path) for path in paths]
    begun = time.perf_counter()
    page_text = build_page(traces)
    made_s = time.perf_counter() - begun
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_text(page_text, "utf-8")
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        begun = time.perf_counter()
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready=true]", timeout=300_000)
        ready_s = time.perf_counter() - begun
        cells = []
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        for kind in ("zoom", "drag", "play"):
            before = busy_s(session)
            page.evaluate(FRAMES, [kind, COUNT])
            each_ms = 1000 * (busy_s(session) - before) / COUNT
            cells.append(f"{each_ms:.1f} | {1000 / each_ms:.0f}")
        page.close()
    steps = " + ".join(f"{len(trace.steps):,}" for trace in traces)
    slots = traces[0].header.slots
    size = len(page_text.encode())
    return f"| {name} | {steps} × {slots} | {size / 1000:,.0f} | {made_s:.1f} | {ready_s:.1f} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--trace", type=Path, help="a trace of many steps, instead of making one")
    args = parser.parse_args()
    film, h100 = PACKAGE_RECORDINGS / "film" / "cpu", ROOT / "tests" / "data" / "h100" / "film"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        many = args.trace
        if many is None:
            from trace_scale import generate

            many = Path(folder) / "many.jsonl"
            generate(many, args.steps)
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=list(ARGUMENTS))
        rows = [
            row("film, two runs", [film / "static-1.jsonl.zst", film / "continuous-1.jsonl.zst"], browser),
            row("H100, one run", [h100 / "continuous-1.jsonl.zst"], browser),
            row("many steps", [many], browser),
        ]
        version = browser.version
        browser.close()
    print(f"Chromium {version}, no GPU, {platform.processor() or platform.machine()}, {datetime.now(UTC).date()}\n")
    moved = " | ".join(f"{kind} ms | frames/s" for kind in ("zoom", "drag", "clock"))
    print(f"| page | steps × slots | kB | made in s | ready in s | {moved} |")
    print("|---|---|" + "--:|" * 9)
    print("\n".join(rows))


if __name__ == "__main__":
    main()
