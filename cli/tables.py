"""Tables as a person reads them: on a terminal, as Markdown, or on another `Sheet`.

Whatever text is in them cannot act on any.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from tracereel.cli.terminal import Terminal, printable, say

PIPED_WIDTH = 160
"""Columns where the output is no terminal: there is no width to fit into."""


@dataclass(frozen=True)
class Table:
    """Rows of text under column names; the first column is to the left, the others to the right unless `left`."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: bool = False


def number(value: float | int | str | None, digits: int = 2) -> str:
    """A value as it stands in a table; a dash where there is none."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


class Sheet(Protocol):
    """What takes headings, tables and remarks, one below the other: a terminal, or a page for a browser."""

    def heading(self, text: str) -> None:
        """A line above what belongs to it."""

    def remark(self, text: str) -> None:
        """A line of explanation."""

    def warning(self, text: str) -> None:
        """A line that must not be missed."""

    def table(self, table: Table) -> None:
        """A table; nothing where it has no rows."""

    def gap(self) -> None:
        """Some room."""


class Page:
    """Prints headings, tables and remarks, one below the other."""

    def __init__(self, markdown: bool = False):
        self._markdown = markdown
        width = None if sys.stdout.isatty() else PIPED_WIDTH
        self._console = Terminal(width=width)

    def heading(self, text: str) -> None:
        """A line above what belongs to it."""
        if self._markdown:
            say(f"### {_markdown(text)}\n")
        else:
            self._console.print(printable(text), style="bold")

    def remark(self, text: str) -> None:
        """A line of explanation."""
        if self._markdown:
            say(f"{_markdown(text)}\n")
        else:
            self._console.print(printable(text), style="dim", soft_wrap=True)

    def warning(self, text: str) -> None:
        """A line that must not be missed."""
        if self._markdown:
            say(f"**{_markdown(text)}**\n")
        else:
            self._console.print(printable(text), style="yellow", soft_wrap=True)

    def table(self, table: Table) -> None:
        """A table; nothing where it has no rows."""
        if not table.rows:
            return
        if self._markdown:
            aligned = ["---", *["---" if table.left else "---:"] * (len(table.columns) - 1)]
            for row in (table.columns, aligned, *table.rows):
                cells = row if row is aligned else map(_markdown, row)
                say("| " + " | ".join(cells) + " |")
            say()
            return
        rich = RichTable(box=SIMPLE_HEAD if any(table.columns) else None, pad_edge=False, show_edge=False)
        rich.show_header = any(table.columns)
        for i, name in enumerate(table.columns):
            rich.add_column(printable(name), justify="left" if i == 0 or table.left else "right", overflow="fold")
        for row in table.rows:
            rich.add_row(*map(printable, row))
        self._console.print(rich)

    def gap(self) -> None:
        """An empty line."""
        if not self._markdown:
            say()


def _markdown(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", printable(text))
