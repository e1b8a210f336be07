"""The player in a notebook: it shows itself, in a frame that reaches nothing else; the example notebook runs."""

import html
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tracereel.player import Film, PlayerError, build_page, film, show
from tracereel.trace.state.columns import Trace

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "continuous_batching.ipynb"


@pytest.mark.slow
def test_show_takes_files_folders_and_traces(film_recordings, tmp_path):
    paths = [film_recordings / f"{case}-1.jsonl.zst" for case in ("static", "continuous")]
    for path in paths:
        shutil.copy(path, tmp_path)
    by_files = show(*paths).page
    assert by_files == build_page([Trace.read(path) for path in paths])
    assert show(Trace.read(paths[0]), str(paths[1])).page == by_files
    assert show(tmp_path).page.count('id="columns-') == 2


def test_the_frame_holds_the_whole_page_and_plays_it(chromium, film_recordings, tmp_path):
    player = show(film_recordings / "continuous-1.jsonl.zst", height=700)
    frame = player._repr_html_()
    assert html.unescape(re.search(r'srcdoc="([^"]*)"', frame)[1]) == player.page
    assert 'sandbox="allow-scripts allow-downloads"' in frame
    file = tmp_path / "notebook.html"
    file.write_text(f"<!doctype html><body>{frame}</body>", "utf-8")
    page, said = chromium.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(file.as_uri())
    inside = page.frame_locator("iframe")
    inside.locator("html[data-ready=true]").wait_for(timeout=20_000)
    inside.locator("#play").click()
    inside.locator("#copy-link").click()
    inside.locator("#factor", has_not_text="held").wait_for(timeout=20_000)
    page.close()
    assert said == []


def test_a_player_is_still_there_after_nbconvert(chromium, film_recordings, tmp_path):
    nbformat, nbconvert = pytest.importorskip("nbformat"), pytest.importorskip("nbconvert")
    shown = {"text/html": show(film_recordings / "continuous-1.jsonl.zst")._repr_html_()}
    cell = nbformat.v4.new_code_cell("show(run)")
    cell.outputs = [nbformat.v4.new_output("display_data", shown)]
    converted, _ = nbconvert.HTMLExporter(template_name="basic").from_notebook_node(
        nbformat.v4.new_notebook(cells=[cell])
    )
    file = tmp_path / "notebook.html"
    file.write_text(f'<!doctype html><html lang="en"><meta charset="utf-8"><body>{converted}</body></html>', "utf-8")
    page = chromium.new_page()
    page.goto(file.as_uri())
    inside = page.frame_locator("iframe")
    inside.locator("html[data-ready=true]").wait_for(timeout=20_000)
    inside.locator("#longest-wait").click()
    inside.locator("#request").wait_for(state="visible")
    page.close()


@pytest.mark.slow
def test_a_film_shows_itself_and_a_scene_that_is_not_there_is_an_error(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"\x00\x01")
    assert 'src="data:video/mp4;base64,AAE="' in Film(path)._repr_html_()
    with pytest.raises(PlayerError, match="no_such_scene"):
        film("no_such_scene")


@pytest.mark.exhaustive  # all of its own work: benchmarks/results/notebook.md says how long it takes
def test_the_example_notebook_runs_and_computes_all_it_shows(model_file, tmp_path):
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("nbclient")
    source = nbformat.read(NOTEBOOK, 4)
    assert not any(cell.get("outputs") for cell in source.cells), "clear the outputs: they are of another machine"
    code = [cell.source for cell in source.cells if cell.cell_type == "code"]
    assert "sleep" not in "\n".join(code)
    command = [sys.executable, NOTEBOOK.parents[1] / "benchmarks" / "notebook.py", "--out", tmp_path / "done.ipynb"]
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(table)
    assert len(re.findall(r"^\| \d+ \| .+ \| \d+\.\d \|$", table, re.MULTILINE)) == len(code)
    notebook = nbformat.read(tmp_path / "done.ipynb", 4)
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    for size in (2, 4, 8, 16):
        assert re.search(rf"{size} slots: continuous over static \d", printed)
    assert re.search(r"continuous +\d+ steps by this rule, +\d+ in the recording", printed)
    for rate in (2, 8):
        assert re.search(rf"{rate}/s continuous +median TTFT +\d+ ms", printed)
    assert str(notebook).count("<iframe srcdoc=") == 2
