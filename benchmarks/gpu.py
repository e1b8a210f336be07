"""The engine on a CUDA GPU, against what the device itself can do and against targets set beforehand.

    python benchmarks/gpu.py --out FOLDER [--only STAGE ...] [--azure FILE]

Each stage measures one thing and writes FOLDER/STAGE.json; a stage whose file is there is not run again. At the end
FOLDER/gpu.md has the tables: medians and spread of rounds in which the variants took turns, the device's rates measured
in the same session, its clocks before and after, and each target beside what was measured, met or not.
"""

import argparse
import csv
import json
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from tracereel.engine.accelerator import ask_driver, require_cuda
from tracereel.engine.config import EngineConfig
from tracereel.engine.device_runner import DeviceRunner
from tracereel.engine.engine import Engine
from tracereel.engine.layer_ops import ATTENTIONS, make_device_layer_ops
from tracereel.engine.loading import LoadedModel, device_info, load_model
from tracereel.engine.memory import sized
from tracereel.engine.model_config import ModelConfig
from tracereel.engine.request import Request, SamplingParams
from tracereel.engine.runner import InFlightStep
from tracereel.engine.scheduler import StepPlan
from tracereel.engine.suite import Case, Suite, record_suite, suite_named
from tracereel.trace.analysis.queries import Run, measure, median_of
from tracereel.trace.analysis.waterfall import waterfall
from tracereel.trace.format.events import WorkloadInfo
from tracereel.trace.format.recorder import Recorder
from tracereel.trace.format.storage import replace_text

from engine import Rival, spread

ROUNDS = 5
STEPS = 60
CLOCKS = ("clocks.sm", "clocks.mem", "clocks.max.sm", "temperature.gpu", "power.draw")
Json = dict[str, Any]


def progress(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


# What a step is timed with.


@dataclass
class Watched:
    """A runner that keeps what the device says of each step."""

    runner: DeviceRunner
    device_ns: list[int] = field(default_factory=list)
    gap_ns: list[int] = field(default_factory=list)

    def execute(self, plan: StepPlan) -> Any:
        """Run one step."""
        return self.launch(plan).wait()

    def launch(self, plan: StepPlan) -> InFlightStep:
        """Give a step to the device."""
        flight = self.runner.launch(plan)

        class Landing:
            def wait(landing) -> Any:  # noqa: N805
                samples = flight.wait()
                self.device_ns.append(samples.device_ns or 0)
                self.gap_ns.append(samples.device_gap_ns or 0)
                return samples

        return Landing()


def make_runner(loaded: LoadedModel, config: EngineConfig, attentions: tuple[str, ...] = ATTENTIONS) -> DeviceRunner:
    kernels = make_device_layer_ops(loaded.model.shape, config.num_blocks + 1, config.block_size, attentions)
    if kernels is None:
        sys.exit("gpu.py: Triton is not installed; the engine's path for CUDA needs it")
    return DeviceRunner(loaded.model, config, kernels)


def requests_of(loaded: LoadedModel, lengths: list[tuple[int, int]], seed: int) -> list[Request]:
    """Random prompts of these lengths, with exactly so many output tokens."""
    rng, most = random.Random(seed), loaded.model.config.vocabulary
    return [
        Request(
            str(i),
            tuple(rng.randrange(most) for _ in range(prompt)),
            SamplingParams(max_tokens=output, min_tokens=output, ignore_eos=True),
        )
        for i, (prompt, output) in enumerate(lengths)
    ]


def steady(
    loaded: LoadedModel, runner: DeviceRunner, config: EngineConfig, rows: int, context: int, recorder: Any = None
) -> Json:
    """`rows` sequences that decode around `context` tokens: a step's time on the device, its gap, all of it; us."""
    watched = Watched(runner)
    engine = Engine(watched, config, new_stream=loaded.tokenizer.stream, recorder=recorder)
    start = max(1, context - STEPS // 2)
    for request in requests_of(loaded, [(start, STEPS + 12 + 2 * rows)] * rows, rows):
        engine.add(request)
    while len(engine.scheduler.running) < rows or any(sequence.prefills for sequence in engine.scheduler.running):
        engine.step()
    for _ in range(4):
        engine.step()
    watched.device_ns.clear()
    watched.gap_ns.clear()
    begin = time.perf_counter()
    for _ in range(STEPS):
        engine.step()
    took = (time.perf_counter() - begin) / STEPS
    while engine.has_work:
        engine.step()
    return {
        "device_us": statistics.median(watched.device_ns[:STEPS]) / 1e3,
        "gap_us": statistics.median(watched.gap_ns[:STEPS]) / 1e3,
        "wall_us": took * 1e6,
    }


def steady_rounds(loaded: LoadedModel, points: list[tuple[int, int]], budget: int, attentions=ATTENTIONS) -> Json:
    """Every (rows, context), in turns: lists over the rounds."""
    most, longest = max(rows for rows, _ in points), max(context for _, context in points)
    config = EngineConfig(
        max_num_seqs=most,
        max_num_batched_tokens=budget,
        max_model_len=min(loaded.model.config.context, longest + 2 * STEPS + 2 * most + 16),
    )
    config = sized(config, loaded.model)
    runner = make_runner(loaded, config, attentions)
    found: Json = {f"{rows}x{context}": [] for rows, context in points}
    for turn in range(-1, ROUNDS):
        for rows, context in points:
            progress(f"{rows} sequences of {context} tokens, round {turn + 1} of {ROUNDS}")
            result = steady(loaded, runner, config, rows, context)
            if turn >= 0:
                found[f"{rows}x{context}"].append(result)
    return {"kernels": runner.attention_name, "points": found}


def weight_bytes(model_config: ModelConfig) -> int:
    """What a decode step reads of the weights at least: all but an embedding that is only looked up."""
    looked_up = 0 if model_config.tied else model_config.vocabulary * model_config.hidden
    return 2 * (model_config.parameters - looked_up)


def kv_bytes(model_config: ModelConfig, tokens: int) -> int:
    return 2 * 2 * model_config.layers * model_config.kv_heads * model_config.head_dim * tokens


def prefill_operations(model_config: ModelConfig, tokens: int) -> int:
    """Multiplications and additions of a prompt's products and causal attention, the head for one token."""
    embedding = model_config.vocabulary * model_config.hidden
    matrices = model_config.parameters - embedding * (1 if model_config.tied else 2)
    attention = model_config.layers * 2 * model_config.heads * model_config.head_dim * tokens * (tokens + 1)
    return 2 * matrices * tokens + attention + 2 * embedding


# Stages.


def ceilings(args: argparse.Namespace) -> Json:
    """What the device does at most: copies within its memory, and bf16 matrix products, on random data."""
    device = torch.device("cuda")
    source = torch.randint(0, 255, (2**32,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device=device) for _ in range(2))
    copies, products = [], []
    for turn in range(-1, ROUNDS):
        copy_s = timed(lambda: target.copy_(source), 10)
        product_s = timed(lambda: a @ b, 20)
        if turn >= 0:
            copies.append(2 * source.numel() / copy_s)
            products.append(2 * 8192**3 / product_s)
    return {"copy_bytes_per_s": copies, "product_flops": products}


def timed(work: Callable[[], Any], times: int) -> float:
    """Seconds of device time, the mean of `times`."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    work()
    begin.record()
    for _ in range(times):
        work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / times


def smollm2(args: argparse.Namespace) -> Json:
    """Decode steps of the small model by batch size, and the kernels where the time goes."""
    loaded = load_model("random:SmolLM2-135M", "cuda", "bf16")
    result = steady_rounds(loaded, [(rows, 256) for rows in (1, 8, 32, 64, 128, 256)], 8192)
    return {**result, "profile": profile(loaded, 32, 256)}


def llama8b(args: argparse.Namespace) -> Json:
    """Decode and prefill of a large geometry, and the kernels where the time goes."""
    loaded = load_model("random:Llama-3.1-8B", "cuda", "bf16")
    result = steady_rounds(loaded, [(1, 256), (64, 256), (64, 1024)], 4096)
    config = EngineConfig(max_num_seqs=1, max_num_batched_tokens=4096, max_model_len=4112, num_blocks=257)
    runner = make_runner(loaded, config)
    prefill = []
    for turn in range(-2, ROUNDS):
        watched = Watched(runner)
        engine = Engine(watched, config, new_stream=loaded.tokenizer.stream)
        engine.add(requests_of(loaded, [(4096, 1)], turn)[0])
        while engine.has_work:
            engine.step()
        if turn >= 0:
            prefill.append(watched.device_ns[0] / 1e3)
    return {**result, "prefill_us": prefill, "profile": profile(loaded, 64, 1024)}


def attention(args: argparse.Namespace) -> Json:
    """The attentions that can be had here, on the same steps; blocks of 256 tokens, which a library may want."""
    loaded = load_model("random:Llama-3.2-1B", "cuda", "bf16")
    found: Json = {}
    for name in ATTENTIONS:
        try:
            found[name] = steady_rounds(loaded, [(1, 4096), (32, 1024)], 4096, (name,))["points"]
        except Exception as error:
            found[name] = (str(error) or type(error).__name__).splitlines()[0]
    return found


def profile(loaded: LoadedModel, rows: int, context: int) -> list[list[Any]]:
    """The kernels of some decode steps by their share: name, microseconds a step, calls a step."""
    config = EngineConfig(max_num_seqs=rows, max_num_batched_tokens=4096, max_model_len=context + 3 * STEPS + 2 * rows)
    config = sized(config, loaded.model, 0.5)
    runner = make_runner(loaded, config)
    engine = Engine(runner, config, new_stream=loaded.tokenizer.stream)
    for request in requests_of(loaded, [(context, STEPS + 2 * rows)] * rows, 0):
        engine.add(request)
    while len(engine.scheduler.running) < rows or any(sequence.prefills for sequence in engine.scheduler.running):
        engine.step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(10):
            engine.step()
        torch.cuda.synchronize()
    while engine.has_work:
        engine.step()
    rows_of = sorted(profiler.key_averages(), key=lambda event: -event.self_device_time_total)
    return [[e.key[:70], e.self_device_time_total / 10, e.count / 10] for e in rows_of[:14]]


def qwen3(args: argparse.Namespace) -> Json:
    """nano-vllm's workload (256 requests, prompt and output each uniform 100 to 1,024, seed 0) beside transformers."""
    rng = random.Random(0)
    prompts = [[rng.randint(0, 10_000) for _ in range(rng.randint(100, 1024))] for _ in range(256)]
    job = {"prompts": prompts, "lengths": [rng.randint(100, 1024) for _ in range(256)], "due_s": [0.0] * 256}
    rivals = {"tracereel_cuda": None, "continuous_cuda": None}
    failed: Json = {}
    for name in rivals:
        progress(f"starting {name}")
        try:
            rivals[name] = Rival(name, sys.executable, "Qwen3-0.6B", 256)
        except SystemExit as error:
            failed[name] = str(error)
    seconds: Json = {name: [] for name in rivals}
    for turn in range(-1, 3):
        for name, rival in rivals.items():
            if rival is None:
                continue
            progress(f"{name}, round {turn + 1} of 3")
            took = max(rival.run(job)["last_s"])
            if turn >= 0:
                seconds[name].append(took)
    for rival in rivals.values():
        if rival is not None:
            rival.stop()
    return {"seconds": seconds, "output_tokens": sum(job["lengths"]), "failed": failed}


def policies(args: argparse.Namespace) -> Json:
    """Static, same-position and continuous at 8, 32 and 128 slots, on the film's prompts and on others' lengths."""
    found: Json = {}
    loaded = load_model(args.model, "cuda", "bf16") if args.model else load_model(None, "cuda", "bf16")
    prompts = {"film": suite_named("film-gpu").prompts}
    if args.azure:
        prompts["azure"] = azure_prompts(args.azure, loaded, 512)
    for workload, asked in prompts.items():
        cases = tuple(
            Case(
                name=f"{policy}-{slots}",
                policy=policy,
                engine={"max_num_seqs": slots, "num_blocks": slots * 136},
            )
            for slots in (8, 32, 128)
            for policy in ("static", "same-position", "continuous")
            if policy != "same-position" or workload == "film"
        )
        suite = Suite(workload, asked, cases, 3, {"max_num_batched_tokens": 2048, "max_model_len": 2176})
        with tempfile.TemporaryDirectory() as folder:
            files = record_suite(suite, loaded, Path(folder) / "runs", lambda what, done, total: None)
            runs = [Run.read(file) for file in files]
        found[workload] = [ratios(runs, slots) for slots in (8, 32, 128)]
        progress(f"{workload}: {found[workload]}")
    return found


def azure_prompts(file: Path, loaded: LoadedModel, count: int) -> tuple[Any, ...]:
    """The first requests of a file with the columns ContextTokens and GeneratedTokens that fit, as prompts of words."""
    from tracereel.engine.workload import Prompt

    prompts = []
    with file.open(newline="") as lines:
        for i, row in enumerate(csv.DictReader(lines)):
            prompt, output = int(row["ContextTokens"]), int(row["GeneratedTokens"])
            if prompt + output <= 2048 and output:
                prompts.append(Prompt(id=str(i), prompt=" a" * max(1, prompt - 30), output_tokens=output))
            if len(prompts) == count:
                break
    return tuple(prompts)


def ratios(runs: list[Run], slots: int) -> Json:
    """Of one number of slots: each policy's rate, its ratio to static, the ceiling, and the waterfall."""
    cases: dict[str, list[Run]] = {}
    for run in runs:
        info = run.trace.header.run
        if info is not None and info.case.endswith(f"-{slots}"):
            cases.setdefault(info.case.removesuffix(f"-{slots}"), []).append(run)
    base = cases["static"]
    found: Json = {"slots": slots, "ceiling": base[0].metrics.refill_ceiling}
    for policy, own in cases.items():
        parts = ("median", "low", "high")
        found[policy] = {
            "tokens_per_s": [run.measure("output_throughput").value for run in own],
            "ratio": [measure(f"throughput_ratio_{part}", [*own, *base], numerator=len(own)).value for part in parts],
        }
    split = waterfall(median_of(base).trace, median_of(cases["continuous"]).trace)
    found["waterfall"] = {part.name: part.saved_ms for part in split.parts}
    return found


def recorder(args: argparse.Namespace) -> Json:
    """What recording costs at steps of about a millisecond: the same steps with a recorder and without, in turns."""
    loaded = load_model("random:SmolLM2-135M", "cuda", "bf16")
    config = sized(EngineConfig(max_num_seqs=64, max_num_batched_tokens=4096), loaded.model, 0.5)
    runner = make_runner(loaded, config)
    walls: Json = {"without": [], "with": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(-1, 2 * ROUNDS):
            for name, own in walls.items():
                path = Path(folder) / "run.jsonl.zst"
                made = None
                if name == "with":
                    made = Recorder(path, loaded.header(config, runner, WorkloadInfo(name="benchmark")))
                result = steady(loaded, runner, config, 64, 256, made)
                if made is not None:
                    made.close()
                if turn >= 0:
                    own.append(result["wall_us"])
    return walls


STAGES: dict[str, Callable[[argparse.Namespace], Json]] = {
    stage.__name__: stage for stage in (ceilings, smollm2, llama8b, qwen3, policies, recorder, attention)
}


# Report.


@dataclass(frozen=True)
class Target:
    """What was promised beforehand, and what came of it."""

    what: str
    promised: str
    measured: str
    met: bool


def targets(found: Json) -> list[Target]:
    """Every target whose stage has run."""
    made: list[Target] = []

    def at_most(what: str, values: list[float], limit: float, unit: str, digits: int = 2) -> None:
        met = statistics.median(values) <= limit
        made.append(Target(what, f"≤ {limit:g} {unit}", f"{spread(values, digits)} {unit}", met))

    def at_least(what: str, values: list[float], limit: float, unit: str, digits: int = 2) -> None:
        met = statistics.median(values) >= limit
        made.append(Target(what, f"≥ {limit:g} {unit}", f"{spread(values, digits)} {unit}", met))

    if small := found.get("smollm2"):
        for point, own in small["points"].items():
            rows = int(point.split("x")[0])
            if rows <= 32 or rows == 256:
                limit = 0.8 if rows <= 32 else 1.5
                times = [result["wall_us"] / 1e3 for result in own]
                at_most(f"SmolLM2-135M, a decode step of {rows} sequences", times, limit, "ms", 3)
        own = small["points"]["256x256"]
        hidden = [100 * max(0.0, 1 - result["device_us"] / result["wall_us"]) for result in own]
        at_most("share of the step at 256 sequences in which the device waits for the host", hidden, 10, "%", 1)
    rates = found.get("ceilings")
    if (large := found.get("llama8b")) and rates:
        from tracereel.engine.weights.random_weights import MODEL_CONFIGS

        model_config, points = MODEL_CONFIGS["Llama-3.1-8B"], large["points"]
        copy, product = (statistics.median(rates[key]) for key in ("copy_bytes_per_s", "product_flops"))
        for point, limit in (("1x256", 85), ("64x1024", 75)):
            rows, context = map(int, point.split("x"))
            moved = weight_bytes(model_config) + kv_bytes(model_config, rows * context)
            shares = [100 * moved / (result["device_us"] / 1e6) / copy for result in points[point]]
            at_least(f"8B, {rows} × {context} tokens: bytes read, of the copy rate", shares, limit, "%", 1)
        pairs = zip(points["64x256"], points["1x256"], strict=True)
        at_most(
            "8B, 64 × 256 tokens against one sequence", [a["device_us"] / b["device_us"] for a, b in pairs], 1.3, "×"
        )
        shares = [100 * prefill_operations(model_config, 4096) / (us / 1e6) / product for us in large["prefill_us"]]
        at_least("8B, prefill of 4,096 tokens, of the bf16 product rate", shares, 50, "%", 1)
    if (beside := found.get("qwen3")) and all(beside["seconds"].values()):
        times = zip(beside["seconds"]["continuous_cuda"], beside["seconds"]["tracereel_cuda"], strict=True)
        at_least("Qwen3-0.6B, nano-vllm's workload, against transformers", [a / b for a, b in times], 4, "×")
    if cost := found.get("recorder"):
        lost = [100 * (1 - a / b) for a, b in zip(cost["without"], cost["with"], strict=True)]
        at_most("throughput lost to recording, 64 sequences", lost, 1, "%")
    return made


def report(folder: Path) -> str:
    """The tables as Markdown."""
    found = {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}
    device = device_info(torch.device("cuda"))
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "triton", "transformers"))
    lines = [
        f"# The engine on one {device.name}",
        "",
        f"Made by `python benchmarks/gpu.py` on {time.strftime('%Y-%m-%d')}: {device.name}, driver {device.driver},"
        f" CUDA {torch.version.cuda}; Python {platform.python_version()}, {versions}. Medians, then the lowest and the"
        f" highest of {ROUNDS} rounds in which the variants took turns, after one to warm up.",
        "",
        "| target | promised | measured | |",
        "|---|---|---|---|",
        *(f"| {t.what} | {t.promised} | {t.measured} | {'met' if t.met else '**not met**'} |" for t in targets(found)),
    ]
    if rates := found.get("ceilings"):
        copies = spread([rate / 1e12 for rate in rates["copy_bytes_per_s"]])
        products = spread([rate / 1e12 for rate in rates["product_flops"]], 0)
        lines += [
            "",
            f"A copy within the device's memory moves {copies} TB/s, read and written; a bf16 matrix product of",
        ]
        lines[-1] += f" 8192 × 8192 × 8192 does {products} TFLOP/s."
    for name in ("smollm2", "llama8b"):
        if stage := found.get(name):
            lines += steps_table(name, stage)
    if beside := found.get("qwen3"):
        lines += ["", "## nano-vllm's workload on the geometry of Qwen3-0.6B, random weights", ""]
        for rival, seconds in beside["seconds"].items():
            rate = [beside["output_tokens"] / s for s in seconds]
            lines.append(f"- {rival}: " + (f"{spread(rate, 0)} output tokens/s" if rate else beside["failed"][rival]))
    for workload, rows in found.get("policies", {}).items():
        lines += policy_table(workload, rows)
    if attentions := found.get("attention"):
        lines += ["", "## Attention", ""]
        for name, points in attentions.items():
            if isinstance(points, str):
                lines.append(f"- {name}: not here ({points})")
            else:
                lines += [
                    f"- {name}, {point}: {spread([r['device_us'] for r in own], 0)} µs a step"
                    for point, own in points.items()
                ]
    lines += ["", "## Clocks", "", "| stage | " + " | ".join(CLOCKS) + " |", "|---" * (1 + len(CLOCKS)) + "|"]
    for name, stage in found.items():
        if "clocks" in stage:
            lines.append(f"| {name} | " + " | ".join(stage["clocks"].get(clock, "") for clock in CLOCKS) + " |")
    return "\n".join(lines) + "\n"


def steps_table(name: str, stage: Json) -> list[str]:
    lines = [
        "",
        f"## {name}: {stage['kernels']}",
        "",
        "| sequences × context | step, µs | on the device, µs | gap, µs |",
    ]
    lines.append("|---|---:|---:|---:|")
    for point, own in stage["points"].items():
        cells = (spread([result[key] for result in own], 0) for key in ("wall_us", "device_us", "gap_us"))
        lines.append(f"| {point} | " + " | ".join(cells) + " |")
    lines += ["", "| kernel | µs a step | calls |", "|---|---:|---:|"]
    return lines + [f"| `{key}` | {us:.0f} | {calls:.0f} |" for key, us, calls in stage["profile"]]


def policy_table(workload: str, rows: list[Json]) -> list[str]:
    lines = [
        "",
        f"## Policies, {workload}",
        "",
        "| slots | policy | output tokens/s | against static | refill ceiling |",
    ]
    lines.append("|---:|---|---:|---:|---:|")
    for row in rows:
        for policy in ("static", "same-position", "continuous"):
            if own := row.get(policy):
                middle, low, high = own["ratio"]
                lines.append(
                    f"| {row['slots']} | {policy} | {spread(own['tokens_per_s'], 0)} |"
                    f" {middle:.2f}× ({low:.2f}–{high:.2f}) | {row['ceiling']:.2f}× |"
                )
        parts = ", ".join(f"{name} {ms * 1e3:.1f}" for name, ms in row["waterfall"].items())
        lines.append(f"| {row['slots']} | waterfall, µs saved an output token | {parts} | | |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--only", nargs="*", choices=list(STAGES), default=list(STAGES), help="stages (default: all)")
    parser.add_argument("--model", help="the model of the policies' stage (default: the one `tracereel fetch` keeps)")
    parser.add_argument("--azure", type=Path, help="a CSV file with ContextTokens and GeneratedTokens")
    args = parser.parse_args()
    require_cuda()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        file = args.out / f"{name}.json"
        if file.is_file():
            progress(f"{name}: there already")
            continue
        progress(name)
        result = {**STAGES[name](args), "clocks": ask_driver(*CLOCKS)}
        replace_text(file, json.dumps(result, indent=1))
        torch.cuda.empty_cache()
    replace_text(args.out / "gpu.md", report(args.out))
    print(args.out / "gpu.md")


if __name__ == "__main__":
    main()
