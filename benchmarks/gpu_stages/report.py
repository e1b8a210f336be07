"""The results of the stages as Markdown: what was wanted and what was measured, then every figure and profile.

Knows JSON files and the table of targets. Imports neither torch nor the engine.
"""

import json
import statistics
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]
TARGETS = Path(__file__).resolve().parent.parent / "gpu_targets.toml"


@dataclass(frozen=True)
class Target:
    """A limit for the median of a figure's rounds, in `unit`; the figure is multiplied by `scale` to be in it."""

    what: str
    stage: str
    figure: str
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    spread_at_most: float | None = None
    scale: float = 1.0
    before: str = ""

    def __post_init__(self) -> None:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError(f"{self.what}: exactly one of at_most and at_least is needed")

    @property
    def wanted(self) -> str:
        """The limits as text."""
        limit = f"≤ {self.at_most:,g}" if self.at_most is not None else f"≥ {self.at_least:,g}"
        spread = f", spread ≤ {self.spread_at_most:g} %" if self.spread_at_most is not None else ""
        return f"{limit} {self.unit}{spread}"

    def met(self, values: list[float]) -> bool:
        """Do these values, in `unit`, keep the limits?"""
        middle = statistics.median(values)
        if self.spread_at_most is not None and 100 * (max(values) - min(values)) > self.spread_at_most * abs(middle):
            return False
        return middle <= self.at_most if self.at_most is not None else middle >= (self.at_least or 0.0)


def read_targets(file: Path = TARGETS) -> list[Target]:
    """The committed table. Raises ValueError."""
    return [Target(**own) for own in tomllib.loads(file.read_text())["wanted"]]


def spread(values: list[float]) -> str:
    """The median, and the lowest and the highest where there are several."""
    middle, low, high = (shown(value) for value in (statistics.median(values), min(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low}–{high})"


def shown(value: float) -> str:
    """A number with three digits or more."""
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def read_results(folder: Path) -> dict[str, Json]:
    """The results that are there, by stage."""
    return {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}


def wanted_table(targets: list[Target], results: Mapping[str, Json]) -> list[str]:
    """Each target and what was measured."""
    lines = ["| | wanted | measured | met | before |", "|---|---|---|---|---|"]
    for target in targets:
        values = results.get(target.stage, {}).get("figures", {}).get(target.figure)
        if values:
            scaled = [value * target.scale for value in values]
            rounds = "" if len(values) == 1 else f", n = {len(values)}"
            measured = f"{spread(scaled)} {target.unit}{rounds}"
            met = "yes" if target.met(scaled) else "**no**"
        else:
            measured, met = "not measured", "–"
        lines.append(f"| {target.what} | {target.wanted} | {measured} | {met} | {target.before or '–'} |")
    return lines


def report(folder: Path, outcomes: Mapping[str, str]) -> str:
    """All tables; `outcomes` says how each stage ended."""
    results = read_results(folder)
    devices = sorted({f"{r['device']}, driver {r['driver']}, torch {r['torch']}" for r in results.values()})
    dry = any(result["dry"] for result in results.values())
    lines = ["# The engine on a GPU", ""]
    if dry:
        lines += [
            "**A dry run: tiny models on a CPU, kernels interpreted. The stages run; the numbers mean nothing.**",
            "",
        ]
    lines += [
        "Made by `python benchmarks/gpu_session.py`. " + "; ".join(devices) + ".",
        "Medians, then the lowest and the highest of n rounds in which the variants took turns.",
        "",
        *wanted_table(read_targets(), results),
        "",
        "## Stages",
        "",
        "| stage | how it ended | clock, memory, most | °C | W |",
        "|---|---|---|---|---|",
    ]
    for name, outcome in outcomes.items():
        clocks = results.get(name, {}).get("clocks", {})
        rates = ", ".join(clocks.get(f"clocks.{part}", "–") for part in ("sm", "mem", "max.sm"))
        lines.append(
            f"| {name} | {outcome} | {rates} | {clocks.get('temperature.gpu', '–')} | {clocks.get('power.draw', '–')} |"
        )
    for name, result in results.items():
        lines += ["", f"## {name}", ""]
        if result.get("computes"):
            lines += [f"Computed by {result['computes']}.", ""]
        if not result["whole"]:
            lines += ["**Not whole: the stage was stopped; this is what it had.**", ""]
        lines += ["| | median (lowest–highest) | n |", "|---|---|---|"]
        lines += [f"| {figure} | {spread(values)} | {len(values)} |" for figure, values in result["figures"].items()]
        for title, tables in result.get("profiles", {}).items():
            for kind, rows in tables.items():
                lines += ["", f"{title}: {kind}", "", "| | µs a step | calls a step |", "|---|---:|---:|"]
                lines += [f"| `{key}` | {us:.1f} | {calls:.1f} |" for key, us, calls in rows]
    return "\n".join(lines) + "\n"
