"""How a figure looks: two themes, colours by case, sizes, and how it is written. Values and two functions."""

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import matplotlib
from matplotlib.figure import Figure
from matplotlib.text import Text
from tracereel.trace.format.atomic import replacing
from tracereel.trace.format.text import printable

FORMATS = ("svg", "png", "pdf")
WIDTH = 7.2
"""Inches: the text width of a page, or two columns."""
_DPI = 200
_LEGEND_CHARACTERS = 104
_MOST_CAVEATS = 4
_DASHES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Theme:
    """Colours of a figure; `cases` can be distinguished by people who see few colours (after Okabe and Ito, 2008)."""

    name: str
    ground: str
    ink: str
    dim: str
    line: str
    idle: str
    prefill: str
    cases: tuple[str, ...]

    def case(self, i: int) -> str:
        """The colour of the i-th case."""
        return self.cases[i % len(self.cases)]

    def dash(self, i: int) -> str:
        """The line style of the i-th case: another where the colours begin again."""
        return _DASHES[i // len(self.cases) % len(_DASHES)]


THEMES = {
    "light": Theme(
        "light",
        ground="#ffffff",
        ink="#1b212b",
        dim="#5d6878",
        line="#d7dce3",
        idle="#fae3db",
        prefill="#e0a100",
        cases=("#0072b2", "#d55e00", "#009e73", "#aa4499", "#777777"),
    ),
    "dark": Theme(
        "dark",
        ground="#10141b",
        ink="#edf1f7",
        dim="#9aa7bb",
        line="#2e3848",
        idle="#3d2420",
        prefill="#f2c14e",
        cases=("#58c4dd", "#f08a5d", "#8fd694", "#d6a0e8", "#a8b0bd"),
    ),
}


@contextmanager
def themed(theme: Theme) -> Iterator[None]:
    """Draw and save in here: with matplotlib's settings for the theme, and its own again after it."""
    settings: Any = {
        "figure.facecolor": theme.ground,
        "figure.constrained_layout.use": True,
        "savefig.facecolor": theme.ground,
        "axes.facecolor": theme.ground,
        "axes.edgecolor": theme.dim,
        "axes.labelcolor": theme.ink,
        "axes.titlecolor": theme.ink,
        "axes.titlesize": 9,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 8.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.line,
        "grid.linewidth": 0.6,
        "text.color": theme.ink,
        # A name from a trace is text: a dollar sign in it starts no formula.
        "text.parse_math": False,
        "xtick.color": theme.dim,
        "ytick.color": theme.dim,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8.5,
        "legend.frameon": False,
        "font.size": 8.5,
        "lines.linewidth": 1.6,
        "svg.hashsalt": "tracereel",
        "pdf.fonttype": 42,
    }
    with matplotlib.rc_context(settings):
        yield


def legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """One legend above all panels, where no data is; in as many rows as its words need."""
    rows = 1 + (sum(len(label) + 6 for label in labels) - 1) // _LEGEND_CHARACTERS
    columns = -(-len(labels) // rows)
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, handlelength=1.5)


def footnote(figure: Figure, text: str, caveats: Sequence[str], theme: Theme) -> None:
    """What was measured and what must be said of it, in small letters below; of many caveats the first few."""
    more = [f"and {len(caveats) - _MOST_CAVEATS} more traces of which something must be said"]
    lines = [text, *caveats[:_MOST_CAVEATS], *(more if len(caveats) > _MOST_CAVEATS else [])]
    small = "\n".join(textwrap.fill(line, 130) for line in lines)
    figure.supxlabel(small, fontsize=6.5, color=theme.dim, x=0.01, ha="left")


def write_figure(figure: Figure, path: Path) -> None:
    """Write the figure as its name ends, whole or not at all; the same figure gives the same bytes. Raises OSError."""
    with replacing(path) as part:
        save_figure(figure, part, path.suffix.removeprefix("."))


def save_figure(figure: Figure, target: Path | BinaryIO, kind: str) -> None:
    """The same into a file that is open, or into one that need not be whole; `kind` is one of FORMATS."""
    undated: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    for text in figure.findobj(Text):
        text.set_text("\n".join(map(printable, text.get_text().split("\n"))))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a box is drawn, and the text is in the trace
        figure.savefig(target, format=kind, dpi=_DPI, metadata=undated)
