"""How long a film takes to verify: `python benchmarks/verify.py FILM [TRACES ...] [--write]`; prints a table.

Seconds by the clock, and of all processors together. `--write` puts them into benchmarks/results/verify.md.
"""

import argparse
import os
import platform
import resource
import sys
import time
from pathlib import Path

from tracereel.film.verification import Verdict, verify
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS

RESULT = Path(__file__).parent / "results" / "verify.md"


def measured(film: Path, traces: list[Path]) -> tuple[float, float, Verdict]:
    """Seconds by the clock, seconds of processors, and what was found."""
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    verdict = verify(film, traces)
    after, wall_s = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - begun
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, verdict


def report(film: Path, wall_s: float, busy_s: float, verdict: Verdict) -> str:
    """The result as Markdown."""
    return "\n".join(
        [
            "# Verifying",
            "",
            f"{os.cpu_count()} processors ({platform.machine()}), Python {platform.python_version()};"
            f" {time.strftime('%Y-%m-%d')}. Made by `python benchmarks/verify.py`.",
            "",
            "| film | frames | pictures compared | claims | faults | seconds | seconds of processors |",
            "|---|---:|---:|---:|---:|---:|---:|",
            f"| `{film.name}` | {verdict.frames:,} | {verdict.compared:,} | {verdict.claims:,} | {len(verdict.faults)}"
            f" | {wall_s:.1f} | {busy_s:.1f} |",
            "",
        ]
    )


def main() -> None:
    """Measure once, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("film", type=Path)
    parser.add_argument("traces", type=Path, nargs="*", default=[PACKAGE_RECORDINGS])
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name} too")
    asked = parser.parse_args()
    text = report(asked.film, *measured(asked.film, asked.traces))
    sys.stdout.write(text)
    if asked.write:
        RESULT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
