"""Fills the commands' outputs into the documentation: `python docs/outputs.py`, or `make docs`.

In README.md and docs/*.md the text between `<!-- made by: COMMAND -->` and `<!-- end -->` is what COMMAND prints, run
where `trace` and `engine` are this repository's. `made here by` marks an output that depends on the machine; no test
compares it.
"""

import contextlib
import glob
import importlib.metadata
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_BLOCK = re.compile(r"(<!-- made (here )?by: (.+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One output in a page: its command, whether it depends on the machine, and its present text."""

    page: Path
    command: str
    of_machine: bool
    content: str


def blocks() -> Iterator[Block]:
    """Every output in the pages."""
    for page in PAGES:
        for found in _BLOCK.finditer(page.read_text()):
            yield Block(page, found[3], bool(found[2]), found[4])


def output(command: str, docs: Path) -> str:
    """The text for a command; files that it writes below `docs/` go to the folder `docs`."""
    if command.startswith("python "):
        done = subprocess.run([sys.executable, *command.split()[1:]], cwd=ROOT, stdout=subprocess.PIPE, check=True)
        return done.stdout.decode()
    from tracereel.cli.main import main

    before = Path.cwd()
    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        for room in ("trace", "engine"):
            (here / room).symlink_to(ROOT / room)
        (here / "docs").symlink_to(docs)
        os.chdir(here)
        try:
            words = [name for word in shlex.split(command)[1:] for name in _expanded(word)]
            # Progress goes to the error stream: it is no part of the output.
            errors = printed if "--dry-run" in words else io.StringIO()
            with contextlib.ExitStack() as stack:
                stack.enter_context(contextlib.redirect_stdout(printed))
                stack.enter_context(contextlib.redirect_stderr(errors))
                stack.enter_context(_columns(100))
                stack.enter_context(contextlib.suppress(SystemExit))  # --help leaves like this
                if main(words) == 2 and errors is not printed:  # the reason is on the error stream
                    printed.write(errors.getvalue())
        finally:
            os.chdir(before)
    text = printed.getvalue()
    # Wherever the packages are installed, in the environment or beyond it.
    packages = str(Path(str(importlib.metadata.distribution("msgspec").locate_file(""))).resolve())
    places = [(str(here.resolve()), "."), (packages, "site-packages"), (str(ROOT), "."), (sys.prefix, ".venv")]
    for place, name in [*places, (str(Path.home()), "~")]:
        text = text.replace(place, name)
    lines = [line.rstrip() for line in text.strip("\n").splitlines()]
    return "\n".join(["```console", f"$ {command}", *lines, "```", ""])


def _expanded(word: str) -> list[str]:
    """The files that a word matches, as in a shell."""
    return sorted(glob.glob(word)) or [word] if "*" in word else [word]


@contextlib.contextmanager
def _columns(width: int) -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(width)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def fill(page: Path) -> str:
    """The page with every output filled in again."""
    return _BLOCK.sub(lambda found: found[1] + output(found[3], ROOT / "docs") + found[5], page.read_text())


if __name__ == "__main__":
    for each in PAGES:
        text = fill(each)
        if text != each.read_text():
            each.write_text(text)
            print(f"{each.relative_to(ROOT)}: filled in")
