"""How long the course notebook takes, every cell of it: `python benchmarks/notebook.py [--out EXECUTED.ipynb]`.

Runs examples/continuous_batching.ipynb in a folder of its own, where this machine records all that it shows, and prints
the table of benchmarks/results/notebook.md. Nothing else should run meanwhile.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import nbclient
import nbformat

NOTEBOOK = Path(__file__).resolve().parents[1] / "examples" / "continuous_batching.ipynb"


def execute(notebook: nbformat.NotebookNode) -> float:
    """Run all cells, whose outputs and times then stand in the notebook; the seconds that all of it took."""
    with tempfile.TemporaryDirectory() as folder:
        client = nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": folder}})
        begun = time.perf_counter()
        client.execute()
        return time.perf_counter() - begun


def cell_times(notebook: nbformat.NotebookNode) -> Iterator[tuple[str, float]]:
    """Each code cell by the heading above it, with its seconds."""
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = next((line.lstrip("# ") for line in cell.source.splitlines() if line.startswith("#")), heading)
        else:
            times = cell.metadata["execution"]
            begun, done = (datetime.fromisoformat(times[at]) for at in ("iopub.execute_input", "shell.execute_reply"))
            yield heading, (done - begun).total_seconds()


def processor() -> str:
    """The processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the notebook with its outputs there")
    args = parser.parse_args()
    notebook = nbformat.read(NOTEBOOK, 4)
    whole_s = execute(notebook)
    if args.out:
        nbformat.write(notebook, args.out)
    print("| cell | under the heading | seconds |")
    print("|--:|---|--:|")
    for number, (heading, seconds) in enumerate(cell_times(notebook), 1):
        print(f"| {number} | {heading} | {seconds:.1f} |")
    print(f"| | the whole notebook, its kernel's start included | {whole_s:.1f} |\n")
    print(f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {datetime.now(UTC).date()}.")


if __name__ == "__main__":
    main()
