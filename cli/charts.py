"""Two small drawings for a report, as SVG: ratios with their intervals, and a waterfall. Knows values; asks nothing."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tracereel.cli.html import escaped

if TYPE_CHECKING:
    from tracereel.trace.analysis.compare import Estimate
    from tracereel.trace.analysis.waterfall import Waterfall

_WIDTH, _LABELS, _ROW = 1000, 300, 26
_RIGHT = 150
"""Room for the figures at the right."""


def intervals(ratios: "Mapping[str, Estimate]") -> str:
    """Each ratio as a dot with the interval around it, on one logarithmic axis that holds 1; empty where none is."""
    if not ratios:
        return ""
    ends = [end for r in ratios.values() for end in (r.ratio, r.low, r.high) if end is not None and end > 0]
    low, high = min(*ends, 1 / 1.1), max(*ends, 1.1)
    room = _WIDTH - _LABELS - _RIGHT

    def x(ratio: float) -> float:
        return _LABELS + room * math.log(ratio / low) / math.log(high / low)

    parts = [_line(x(1), 0, x(1), _ROW * len(ratios), "var(--dim)", dashed=True)]
    for i, (name, ratio) in enumerate(ratios.items()):
        y = _ROW * (i + 0.5)
        colour = "var(--accent)" if ratio.moved else "var(--dim)"
        parts.append(_text(_LABELS - 14, y, name, "end"))
        if ratio.low is not None and ratio.high is not None and ratio.low > 0:
            parts.append(_line(x(ratio.low), y, x(ratio.high), y, colour, width=3))
        if ratio.ratio > 0:
            parts.append(f'<circle cx="{x(ratio.ratio):.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>')
        parts.append(_text(_WIDTH - _RIGHT + 20, y, f"{ratio.ratio:.2f}×"))
    parts.append(_text(x(1), _ROW * len(ratios) + 12, "1×: no change", "middle"))
    return _drawing(
        parts, len(ratios) + 1, "Ratios with their 95 % intervals; those whose interval leaves out one stand out"
    )


def waterfall(fall: "Waterfall") -> str:
    """Milliseconds an output token, from what it was to what it is, a bar for each part."""
    rows: list[tuple[str, float, float, str]] = [("as it was", 0.0, fall.before_ms, f"{fall.before_ms:.3f} ms")]
    at = fall.before_ms
    for part in fall.parts:
        rows.append((part.name, at, at - part.saved_ms, f"{-part.saved_ms:+.3f} ms"))
        at -= part.saved_ms
    rows.append(("as it is", 0.0, fall.after_ms, f"{fall.after_ms:.3f} ms"))
    ends = [end for _, *both, _ in rows for end in both]
    low, high = min(ends), max(ends)
    scale = (_WIDTH - _LABELS - _RIGHT) / ((high - low) or 1)
    parts = []
    for i, (name, begin, end, said) in enumerate(rows):
        y, left, right = _ROW * (i + 0.5), min(begin, end), max(begin, end)
        whole = i in (0, len(rows) - 1)
        colour = "var(--dim)" if whole else "var(--accent)" if end <= begin else "var(--warn)"
        parts.append(_text(_LABELS - 14, y, name, "end"))
        parts.append(
            f'<rect x="{_LABELS + (left - low) * scale:.1f}" y="{y - 8:.1f}" height="16" rx="2"'
            f' width="{max((right - left) * scale, 1.5):.1f}" fill="{colour}"/>'
        )
        parts.append(_text(_WIDTH - _RIGHT + 20, y, said))
    return _drawing(parts, len(rows), "Milliseconds an output token: as it was, what each cause changed, as it is")


def _drawing(parts: Sequence[str], rows: int, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_ROW * rows}" role="img" aria-label="{escaped(title)}">'
        + "".join(parts)
        + "</svg>"
    )


def _line(x: float, y: float, x2: float, y2: float, colour: str, width: int = 1, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="4 4"' if dashed else ""
    ends = f'x1="{x:.1f}" y1="{y:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"{dashes}/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y + 4.5:.1f}" text-anchor="{anchor}">{escaped(text)}</text>'
