"""Two `record` side by side against one alone, by how long OpenMP's threads spin before they sleep.

    python benchmarks/two_records.py [--rounds 3] [--requests 16] [--spin default --spin 0 ...] [--model MODEL]

A round records the same workload alone and then twice at the same time, under every setting in turn; the time of a
recording is that from its first step to its last, as its trace has it. `default` leaves GOMP_SPINCOUNT unset, and the
command's own value is not put in its place. Prints the table of benchmarks/results/two_records.md.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tracereel.trace.state.columns import Trace

WORKLOAD = """requests = {requests}
seed = 1
arrivals = {{ kind = "at once" }}
prompt_tokens = {{ kind = "fixed", mean = 16 }}
output_tokens = {{ kind = "fixed", mean = {output} }}
"""
OUTPUT_TOKENS = 24
# What the command does but for its own choice of a value.
COMMAND = "import sys; from tracereel.cli import openmp; openmp.yield_the_cores = lambda: None; " + (
    "from tracereel.cli.main import main; sys.exit(main(sys.argv[1:]))"
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--spin", action="append", help="`default` or a value of GOMP_SPINCOUNT; may be given again")
    parser.add_argument("--model", help="as `tracereel record` has it")
    args = parser.parse_args()
    spins = args.spin or ["default", "0", "1000", "10000"]
    alone: dict[str, list[float]] = {spin: [] for spin in spins}
    together: dict[str, list[float]] = {spin: [] for spin in spins}
    with tempfile.TemporaryDirectory() as below:
        folder = Path(below)
        (folder / "w.toml").write_text(WORKLOAD.format(requests=args.requests, output=OUTPUT_TOKENS))
        for number in range(args.rounds):
            for spin in spins[number % len(spins) :] + spins[: number % len(spins)]:
                alone[spin] += _recorded(folder, spin, args.model, 1)
                together[spin] += _recorded(folder, spin, args.model, 2)
    print(f"{_machine()}, {args.rounds} rounds of {args.requests} requests of {OUTPUT_TOKENS} tokens\n")
    print("| GOMP_SPINCOUNT | alone, s: median | all | side by side, s: median | all | side by side / alone |")
    print("|---|--:|---|--:|---|--:|")
    for spin in spins:
        one, two = statistics.median(alone[spin]), statistics.median(together[spin])
        print(f"| {spin} | {one:.2f} | {_list(alone[spin])} | {two:.2f} | {_list(together[spin])} | {two / one:.2f} |")


def _recorded(folder: Path, spin: str, model: str | None, count: int) -> list[float]:
    """Record so many times at once; the seconds of each."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    if spin != "default":
        environment["GOMP_SPINCOUNT"] = spin
    traces = [folder / f"{number}.jsonl" for number in range(count)]
    options = [
        "record",
        "--workload",
        str(folder / "w.toml"),
        "--device",
        "cpu",
        *(["--model", model] if model else []),
    ]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", COMMAND, *options, "--out", str(trace)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for trace in traces
    ]
    if any([process.wait() for process in processes]):  # noqa: C419 (each is waited for)
        raise SystemExit("a recording failed")
    seconds = [_seconds(Trace.read(trace)) for trace in traces]
    print(f"{spin}, {count} at once: {_list(seconds)} s", file=sys.stderr, flush=True)
    return seconds


def _seconds(trace: Trace) -> float:
    return float(trace.steps.end_ns[-1] - trace.steps.start_ns[0]) / 1e9


def _list(seconds: Sequence[float]) -> str:
    return ", ".join(f"{each:.2f}" for each in seconds)


def _machine() -> str:
    import torch
    from tracereel.engine.loading import device_info

    device = device_info(torch.device("cpu"))
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{device.name}, {device.threads} threads, {versions}, {datetime.now(UTC):%Y-%m-%d}"


if __name__ == "__main__":
    main()
