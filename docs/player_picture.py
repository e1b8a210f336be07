"""Draws the README's picture of the player from the package's recordings: `python docs/player_picture.py`.

Needs Chromium on the path and playwright. The picture is the page as a reader sees it: both runs on one clock, at the
instant at which the faster one is done; without the language button, for whose characters a machine may lack a face.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright
from tracereel.cli.main import main

PICTURE = Path(__file__).with_name("plots") / "player.png"
SIZE = {"width": 1440, "height": 1000}
_AT = """() => {
  const { app } = tracereel;
  app.goTo(Math.min(...app.lanes.map((lane) => lane.run.endNs)));
  app.whole();
  document.getElementById("language").hidden = true;
}"""


def draw(target: Path) -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        file = Path(folder) / "player.html"
        if code := main(("play", "--out", str(file))):
            raise SystemExit(code)
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_context(viewport=SIZE, color_scheme="dark").new_page()
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready=true]")
        page.evaluate(_AT)
        page.wait_for_timeout(500)
        page.screenshot(path=target)
        browser.close()


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE)
