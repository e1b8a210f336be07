"""What single steps take: decode steps by batch size, steps with a prefill, a large model's, and where the time goes.

A step is measured by what the engine records of it. Microseconds: `device` from the device's own events (where there is
no device, from the host), `gap` what the device waited before it, `wall` from one step's tokens on the host to the
next's.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tracereel.engine.config import EngineConfig
from tracereel.engine.loading import LoadedModel
from tracereel.engine.model_config import ModelConfig
from tracereel.engine.recording import Runners, record_run, request_of
from tracereel.engine.workload import Arrivals, TokenPrompt, Workload
from tracereel.trace.state.columns import Trace

from gpu_stages.setting import Figures, Setting, progress, rounds_within

Json = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """A kind of step: `decodes` sequences around `context` tokens, and `prefill` prompt tokens in one step."""

    decodes: int
    context: int
    prefill: int = 0

    def __str__(self) -> str:
        return f"{self.decodes} × {self.context}" + (f" and {self.prefill} prefill tokens" if self.prefill else "")


def config_for(setting: Setting, shapes: list[Shape], budget: int = 512) -> EngineConfig:
    """A configuration that holds each of the shapes with nobody preempted.

    Where some prefill there is one slot for them, so that each step has one prompt's tokens.
    """
    slots = max(shape.decodes + bool(shape.prefill) for shape in shapes)
    longest = max(shape.context + shape.prefill for shape in shapes)
    longest += 2 * setting.steps + 4 * setting.margin + 2 * slots
    return EngineConfig(
        max_num_seqs=slots,
        max_num_batched_tokens=max(budget, *(shape.decodes + shape.prefill for shape in shapes), 1),
        max_model_len=longest,
        num_blocks=slots * -(-longest // EngineConfig.block_size),
    )


def workload_for(setting: Setting, shape: Shape, config: EngineConfig, seed: int) -> Workload:
    """Requests that make steps of that shape: long ones, and behind them one short prompt for each step."""
    prompt = max(1, shape.context - setting.steps // 2)
    filling = -(-shape.decodes * prompt // config.max_num_batched_tokens) + shape.decodes
    output = min(setting.steps + 2 * setting.margin + filling, config.max_model_len - prompt)
    prompts = [TokenPrompt(f"long-{i}", prompt, output, seed=seed) for i in range(shape.decodes)]
    if shape.prefill:
        count = setting.steps + 2 * setting.margin
        prompts += [TokenPrompt(f"short-{i}", shape.prefill, 1, seed=seed) for i in range(count)]
    return Workload.of("benchmark", prompts, Arrivals())


def times_of(setting: Setting, trace: Trace, shape: Shape) -> Json:
    """Medians over the steps of that shape, us. Raises ValueError where there are too few."""
    columns, found = trace.steps, []
    for i in range(len(columns)):
        own = columns.members(i)
        decodes = columns.member_decode[own]
        prefill = int(columns.member_computed[own][~decodes].sum())
        if int(decodes.sum()) == shape.decodes and prefill == shape.prefill:
            found.append(i)
    chosen = found[setting.margin // 2 :][: setting.steps]
    if len(chosen) < 2:
        raise ValueError(f"{shape}: {len(chosen)} steps of this shape, at least 2 are needed")
    device = columns.device_ns[chosen]
    if (device < 0).any():
        device = (columns.end_ns - columns.start_ns)[chosen]
    ends = columns.end_ns[chosen]
    return {
        "device_us": statistics.median(device.tolist()) / 1e3,
        "gap_us": max(0.0, statistics.median(columns.device_gap_ns[chosen].tolist()) / 1e3),
        "wall_us": float(ends[-1] - ends[0]) / (len(chosen) - 1) / 1e3,
    }


def measured(
    setting: Setting, loaded: LoadedModel, runners: Runners, config: EngineConfig, shape: Shape, seed: int
) -> Json:
    """Run and record a workload of this shape of step; returns its times."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.jsonl"
        record_run(loaded, config, workload_for(setting, shape, config, seed), path, runners=runners)
        return times_of(setting, Trace.read(path), shape)


def measured_rounds(
    setting: Setting,
    what: str,
    loaded: LoadedModel,
    shapes: list[Shape],
    beside: Callable[[int], Figures] = lambda turn: {},
    budget: int = 512,
) -> Iterator[Json]:
    """Every shape in turns, round by round: the figures so far, `SHAPE device_us` and so on."""
    config = config_for(setting, shapes, budget)
    runners = Runners(loaded)
    progress(f"{what}: capturing")
    begin = time.monotonic()
    runners.of(config)
    attention = loaded.layer_ops(config).name
    found: Json = {"figures": {"start_s": [time.monotonic() - begin]}, "computes": attention}

    def all_shapes(turn: int) -> dict[str, float]:
        return {
            f"{shape} {name}": value
            for shape in shapes
            for name, value in measured(setting, loaded, runners, config, shape, turn).items()
        }

    for turn in rounds_within(setting, what, lambda: all_shapes(-1)):
        for name, value in all_shapes(turn).items():
            found["figures"].setdefault(name, []).append(value)
        for name, values in beside(turn).items():
            found["figures"].setdefault(name, []).extend(values)
        yield found


# Stages.


def decode(setting: Setting, folder: Path) -> Iterator[Json]:
    """Decode steps of the small model by batch size."""
    shapes = [Shape(rows, context) for rows, context in setting.decode_points]
    yield from measured_rounds(setting, "decode", setting.load("small"), shapes)


def mixed(setting: Setting, folder: Path) -> Iterator[Json]:
    """Steps of the small model that decode and prefill, and steps that only decode."""
    rows, prefill = setting.mixed
    context = setting.decode_points[0][1]
    shapes = [Shape(rows, context, prefill), Shape(rows, context)]
    # The film's token budget: what is captured at start is what the film's engine captures.
    yield from measured_rounds(setting, "mixed", setting.load("small"), shapes, budget=2048 if not setting.dry else 64)


def large(setting: Setting, folder: Path) -> Iterator[Json]:
    """Steps of a large geometry, and the bytes they have to read as a share of the device's own rate.

    The rate, that of a copy within the device's memory, is measured in the same rounds.
    """
    loaded = setting.load("large")
    rows, prefill = setting.mixed
    shapes = [Shape(rows, context) for rows, context in setting.large_points]
    beside = Shape(rows, setting.large_points[0][1], prefill)
    config = loaded.model.config
    rounds = measured_rounds(setting, "large", loaded, [*shapes, beside], lambda turn: copy_rate(setting))
    for found in rounds:
        figures = found["figures"]
        for shape in shapes:
            moved = weight_bytes(config) + kv_bytes(config, shape.decodes * shape.context)
            pairs = zip(figures[f"{shape} device_us"], figures["copy bytes/s"], strict=True)
            figures[f"{shape} of the copy rate, %"] = [100 * moved / (us / 1e6) / rate for us, rate in pairs]
        yield found


def attention(setting: Setting, folder: Path) -> Iterator[Json]:
    """Decode steps of a middling geometry with long contexts, by the attention that is chosen here."""
    shapes = [Shape(rows, context) for rows, context in setting.attention_points]
    yield from measured_rounds(setting, "attention", setting.load("attention"), shapes)


def recorder(setting: Setting, folder: Path) -> Iterator[Json]:
    """What recording costs: the same decode steps with a recorder and without, in turns."""
    loaded = setting.load("small")
    shape = Shape(*setting.decode_points[-1 if setting.dry else 3])
    config = config_for(setting, [shape])
    runners = Runners(loaded)
    work = workload_for(setting, shape, config, 0)

    def seconds(path: Path | None) -> float:
        begin = time.perf_counter()
        record_run(loaded, config, work, path, runners=runners)
        return time.perf_counter() - begin

    lost: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        for turn in rounds_within(setting, "recorder", lambda: seconds(Path(place) / "warm.jsonl.zst")):
            pair = {}
            for path in (None, Path(place) / f"{turn}.jsonl.zst")[:: 1 if turn % 2 else -1]:
                pair[path is None] = seconds(path)
            lost.append(100 * (1 - pair[True] / pair[False]))
            yield {"figures": {"throughput lost, %": lost}}


def profile(setting: Setting, folder: Path) -> Iterator[Json]:
    """Where the time of steps goes, decoding ones and those that prefill too: kernels, calls of the host.

    Tables of [name, microseconds a step, calls a step].
    """
    rows, prefill = setting.mixed
    found: Json = {"figures": {}, "profiles": {}}
    for model in ("small", "large"):
        loaded = setting.load(model)
        context = setting.decode_points[0][1]
        shapes = [Shape(rows, context, prefill), Shape(rows, context)]
        config = config_for(setting, shapes)
        runner = Runners(loaded).of(config)
        for shape in shapes:
            progress(f"profile: {model}, {shape}")
            found["profiles"][f"{model}, {shape}"] = profiled(setting, loaded, config, runner, shape)
            yield found


def profiled(setting: Setting, loaded: LoadedModel, config: EngineConfig, runner: Any, shape: Shape) -> Json:
    """Ten steps of that shape under torch's profiler."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if not setting.dry:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    engine = loaded.engine(config, runner=runner)
    requests = [request_of(prompt, loaded) for _, prompt in workload_for(setting, shape, config, 0).requests]
    for request in requests:
        engine.add(request)
    # The longest have begun once all of them have a token; then each step has its short prompt.
    decoding: set[int] = set()
    while len(decoding) < shape.decodes:
        decoding.update(output.request for output in engine.step())
    counted = min(10, setting.steps)
    for _ in range(2):
        engine.step()
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(counted):
            engine.step()
        if not setting.dry:
            torch.cuda.synchronize()
    for number in range(len(requests)):
        engine.cancel(number)
    events = profiler.key_averages()
    kernels = sorted(events, key=lambda event: -event.self_device_time_total)[:16]
    calls = sorted((e for e in events if e.key.startswith("cuda")), key=lambda event: -event.self_cpu_time_total)[:8]
    return {
        "kernels": [[e.key[:70], e.self_device_time_total / counted, e.count / counted] for e in kernels],
        "host": [[e.key[:70], e.self_cpu_time_total / counted, e.count / counted] for e in calls],
    }


# What the device does at most, and what a step needs of it.


def copy_rate(setting: Setting) -> Figures:
    """Bytes/s of a copy within the device's memory, read and written."""
    size, times = (2**12, 1) if setting.dry else (2**32, 10)
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=setting.device)
    target = torch.empty_like(source)
    return {"copy bytes/s": [2 * size / timed(setting, lambda: target.copy_(source), times)]}


def timed(setting: Setting, work: Callable[[], Any], times: int) -> float:
    """Seconds that the device takes, the mean of `times`."""
    work()
    if setting.dry:
        begin_s = time.perf_counter()
        for _ in range(times):
            work()
        return (time.perf_counter() - begin_s) / times
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(times):
        work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / times


def weight_bytes(config: ModelConfig) -> int:
    """What a decode step reads of bf16 weights at least: all but an embedding that is only looked up."""
    looked_up = 0 if config.tied else config.vocabulary * config.hidden
    return 2 * (config.parameters - looked_up)


def kv_bytes(config: ModelConfig, tokens: int) -> int:
    """What the KV of so many tokens takes in bf16."""
    return 2 * 2 * config.layers * config.kv_heads * config.head_dim * tokens
