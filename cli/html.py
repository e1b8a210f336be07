"""A report as one HTML file that needs no network: sections, tables, pictures, and pages of the player within it.

All text goes in escaped, and the file's policy lets nothing run but the player's own program. Knows HTML; not what is
reported.
"""

import base64
import html
from collections.abc import Mapping, Sequence

import msgspec
from tracereel.cli.tables import Table
from tracereel.player.page import digest_of, json_in_page
from tracereel.trace.format.text import printable

STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --panel: #f4f6f9; --text: #1b212b; --dim: #5d6878; --line: #d7dce3;
  --accent: #0072b2; --warn: #a34400; }
@media screen and (prefers-color-scheme: dark) { :root { --ground: #10141b; --panel: #181e27; --text: #edf1f7;
  --dim: #9aa7bb; --line: #2e3848; --accent: #58c4dd; --warn: #f08a5d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 20px 20px 48px; background: var(--ground); color: var(--text);
  font: 15px/1.5 Inter, system-ui, "Segoe UI", "Noto Sans", "Noto Sans SC", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 24px; margin: 0; }
h2 { font-size: 19px; margin: 40px 0 8px; padding-top: 12px; border-top: 1px solid var(--line); }
h3 { font-size: 16px; margin: 24px 0 8px; }
p { margin: 6px 0; }
a { color: var(--accent); }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 14px 0 0; }
.remark { color: var(--dim); font-size: 13.5px; }
.warning { color: var(--warn); font-weight: 600; }
.scroll { overflow-x: auto; margin: 10px 0; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 14px 3px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { color: var(--dim); font-weight: 600; }
th { text-align: left; font-weight: 500; white-space: nowrap; }
td, thead th:not(:first-child) { text-align: right; white-space: nowrap; }
table.left td, table.left thead th { text-align: left; white-space: normal; overflow-wrap: anywhere; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
figure { margin: 14px 0; overflow-x: auto; }
figure img, figure svg { max-width: 100%; min-width: 620px; height: auto; display: block; }
.dark { display: none !important; }
@media screen and (prefers-color-scheme: dark) { .dark { display: block !important; }
  .light { display: none !important; } }
svg text { font: 13px Inter, system-ui, sans-serif; fill: var(--text); }
iframe { width: 100%; height: 900px; border: 1px solid var(--line); border-radius: 6px; }
.paper { display: none; }
@media print { body { max-width: none; padding: 0; font-size: 11pt; } iframe, nav { display: none; }
  .paper { display: block; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; }
  figure img, figure svg { min-width: 0; max-height: 24cm; } .scroll, figure { overflow: visible; }
  table { font-size: 9pt; } td, th { white-space: normal; } }
"""


class HtmlPage:
    """Collects sections; the `Sheet` of a file for browsers."""

    def __init__(self, title: str, subtitle: str):
        self._title, self._subtitle = title, subtitle
        self._parts: list[str] = []
        self._sections: list[str] = []
        self._data: list[str] = []

    def section(self, title: str) -> None:
        """A part of the page that its table of contents names."""
        self._parts.append(f'<h2 id="section-{len(self._sections)}">{escaped(title)}</h2>')
        self._sections.append(title)

    def heading(self, text: str) -> None:
        """A line above what belongs to it."""
        self._parts.append(f"<h3>{escaped(text)}</h3>")

    def text(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(f"<p>{escaped(text)}</p>")

    def remark(self, text: str) -> None:
        """A line of explanation."""
        self._parts.append(f'<p class="remark">{escaped(text)}</p>')

    def warning(self, text: str) -> None:
        """A line that must not be missed."""
        self._parts.append(f'<p class="warning">{escaped(text)}</p>')

    def table(self, table: Table) -> None:
        """A table; nothing where it has no rows."""
        if not table.rows:
            return
        head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in table.columns)
        head = f"<thead><tr>{head}</tr></thead>" if any(table.columns) else ""
        rows = "".join(f"<tr>{_row(row)}</tr>" for row in table.rows)
        kind = ' class="left"' if table.left else ""
        # What scrolls sideways can be reached by keyboard.
        self._parts.append(
            f'<div class="scroll" tabindex="0" role="region" aria-label="table"><table{kind}>{head}'
            f"<tbody>{rows}</tbody></table></div>"
        )

    def data(self, name: str, value: msgspec.Struct) -> None:
        """Values for programs; a browser shows nothing of them."""
        self._data.append(f'<script type="application/json" id="{name}">{json_in_page(value)}</script>')

    def gap(self) -> None:
        """Nothing: the style leaves room."""

    def drawing(self, svg: str) -> None:
        """Markup of a drawing made here: not text of others."""
        self._parts.append(f'<figure tabindex="0">{svg}</figure>')

    def picture(self, name: str, kind: str, files: Mapping[str, bytes]) -> None:
        """A picture for a `light` ground and one for a `dark` one (`kind`: svg or png); in an image nothing runs."""
        mime = {"svg": "image/svg+xml", "png": "image/png"}[kind]
        images = (
            f'<img class="{theme}" src="data:{mime};base64,{base64.b64encode(file).decode()}" alt="{escaped(name)}">'
            for theme, file in files.items()
        )
        self._parts.append(f'<figure tabindex="0">{"".join(images)}</figure>')

    def frame(self, title: str, page: str) -> None:
        """A page of the player, in a sandbox of its own."""
        self._parts.append(
            f'<iframe srcdoc="{html.escape(page)}" title="{escaped(title)}"'
            ' sandbox="allow-scripts allow-downloads" allow="clipboard-write *" loading="lazy"></iframe>'
            '<p class="paper remark">The player is in the file of this report.</p>'
        )

    def file(self, *, scripts: Sequence[str], styles: Sequence[str]) -> str:
        """The whole file; its policy allows the scripts and styles with these digests, and the page's own style."""
        policy = (
            f"default-src 'none'; script-src {_sources(scripts)}; style-src {_sources([digest_of(STYLE), *styles])}; "
            "img-src data: blob:; base-uri 'none'; form-action 'none'"
        )
        links = "".join(f'<a href="#section-{i}">{escaped(title)}</a>' for i, title in enumerate(self._sections))
        return "\n".join(
            [
                "<!doctype html>",
                '<html lang="en"><head><meta charset="utf-8">',
                f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
                '<meta name="viewport" content="width=device-width, initial-scale=1">',
                '<meta name="referrer" content="no-referrer"><meta name="generator" content="tracereel">',
                f"<title>{escaped(self._title)}</title><style>{STYLE}</style></head><body>",
                f'<header><h1>{escaped(self._title)}</h1><p class="remark">{escaped(self._subtitle)}</p></header>',
                f'<nav aria-label="Contents">{links}</nav><main>',
                *self._parts,
                *self._data,
                "</main></body></html>\n",
            ]
        )


def escaped(text: str) -> str:
    """Text that a browser shows as it is, what cannot be seen by its sign."""
    return html.escape(printable(text))


def _row(cells: Sequence[str]) -> str:
    first, *rest = cells
    return f'<th scope="row">{escaped(first)}</th>' + "".join(f"<td>{escaped(cell)}</td>" for cell in rest)


def _sources(digests: Sequence[str]) -> str:
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
