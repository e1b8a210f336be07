"""What recording costs: the engine with a recorder and without, in turns.

    python benchmarks/recorder.py [--pairs 7] [--steps 1000]

First the real model: output tokens a second of 16 sequences that decode side by side, in pairs of runs. Then the
engine's own thread at 256 sequences: the time of a step less the pass itself. The pass is stood in for by hashing a
few megabytes, which like a model's pass lets other threads run, so the recorder's thread gets in the way as it would;
its mean counts the steps in which it did. Prints the tables of benchmarks/results/recorder.md.
"""

import argparse
import hashlib
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from tracereel.engine.config import EngineConfig
from tracereel.engine.engine import Engine
from tracereel.engine.loading import LoadedModel, device_info, load_model
from tracereel.engine.model_store import require_model
from tracereel.engine.request import Request, Samples, SamplingParams
from tracereel.engine.runner import ModelRunner
from tracereel.engine.scheduler import StepPlan
from tracereel.trace.format.events import SCHEMA_VERSION, EngineInfo, Header, ModelInfo, WorkloadInfo
from tracereel.trace.format.recorder import Recorder, start_clock

SEQUENCES, OUTPUT_TOKENS = 16, 48
BATCHES = (16, 64, 256)
PROMPT = "Explain how a bicycle stays upright."
PASS_BYTES = 4 * 2**20


class Hashing:
    """In the model's place: some milliseconds of work that holds no lock, and the same token for everyone."""

    def __init__(self) -> None:
        self.spent_s = 0.0
        self._bytes = bytes(PASS_BYTES)

    def execute(self, plan: StepPlan) -> Samples:
        """One token for each member that samples."""
        started = time.perf_counter()
        hashlib.sha256(self._bytes).digest()
        samples = Samples([7] * sum(plan.samples))
        self.spent_s += time.perf_counter() - started
        return samples


class Word:
    """In the tokenizer's place: the same word for every token."""

    def text(self, token_id: int, last: bool = False) -> str:
        """A word."""
        return " word"


def real_run(loaded: LoadedModel, path: Path | None) -> float:
    """Output tokens a second of a batch that decodes side by side."""
    config = EngineConfig(max_num_seqs=SEQUENCES)
    runner = ModelRunner(loaded.model, config)
    recorder = Recorder(path, loaded.header(config, WorkloadInfo(name="one batch"))) if path else None
    engine = Engine(
        runner,
        config,
        new_stream=loaded.tokenizer.stream,
        end_ids=loaded.tokenizer.end_ids,
        recorder=recorder,
    )
    ids = tuple(loaded.tokenizer.encode_chat(PROMPT))
    for i in range(SEQUENCES):
        engine.add(Request(f"r{i}", ids, SamplingParams(max_tokens=OUTPUT_TOKENS, min_tokens=OUTPUT_TOKENS), PROMPT))
    started = time.perf_counter()
    while engine.has_work:
        engine.step()
    seconds = time.perf_counter() - started
    if recorder:
        recorder.close()
    return SEQUENCES * OUTPUT_TOKENS / seconds


class Bench:
    """An engine with `batch` sequences that decode on and on; `recorded` or not."""

    def __init__(self, batch: int, steps: int, path: Path | None):
        config = EngineConfig(
            max_num_seqs=batch,
            max_num_batched_tokens=16 * batch,
            num_blocks=batch * (steps // 16 + 8),
            max_model_len=8192,
        )
        header = Header(
            schema=SCHEMA_VERSION,
            engine=EngineInfo(name="benchmarks/recorder.py", version="1"),
            policy=config.policy,
            slots=batch,
            kv_blocks=config.num_blocks,
            kv_block_tokens=config.block_size,
            model=ModelInfo(name="none: the same token for everyone", weights="random", dtype="none"),
            device=device_info(torch.device("cpu")),
            workload=WorkloadInfo(name="decode on and on"),
            clock=start_clock(),
        )
        self.recorder = Recorder(path, header) if path else None
        self.hashing = Hashing()
        self.engine = Engine(self.hashing, config, new_stream=Word, recorder=self.recorder)
        for i in range(batch):
            self.engine.add(Request(f"r{i}", tuple(range(8)), SamplingParams(max_tokens=steps)))
        self.step_us()  # the prefill

    def step_us(self) -> float:
        """Time of one step on the engine's thread less the pass itself, in microseconds."""
        before, started = self.hashing.spent_s, time.perf_counter()
        self.engine.step()
        return (time.perf_counter() - started - (self.hashing.spent_s - before)) * 1e6


def thread_row(batch: int, steps: int, folder: Path) -> str:
    """The same steps with and without, twenty of each in turns."""
    plain, recorded = Bench(batch, steps, None), Bench(batch, steps, folder / f"{batch}.jsonl.zst")
    off: list[float] = []
    on: list[float] = []
    while len(on) < steps - 40:
        off += [plain.step_us() for _ in range(20)]
        on += [recorded.step_us() for _ in range(20)]
    assert recorded.recorder is not None
    recorded.recorder.abandon()
    extra = [statistics.mean(on[i : i + 20]) - statistics.mean(off[i : i + 20]) for i in range(0, len(on), 20)]
    low, _, high = statistics.quantiles(extra, n=4)
    cells: tuple[float, ...] = (statistics.median(off), statistics.median(on), statistics.mean(extra), low, high)
    return f"| {batch} | {len(on)} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |"


def pairs(runs: int, run: Callable[[bool], float]) -> tuple[list[float], list[float]]:
    """Runs without and with, in turns; who goes first changes."""
    off: list[float] = []
    on: list[float] = []
    for i in range(runs):
        for recorded in (bool(i % 2), not i % 2):
            (on if recorded else off).append(run(recorded))
    return off, on


def main() -> None:
    parser = argparse.ArgumentParser(description="What recording costs.")
    parser.add_argument("--pairs", type=int, default=7, help="pairs of runs with the real model")
    parser.add_argument("--steps", type=int, default=1000, help="steps of each kind at each batch size")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows = [thread_row(batch, args.steps, folder) for batch in BATCHES]
        loaded = load_model(require_model())
        real_run(loaded, None)
        off, on = pairs(args.pairs, lambda recorded: real_run(loaded, folder / "real.jsonl.zst" if recorded else None))
    ratios = [with_it / without for with_it, without in zip(on, off, strict=True)]
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    machine = f"{device_info(torch.device('cpu')).name}, {torch.get_num_threads()} threads"
    print(f"{machine}, {versions}, {datetime.now(UTC):%Y-%m-%d}")
    print("\nThe real model (SmolLM2-135M, 16 sequences decode side by side), runs in turns:\n")
    print("| | output tokens/s, median | lowest | highest | n |\n|---|--:|--:|--:|--:|")
    for name, runs in (("without", off), ("recorded", on)):
        print(f"| {name} | {statistics.median(runs):.1f} | {min(runs):.1f} | {max(runs):.1f} | {len(runs)} |")
    print(
        f"\nRecorded over without, each pair: median {statistics.median(ratios):.4f}, lowest {min(ratios):.4f}, highest"
        f" {max(ratios):.4f}.\n\nThe engine's thread, µs a step less the pass:\n"
    )
    print("| sequences | steps | without, median | recorded, median | extra, mean | quarter below | quarter above |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
