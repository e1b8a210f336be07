"""Makes the project's page, docs/index.html with docs/site/ next to it: `python docs/site.py [FOLDER]`, or `make site`.

A static page for GitHub Pages that also opens from disk: the film of media/showcase, the table and the player of the
package's recordings, the notebook, and how to film an engine of one's own. Nothing in it is typed by hand that was
measured.
"""

import base64
import html
import json
import re
import runpy
import shutil
import sys
from pathlib import Path

from nbconvert import HTMLExporter
from tracereel.cli.main import main
from tracereel.film.ledger import ledger_path
from tracereel.film.provenance import read_stamp
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS

ROOT = Path(__file__).resolve().parents[1]
FILM = ROOT / "media" / "showcase" / "ContinuousBatching.mp4"
NOTEBOOK = ROOT / "examples" / "continuous_batching.ipynb"
NOTEBOOK_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>The notebook · tracereel</title>
{style}
<style>
.prompt, .anchor-link {{ display: none; }}
.k, .kn, .kc, .ow {{ color: var(--accent); }}
.c1, .sd {{ color: var(--dim); }}
</style>
</head>
<body>
<nav aria-label="Site"><a href="../index.html">tracereel</a><a href="{name}" download>Download the notebook</a></nav>
<main>
{cells}
</main>
</body>
</html>
"""
COMMANDS = """\
tracereel check my-runs                  # what must hold in a trace; each violation with its line
tracereel play my-runs --open            # in the browser
tracereel render --recordings my-runs    # as a film
tracereel report my-runs --out report.html
"""


def make(folder: Path) -> Path:
    """Write `folder/index.html` and `folder/site/`; returns the page's path."""
    beside = folder / "site"
    beside.mkdir(parents=True, exist_ok=True)
    for path in FILM.parent.glob(f"{FILM.stem}.*"):
        shutil.copyfile(path, beside / path.name)
    shutil.copyfile(NOTEBOOK, beside / NOTEBOOK.name)
    template = (ROOT / "docs" / "site.html").read_text("utf-8")
    (beside / "notebook.html").write_text(_notebook_page(template), "utf-8")
    # A film of an older version has its ledger in another form: the player does not name its seconds then.
    film = ("--film", str(FILM)) if ledger_path(FILM).is_file() else ()
    if code := main(("play", *film, "--out", str(beside / "player.html"))):
        raise SystemExit(code)
    page = template
    for name, markup in _parts().items():
        page = page.replace(f"@{name}@", markup)
    target = folder / "index.html"
    target.write_text(page, "utf-8")
    return target


def _parts() -> dict[str, str]:
    stamp = read_stamp(FILM)
    table_of = runpy.run_path(str(ROOT / "benchmarks" / "film_table.py"))["table"]
    tables = [table_of(folder) for folder in sorted((PACKAGE_RECORDINGS / "film").iterdir())]
    intro, *parts = _notebook()
    # From disk a browser reads no captions that lie in a file of their own.
    captions = base64.b64encode(FILM.with_suffix(".vtt").read_bytes()).decode()
    return {
        "captions": f"data:text/vtt;base64,{captions}",
        "device": html.escape(stamp["device"]),
        "model": html.escape(stamp["model"]),
        "tables": "\n".join(map(_table, tables)),
        "notebook": html.escape(intro),
        "parts": "".join(f"<li>{html.escape(part)}</li>" for part in parts),
        "emitter": html.escape((ROOT / "docs" / "emitter.py").read_text("utf-8")),
        "commands": html.escape(COMMANDS),
    }


def _notebook() -> list[str]:
    """What the notebook says of itself in its first paragraph, then the titles of its parts."""
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    titles = [line.removeprefix("## ") for text in texts for line in text.splitlines() if line.startswith("## ")]
    return [" ".join(texts[0].split("\n\n")[1].split()), *titles]


def _notebook_page(template: str) -> str:
    """The notebook to read without Jupyter, in the site's style; nothing in it is loaded from elsewhere."""
    cells, _ = HTMLExporter(template_name="basic").from_filename(str(NOTEBOOK))
    # What scrolls sideways can be reached by keyboard.
    cells = cells.replace("<pre>", '<pre tabindex="0">')
    style = re.search(r"<style>.*?</style>", template, re.DOTALL)
    assert style is not None
    return NOTEBOOK_PAGE.format(style=style[0], name=NOTEBOOK.name, cells=cells)


def _table(markdown: str) -> str:
    """A Markdown table, and the line below it that says on what machine, as HTML."""
    table, _, machine = markdown.rpartition("\n\n")
    head, _, *rows = ([cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines())
    titles = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{html.escape(first)}</th>' + "".join(f"<td>{html.escape(c)}</td>" for c in rest) + "</tr>"
        for first, *rest in rows
    )
    whole = f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
    region = f'<div class="scroll" tabindex="0" role="region" aria-label="Measured throughput">{whole}</div>'
    return f'{region}\n<p class="dim">{html.escape(machine)}</p>'


if __name__ == "__main__":
    print(make(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs"))
