"""How reading grows with a trace: steps of 32 sequences through the real scheduler and the real recorder, then timed.

    python benchmarks/trace_scale.py [--steps 1000000] [--points 4] [--keep FOLDER]

No model runs: the scheduler batches requests of random lengths and every token is drawn at random, so the trace is a
valid one whose times mean nothing, and its header says so. Checking and inspecting are processes of their own, side by
side on two processors as `tracereel check T & tracereel inspect T` would be; their memory is the peak that the system
counted for them, of both together. `Timeline.at` is asked at 2,000 random instants for all that a state tells,
three times each with its caches emptied before; the least CPU time of the three counts, which leaves out what the
system did meanwhile and nothing of the answer. All other times are wall-clock. Prints the table of
benchmarks/results/trace_scale.md.
"""

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tracereel.engine.request import Samples
from tracereel.trace.analysis.registry import measured
from tracereel.trace.check.invariants import check
from tracereel.trace.format.events import SCHEMA_VERSION, EngineInfo, Header, ModelInfo, WorkloadInfo
from tracereel.trace.format.recorder import Recorder, start_clock
from tracereel.trace.recordings.index import read_header
from tracereel.trace.state.columns import Trace
from tracereel.trace.state.timeline import State, Timeline

if TYPE_CHECKING:
    from tracereel.engine.scheduler import StepPlan

SLOTS, VOCABULARY = 32, 49_152


class Dice:
    """In the model's place: every new token is drawn at random."""

    def __init__(self, rng: random.Random):
        self._rng = rng

    def execute(self, plan: "StepPlan") -> Samples:
        """One token for each member that samples."""
        return Samples([self._rng.randrange(VOCABULARY) for samples in plan.samples if samples])


class Words:
    """In the tokenizer's place: a word a token."""

    def text(self, token_id: int, last: bool = False) -> str:
        """The token's number as a word."""
        return f" w{token_id}"


def generate(path: Path, steps: int) -> None:
    """Record `steps` steps of a full batch: 96 to 512 prompt tokens, 64 to 320 output tokens, four requests waiting."""
    # Here alone: the engine brings torch, whose memory must not be counted where the reading is measured.
    import torch
    from tracereel.engine.config import EngineConfig
    from tracereel.engine.engine import Engine
    from tracereel.engine.loading import device_info
    from tracereel.engine.request import Request, SamplingParams

    rng = random.Random(0)
    config = EngineConfig(max_num_seqs=SLOTS, max_num_batched_tokens=512, num_blocks=2048, max_model_len=1024)
    header = Header(
        schema=SCHEMA_VERSION,
        engine=EngineInfo(name="benchmarks/trace_scale.py", version="1"),
        policy=config.policy,
        slots=SLOTS,
        token_budget=config.max_num_batched_tokens,
        kv_blocks=config.num_blocks,
        kv_block_tokens=config.block_size,
        model=ModelInfo(name="none: tokens drawn at random", weights="random", dtype="none"),
        device=device_info(torch.device("cpu")),
        workload=WorkloadInfo(name="random lengths"),
        clock=start_clock(),
    )
    with Recorder(path, header) as recorder:
        engine = Engine(Dice(rng), config, new_stream=Words, recorder=recorder)
        prompt_ids = tuple(range(512))
        requests = 0
        for _ in range(steps):
            while len(engine.scheduler.waiting) < 4:
                sampling = SamplingParams(max_tokens=rng.randint(64, 320))
                engine.add(Request(f"request-{requests}", prompt_ids[: rng.randint(96, 512)], sampling))
                requests += 1
            engine.step()


def measure_check(path: Path) -> dict[str, float]:
    started = time.perf_counter()
    report = check(path)
    seconds = time.perf_counter() - started
    assert report.ok, report
    return {"check_s": seconds}


def measure_inspect(path: Path) -> dict[str, float]:
    """All that `inspect` shows."""
    started = time.perf_counter()
    measured(Trace.read(path, tokens=False), {"ttft": 200.0, "tpot": 50.0})
    return {"inspect_s": time.perf_counter() - started}


def measure_timeline(path: Path) -> dict[str, float]:
    """`Timeline.at` at random instants."""
    timeline = Timeline(Trace.read(path, tokens=False))
    rng = random.Random(1)
    instants = [rng.randrange(timeline.end_ns) for _ in range(2001)]
    everything(timeline, instants.pop())  # what is made once, when it is first asked for
    took = sorted(min(answer_s(timeline, t_ns) for _ in range(3)) for t_ns in instants)
    return {
        "at_median_ms": took[len(took) // 2] * 1e3,
        "at_p999_ms": took[len(took) * 999 // 1000] * 1e3,
        "at_worst_ms": took[-1] * 1e3,
    }


def answer_s(timeline: Timeline, t_ns: int) -> float:
    timeline.token_times_of.cache_clear()
    started = time.thread_time()
    everything(timeline, t_ns)
    return time.thread_time() - started


def everything(timeline: Timeline, t_ns: int) -> None:
    state = State(timeline, t_ns)  # what `at` makes of an instant that it was not asked for just before
    _ = (state.waiting, state.occupancy, state.num_finished, state.num_running, state.kv_used, state.output_tokens)


def peak_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def make(path: Path) -> dict[str, float]:
    """Generate the trace whose name says how many steps it has."""
    generate(path, int(path.stem))
    return {}


PARTS: dict[str, Callable[[Path], dict[str, float]]] = {
    "generate": make,
    "check": measure_check,
    "inspect": measure_inspect,
    "timeline": measure_timeline,
}


def in_own_processes(parts: Sequence[str], path: Path) -> list[dict[str, float]]:
    """What each part finds, all at once, each in a process of its own."""
    commands = [[sys.executable, __file__, "--part", part, str(path)] for part in parts]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for command in commands
    ]
    found = []
    for process in running:
        out, error = process.communicate()
        if process.returncode:
            sys.exit(error)
        found.append(json.loads(out))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=1_000_000, help="steps of the longest trace")
    parser.add_argument("--points", type=int, default=4, help="how many lengths, each half of the next")
    parser.add_argument("--keep", type=Path, help="a folder to keep the traces in, and to take them from")
    parser.add_argument("--part", nargs=2, metavar=("PART", "TRACE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        part, path = args.part
        print(json.dumps(PARTS[part](Path(path)) | {"peak": peak_bytes()}))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        rows = [row(folder, args.steps >> shift) for shift in reversed(range(args.points))]
        device = read_header(folder / f"{args.steps}.jsonl").device.name
    print(f"{device}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}\n")
    head = ("steps", "file MB", "check s", "inspect s", "both at once s", "µs a step", "peak MB", "with timeline MB")
    print(f"| {' | '.join((*head, 'at(t) median ms', '99.9 % ms', 'worst ms'))} |")
    print("|--:" * (len(head) + 3) + "|")
    print("\n".join(rows))


def row(folder: Path, steps: int) -> str:
    path = folder / f"{steps}.jsonl"
    if not path.exists():
        in_own_processes(["generate"], path)
    check, inspect = in_own_processes(["check", "inspect"], path)
    (timeline,) = in_own_processes(["timeline"], path)
    both_s = max(check["check_s"], inspect["inspect_s"])
    cells = (
        f"{steps:,}",
        f"{path.stat().st_size / 1e6:,.0f}",
        f"{check['check_s']:.1f}",
        f"{inspect['inspect_s']:.1f}",
        f"{both_s:.1f}",
        f"{both_s / steps * 1e6:.1f}",
        f"{(check['peak'] + inspect['peak']) / 1e6:,.0f}",
        f"{timeline['peak'] / 1e6:,.0f}",
        f"{timeline['at_median_ms']:.2f}",
        f"{timeline['at_p999_ms']:.2f}",
        f"{timeline['at_worst_ms']:.2f}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
