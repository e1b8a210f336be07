"""The documentation: what it shows is what the commands print, and what it tells one to write works."""

import importlib
import importlib.util
import re
import sys
from pathlib import Path

import duckdb
import pytest
from tracereel.cli.main import build_parser, main
from tracereel.engine.suite import Suite

ROOT = Path(__file__).resolve().parents[1]


def _outputs():
    spec = importlib.util.spec_from_file_location("outputs", ROOT / "docs" / "outputs.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["outputs"] = module
    spec.loader.exec_module(module)
    return module


OUTPUTS = _outputs()
SHOWN = [block for block in OUTPUTS.blocks() if not block.of_machine and "--help" not in block.command]


@pytest.mark.parametrize("block", [b for b in SHOWN if b.command.startswith("tracereel")], ids=lambda b: b.command[:40])
def test_an_output_in_the_documentation_is_what_is_printed(block, tmp_path):
    assert OUTPUTS.output(block.command, tmp_path).split() == block.content.split(), "run `make docs`"


def test_every_command_and_option_is_documented():
    page = (ROOT / "docs" / "commands.md").read_text()
    commands = next(action for action in build_parser()._actions if action.dest == "command").choices
    for name, parser in commands.items():
        text = page.split(f"\n## {name}\n", 1)[1].split("\n## ")[0]
        options = {option for action in parser._actions for option in action.option_strings}
        assert options <= set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", text.replace(",", " ").replace("[", " "))), name
    assert re.findall(r"\n## (.+)", page) == list(commands)


def test_each_command_shows_a_real_output():
    shown = {block.command.split()[1] for block in OUTPUTS.blocks() if "--help" not in block.command}
    assert {"inspect", "compare", "diff", "plot", "export", "doctor"} <= shown
    for block in OUTPUTS.blocks():
        assert block.content.strip(), f"{block.page.name}: {block.command}: run `make docs`"


def test_the_documented_queries_run(film_recordings, tmp_path, monkeypatch):
    trace = film_recordings / "continuous-1.jsonl.zst"
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(trace), "--format", "parquet", "--out", "run"]) == 0
    (sql,) = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "analysis.md").read_text(), re.DOTALL)
    first, second = [query for query in sql.split(";") if query.strip()]
    sizes = duckdb.sql(first).fetchall()
    assert sizes
    assert all(steps > 0 and median > 0 for _, steps, median in sizes)
    slowest = duckdb.sql(second).fetchall()
    assert len(slowest) == 5
    assert [row[1] for row in slowest] == sorted((row[1] for row in slowest), reverse=True)


def test_the_documented_suite_is_one(tmp_path):
    (toml,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "suites.md").read_text(), re.DOTALL)
    (tmp_path / "mine.toml").write_text(toml)
    (tmp_path / "mine.jsonl").write_text('{"id": "a", "prompt": "x", "output_tokens": 3}\n')
    suite = Suite.read(tmp_path / "mine.toml")
    assert [case.name for case in suite.cases] == ["static", "continuous", "many-slots", "online"]
    assert suite.config(suite.cases[2]).max_num_seqs == 16


FOLDERS = ("engine", "trace", "film", "scenes", "player", "cli", "tests", "examples", "docs", "benchmarks")


OTHERS = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "trace/SCHEMA.md")


def anchors_of(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_what_the_pages_name_is_there():
    pages = (*OUTPUTS.PAGES, *(ROOT / name for name in OTHERS), *(ROOT / "benchmarks" / "results").glob("*.md"))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for path in re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`", text):
            assert "NAME" in path or (ROOT / path).exists(), f"{page.name}: {path}"
        for link, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text):
            target = page.parent / link if link else page
            assert target.exists(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors_of(target), f"{page.name}: {link}#{anchor}"


def test_the_readme_lists_every_scene():
    listed = re.findall(r"manim -pql scenes/(\w+)\.py", (ROOT / "README.md").read_text(encoding="utf-8"))
    cards = {"opening", "closing"}
    assert set(listed) | cards == {path.stem for path in (ROOT / "scenes").glob("*.py")} - {"__init__", "film_scene"}


@pytest.mark.slow
def test_what_may_be_imported_can_be():
    table = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split("## What may be imported")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| (.+?) \|", table, re.MULTILINE)
    assert len(rows) > 8
    for module, names in rows:
        for name in re.findall(r"`([\w.]+)`", names):
            found = importlib.import_module(module)
            for part in name.split("."):
                inner = f"{found.__name__}.{part}" if hasattr(found, "__path__") else ""
                found = getattr(found, part, None) or importlib.import_module(inner)
