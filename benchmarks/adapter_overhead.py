"""What recording costs vLLM: `VLLM_PYTHON benchmarks/adapter_overhead.py MODEL_FOLDER [--write]`, alone on the machine.

One engine in this process, at 8 and at 256 sequences. Three things are measured:

- the tap: time that vLLM's own thread spends in the adapter, each call timed by the clock and by the thread's processor
  time, in microseconds a step, and for arrivals in microseconds a request;
- the writer: processor time of the recorder's thread, which makes the records, detokenizes, encodes and compresses;
- what is left of it: the same prompts with recording and without, in turns, each pair's ratio of wall time.

None of these but the last depends on the model's size. A tiny random one of `tests/engines/tiny_models.py` will do,
with `--dtype float32` on a CPU that has no instructions for bfloat16; the table says which model it was.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import vllm
from tracereel.trace.check.invariants import check
from tracereel.trace.format.identity import cpu_name
from tracereel.trace.state.columns import Trace
from vllm import LLM, SamplingParams

RESULT = Path(__file__).parent / "results" / "adapter_overhead.md"
CASES = ((8, 64, 5), (256, 48, 3))
"""Sequences, output tokens of each, pairs of runs."""
PROMPT_TOKENS = 16
_BEGUN_S = time.perf_counter()
CALLS = ("before", "counts", "arrived", "ended", "scheduled", "updated")
"""What vLLM's thread calls of the adapter."""


class Call(NamedTuple):
    """One call into the adapter: its name, and how long it took, in nanoseconds."""

    name: str
    wall_ns: int
    cpu_ns: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--dtype", default="bfloat16", help="bfloat16 if not said otherwise")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name} too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        rows = [measure(args.model, args.dtype, Path(place), *case) for case in CASES]
    text = report(rows)
    print(text)
    if args.write:
        RESULT.write_text(text + "\n")


def progress(what: str) -> None:
    """A line that says how far it is."""
    print(f"{time.perf_counter() - _BEGUN_S:6.0f} s  {what}", file=sys.stderr, flush=True)


def measure(model: Path, dtype: str, place: Path, sequences: int, tokens: int, pairs: int) -> dict[str, Any]:
    """One row of the table."""
    path = place / f"{sequences}.jsonl.zst"
    progress(f"{sequences} sequences: loading")
    llm = LLM(
        str(model),
        dtype=dtype,
        max_model_len=256,
        max_num_seqs=sequences,
        max_num_batched_tokens=max(512, sequences * 4),
        enable_prefix_caching=False,
        disable_log_stats=True,
        scheduler_cls="tracereel.engine.adapters.vllm.scheduler",
        additional_config={"tracereel": {"path": str(path)}},
    )
    scheduler = llm.llm_engine.engine_core.engine_core.scheduler
    traced, plain = type(scheduler), type(scheduler).__mro__[1]
    spent = timed(scheduler._tap)
    writer = scheduler._tap._recorder._thread.native_id
    progress(f"{sequences} sequences: warming up")
    answer(llm, sequences, tokens)
    spent.clear()
    cpu_before = thread_seconds(writer)
    ratios, walls = [], []
    for pair in range(pairs):
        seconds = {}
        for recorded in (True, False) if pair % 2 else (False, True):
            scheduler.__class__ = traced if recorded else plain
            seconds[recorded] = answer(llm, sequences, tokens)
        ratios.append(seconds[True] / seconds[False])
        walls.append(seconds[False])
        progress(f"{sequences} sequences: pair {pair + 1} of {pairs}, {walls[-1]:.1f} s without recording")
    time.sleep(1)
    cpu = thread_seconds(writer) - cpu_before
    scheduler.__class__ = traced
    info = scheduler._tap._recorder.header.model
    scheduler._tap.close()
    assert check(path).ok
    steps = Trace.read(path).steps
    # The steps of the last `pairs` recorded runs, the full ones of them.
    full = steps.batch == sequences
    step_ms = float(statistics.median(((steps.end_ns - steps.start_ns)[full] / 1e6).tolist()))
    arrivals = [call for call in spent if call.name == "arrived"]
    tapped = by_step(spent)
    return {
        "model": f"{info.name}{'' if info.weights == 'real' else ' (random weights)'}, {info.dtype}",
        "sequences": sequences,
        "step_ms": step_ms,
        "steps": len(tapped),
        "median_us": statistics.median(wall_ns for wall_ns, _ in tapped) / 1e3,
        "mean_us": statistics.mean(wall_ns for wall_ns, _ in tapped) / 1e3,
        "cpu_us": statistics.mean(cpu_ns for _, cpu_ns in tapped) / 1e3,
        "arrival_us": statistics.median(call.wall_ns for call in arrivals) / 1e3,
        "arrival_cpu_us": statistics.mean(call.cpu_ns for call in arrivals) / 1e3,
        "writer_us": cpu / len(tapped) * 1e6,
        "ratios": ratios,
        "run_s": statistics.median(walls),
    }


def by_step(spent: list[Call]) -> list[tuple[int, int]]:
    """(nanoseconds by the clock, of processor time) that each step's calls took; a step ends with `updated`."""
    steps, wall_ns, cpu_ns = [], 0, 0
    for call in spent:
        if call.name != "arrived":
            wall_ns, cpu_ns = wall_ns + call.wall_ns, cpu_ns + call.cpu_ns
        if call.name == "updated":
            steps.append((wall_ns, cpu_ns))
            wall_ns = cpu_ns = 0
    return steps


def timed(tap: Any) -> list[Call]:
    """Time each call that vLLM's thread makes into the tap; returns the growing list of calls.

    What reading the clocks takes is subtracted: the least that a call of nothing was measured with.
    """
    spent: list[Call] = []
    inside = False

    def wrap(name: str, call: Any, clocks: Call) -> Any:
        def wrapped(*args: Any) -> Any:
            nonlocal inside
            if inside:
                return call(*args)
            inside, cpu, wall = True, time.thread_time_ns(), time.perf_counter_ns()
            result = call(*args)
            wall, cpu = time.perf_counter_ns() - wall, time.thread_time_ns() - cpu
            spent.append(Call(name, wall - clocks.wall_ns, cpu - clocks.cpu_ns))
            inside = False
            return result

        return wrapped

    nothing = wrap("nothing", lambda: None, Call("", 0, 0))
    for _ in range(1000):
        nothing()
    clocks = Call("clocks", min(call.wall_ns for call in spent), min(call.cpu_ns for call in spent))
    spent.clear()
    for name in CALLS:
        setattr(tap, name, wrap(name, getattr(tap, name), clocks))
    return spent


def answer(llm: LLM, sequences: int, tokens: int) -> float:
    """Seconds for one batch of prompts."""
    prompts: Any = [
        {"prompt_token_ids": [100 + (37 * i + 11 * j) % 40_000 for j in range(PROMPT_TOKENS)]} for i in range(sequences)
    ]
    sampling = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
    start = time.perf_counter()
    llm.generate(prompts, sampling, use_tqdm=False)
    return time.perf_counter() - start


def thread_seconds(native_id: int) -> float:
    """Processor time of one of this process's threads so far."""
    fields = Path(f"/proc/self/task/{native_id}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(rows: list[dict[str, Any]]) -> str:
    """The table as Markdown."""
    lines = [
        "# What recording costs vLLM",
        "",
        "Made by `benchmarks/adapter_overhead.py --write`.",
        "",
        "| sequences | step, ms | steps | in vLLM's thread, µs a step: median | mean | processor time, mean"
        " | µs an arrival: median | processor time, mean | writer's thread, µs a step"
        " | with / without, wall time | lowest to highest |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['sequences']} | {row['step_ms']:.1f} | {row['steps']} | {row['median_us']:.1f} | {row['mean_us']:.1f}"
        f" | {row['cpu_us']:.1f} | {row['arrival_us']:.1f} | {row['arrival_cpu_us']:.1f} | {row['writer_us']:.0f}"
        f" | {statistics.median(row['ratios']):.3f} (n = {len(row['ratios'])})"
        f" | {min(row['ratios']):.3f} to {max(row['ratios']):.3f} |"
        for row in rows
    ]
    lines += [
        "",
        f"{cpu_name()}, {os.cpu_count()} cores; vLLM {vllm.__version__}, torch {torch.__version__},"
        f" Python {platform.python_version()}; {rows[0]['model']}; {datetime.now(UTC):%Y-%m-%d}.",
        "",
        "*Step* is the median of the full steps while recording. *In vLLM's thread* adds up a step's calls into the",
        "adapter, arrivals apart: they come with requests, not with steps. By the clock, a call's time holds what else",
        "the machine and the interpreter's other threads did meanwhile; its processor time does not. *With / without*",
        "is the median of pairs of runs made one right after the other; vLLM's front end runs in the same process here",
        "and shares its interpreter with the writer, which it does not when it serves: the smaller the model, the more",
        "of a step that is.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
