"""Prints the README's tables of the film's recordings, one a device: `python benchmarks/film_table.py [FOLDER ...]`."""

import sys
from pathlib import Path

from tracereel.trace.analysis.model_words import named_model
from tracereel.trace.analysis.queries import Run, measure, median_of
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS, RecordingIndex

CASES = ("static", "same-position", "continuous")


def table(folder: Path) -> str:
    """The table as Markdown."""
    index = RecordingIndex(folder)
    runs = {case: [Run(recording.read()) for recording in index.case(case)] for case in CASES}
    base = runs["static"]
    lines = [
        "| policy | output tokens/s | against static | lowest to highest | steps | idle slot-steps |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for case in CASES:
        shown = median_of(runs[case])
        ratio = {
            part: measure(f"throughput_ratio_{part}", [*runs[case], *base], numerator=len(runs[case])).value
            for part in ("median", "low", "high", "pairs")
        }
        idle = shown.measure("idle_slot_steps", t_ns=shown.timeline.end_ns).value
        spread = f"{ratio['low']:.2f}× to {ratio['high']:.2f}×" if case != "static" else "–"
        lines.append(
            f"| `{case}` | {shown.measure('output_throughput').value:,.0f} | {ratio['median']:.2f}× | {spread}"
            f" | {shown.measure('num_steps').value:,} | {idle:,} |"
        )
    header = base[0].trace.header
    threads = f", {header.device.threads} threads" if header.device.threads else ""
    lines.append("")
    lines.append(
        f"{header.device.name}{threads}; {named_model(header.model)}; {header.slots} slots,"
        f" {len(base[0].trace.arrivals)} requests; {len(base)} interleaved repeats;"
        f" refill ceiling {base[0].metrics.refill_ceiling:.2f}×."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    folders = [Path(name) for name in sys.argv[1:]] or sorted((PACKAGE_RECORDINGS / "film").iterdir())
    print("\n\n".join(map(table, folders)))
