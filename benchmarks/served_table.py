"""Prints what vLLM's own benchmark client saw and what the traces of its two replicas say of the same run.

`python benchmarks/served_table.py`. results/bench-serve.json is the client's result without its lists and its paths.
"""

import json
import tempfile
from pathlib import Path

from tracereel.trace.analysis.metrics import Distribution, Metrics
from tracereel.trace.analysis.queries import Run
from tracereel.trace.export.merge import merge
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS, traces_below

CLIENT = Path(__file__).resolve().parent / "results" / "bench-serve.json"
REPLICAS = PACKAGE_RECORDINGS / "replicas"


def metrics() -> Metrics:
    """The metrics of both replicas together."""
    with tempfile.TemporaryDirectory() as folder:
        merged = Path(folder) / "both.jsonl.zst"
        merge(traces_below(REPLICAS), merged)
        return Run.read(merged).metrics


def rows() -> list[tuple[str, float, float]]:
    """What is compared, at the client and in the traces; ms but for the first two."""
    client, traces = json.loads(CLIENT.read_text()), metrics()
    found = [
        ("output tokens", client["total_output_tokens"], traces.output_tokens),
        ("output tokens/s", client["output_throughput"], traces.output_throughput or 0.0),
    ]
    for name, values in (
        ("ttft", traces.ttft_ms),
        ("tpot", traces.tpot_ms),
        ("itl", traces.itl_ms),
        ("e2el", traces.e2el_ms),
    ):
        measured = Distribution.of(values)
        found.append((f"{name.upper()}, median, ms", client[f"median_{name}_ms"], measured.p50))
        found.append((f"{name.upper()}, 99 %, ms", client[f"p99_{name}_ms"], measured.p99))
    return found


def main() -> None:
    """Print the table as Markdown."""
    print("| | the client's | the traces' |\n|---|---:|---:|")
    for name, client, traces in rows():
        form = ",d" if isinstance(client, int) else ",.1f"
        print(f"| {name} | {client:{form}} | {traces:{form}} |")


if __name__ == "__main__":
    main()
