"""`make site`: a page whose links lead somewhere, of the recordings and the film that are there, in a real browser."""

import html
import json
import re
import runpy
from pathlib import Path

import pytest
from tracereel.film.provenance import read_stamp
from tracereel.player import verify_page
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS

pytestmark = pytest.mark.long
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("nbconvert")
    return runpy.run_path(str(ROOT / "docs" / "site.py"))["make"](tmp_path_factory.mktemp("site"))


def test_every_link_leads_to_something_beside_the_page(site):
    page = site.read_text("utf-8")
    links = re.findall(r'(?:href|src|poster)="([^"]*)"', page)
    assert len(links) > 8
    for link in links:
        if link.startswith("data:"):
            continue
        if link.startswith("#"):
            assert f'id="{link[1:]}"' in page, link
        else:
            assert (site.parent / link).is_file(), link
    assert not re.search(r"@\w+@", page)


def test_what_it_says_is_the_films_and_the_recordings_own(site):
    page = site.read_text("utf-8")
    stamp = read_stamp(site.parent / "site" / "ContinuousBatching.mp4")
    assert f"Recorded on: {stamp['device']}" in page
    verdict = verify_page(site.parent / "site" / "player.html", [PACKAGE_RECORDINGS / "film"])
    assert verdict.figures
    assert not verdict.faults
    table_of = runpy.run_path(str(ROOT / "benchmarks" / "film_table.py"))["table"]
    lines = [line for folder in (PACKAGE_RECORDINGS / "film").iterdir() for line in table_of(folder).splitlines()]
    cells = [cell.strip(" `") for line in lines if line.startswith("| `") for cell in line.split("|")[1:-1]]
    assert cells
    for cell in cells:
        assert f">{cell}</t" in page


def test_the_notebook_can_be_read_on_its_page(site):
    cells = json.loads((ROOT / "examples" / "continuous_batching.ipynb").read_text("utf-8"))["cells"]
    page = (site.parent / "site" / "notebook.html").read_text("utf-8")
    assert not re.search(r"<script|https?://", page)
    read = " ".join(html.unescape(re.sub(r"<[^>]*>", "", page)).split())
    for cell in cells:
        text = "".join(cell["source"])
        words = text if cell["cell_type"] == "code" else re.search(r"^## (.+)", text, re.MULTILINE)
        if words:
            assert " ".join((words if isinstance(words, str) else words[1]).split()) in read


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_the_film_and_the_player_run_in_it(chromium, site, width, scheme):
    said = []
    with chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme) as context:
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(site.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.wait_for_function("document.querySelector('video').duration > 30")
        page.evaluate("document.querySelector('video').textTracks[0].mode = 'showing'")
        page.wait_for_function("() => document.querySelector('video').textTracks[0].cues?.length > 5")
        page.locator("iframe").scroll_into_view_if_needed()
        page.frame_locator("iframe").locator("html[data-ready=true]").wait_for(state="attached", timeout=20_000)
        page.goto((site.parent / "site" / "notebook.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.click("nav a >> nth=0")
        page.wait_for_url(site.as_uri())
    assert said == []
