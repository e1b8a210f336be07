"""What recording costs vLLM: `VLLM_PYTHON benchmarks/adapter_overhead.py MODEL_FOLDER [--write]`, alone on the machine.

One engine in this process, at 8 and at 256 sequences. Three things are measured:

- the tap: time that vLLM's own thread spends in the adapter, each call timed, in microseconds a step, and for arrivals
  in microseconds a request;
- the writer: processor time of the recorder's thread, which makes the records, detokenizes, encodes and compresses;
- what is left of it: the same prompts with recording and without, in turns, each pair's ratio of wall time.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
CASES = ((8, 96, 9), (256, 64, 5))
"""Sequences, output tokens of each, pairs of runs."""
PROMPT_TOKENS = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name} too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        rows = [measure(args.model, Path(place), *case) for case in CASES]
    text = report(rows)
    print(text)
    if args.write:
        RESULT.write_text(text + "\n")


def measure(model: Path, place: Path, sequences: int, tokens: int, pairs: int) -> dict[str, Any]:
    """One row of the table."""
    path = place / f"{sequences}.jsonl.zst"
    llm = LLM(
        str(model),
        dtype="bfloat16",
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
    time.sleep(1)
    cpu = thread_seconds(writer) - cpu_before
    scheduler.__class__ = traced
    scheduler._tap.close()
    assert check(path).ok
    steps = Trace.read(path).steps
    # The steps of the last `pairs` recorded runs, the full ones of them.
    full = steps.batch == sequences
    step_ms = float(statistics.median(((steps.end_ns - steps.start_ns)[full] / 1e6).tolist()))
    recorded_steps = sum(1 for name, _ in spent if name == "updated")
    arrivals = [ns for name, ns in spent if name == "arrived"]
    all_us = sum(ns for _, ns in spent) / recorded_steps / 1e3
    arrivals_us = sum(arrivals) / recorded_steps / 1e3
    return {
        "sequences": sequences,
        "step_ms": step_ms,
        "tap_us": all_us - arrivals_us,
        "arrival_us": sum(arrivals) / len(arrivals) / 1e3,
        "share": all_us / step_ms / 1e3,
        "writer_us": cpu / recorded_steps * 1e6,
        "ratios": ratios,
        "run_s": statistics.median(walls),
    }


def timed(tap: Any) -> list[tuple[str, int]]:
    """Time each call that vLLM's thread makes into the tap; returns the growing list of (call, nanoseconds)."""
    spent: list[tuple[str, int]] = []
    inside = False

    def wrap(name: str, call: Any) -> Any:
        def wrapped(*args: Any) -> Any:
            nonlocal inside
            if inside:
                return call(*args)
            inside, start = True, time.perf_counter_ns()
            result = call(*args)
            spent.append((name, time.perf_counter_ns() - start))
            inside = False
            return result

        return wrapped

    for name in ("counts", "arrived", "ended", "scheduled", "updated"):
        setattr(tap, name, wrap(name, getattr(tap, name)))
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
        "| sequences | step, ms | in vLLM's thread, µs a step | µs an arrival | both, of the step"
        " | writer's thread, µs a step | with / without, wall time | lowest to highest |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['sequences']} | {row['step_ms']:.1f} | {row['tap_us']:.1f} | {row['arrival_us']:.1f}"
        f" | {row['share']:.3%} | {row['writer_us']:.0f}"
        f" | {statistics.median(row['ratios']):.3f} (n = {len(row['ratios'])})"
        f" | {min(row['ratios']):.3f} to {max(row['ratios']):.3f} |"
        for row in rows
    ]
    lines += [
        "",
        f"{cpu_name()}, {os.cpu_count()} cores; vLLM {vllm.__version__}, torch {torch.__version__},"
        f" Python {platform.python_version()}; SmolLM2-135M, bf16; {datetime.now(UTC):%Y-%m-%d}.",
        "",
        "*Step* is the median of the full steps while recording. *In vLLM's thread* adds up all calls into the",
        "adapter over the steps, those of arrivals apart: they come with requests, not with steps. *With / without* is",
        "the median of pairs of runs made one right after the other; vLLM's front end runs in the same process here",
        "and shares its interpreter with the writer, which it does not when it serves.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
