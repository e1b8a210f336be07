"""What the scheduler and its bookkeeping cost a step, without a model: `python benchmarks/scheduler.py`.

Sequences decode steadily, all at once, as in a full batch; the runner returns a token for each at once. Two things are
timed: `schedule()` + `update()` alone, and the whole `Engine.step()` around them with texts and a recorder that writes
a trace meanwhile. Sizes are run in turns; the table gives the median of all steps and their 10th and 90th percentile.
Prints Markdown; needs neither torch nor a model.
"""

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from tracereel.engine.config import EngineConfig
from tracereel.engine.engine import Engine
from tracereel.engine.request import Request, Samples, SamplingParams
from tracereel.engine.scheduler import Scheduler, StepPlan
from tracereel.trace.format.events import SCHEMA_VERSION, DeviceInfo, EngineInfo, Header, ModelInfo, WorkloadInfo
from tracereel.trace.format.recorder import Recorder, start_clock

SIZES = (1, 16, 64, 256)
PROMPT_TOKENS = 100
WARM_STEPS, STEPS, TURNS = 20, 120, 5


class ImmediateRunner:
    """A device that takes no time."""

    def execute(self, plan: StepPlan) -> Samples:
        """One token for each member that samples."""
        return Samples([7] * sum(plan.samples))


class OneLetter:
    """A text decoder that takes next to no time."""

    def text(self, token_id: int, last: bool = False) -> str:
        """One letter."""
        return "a"


def config(size: int, caching: bool) -> EngineConfig:
    """Room for everybody: nobody is preempted, a prompt takes one step."""
    tokens = PROMPT_TOKENS + WARM_STEPS + STEPS + 2
    return EngineConfig(
        max_num_seqs=size,
        max_num_batched_tokens=size * PROMPT_TOKENS,
        num_blocks=size * -(-tokens // 16),
        max_model_len=tokens,
        enable_prefix_caching=caching,
    )


def requests(size: int) -> Iterator[Request]:
    """Requests that decode for as long as is timed; no two begin alike."""
    output = WARM_STEPS + STEPS + 2
    for i in range(size):
        yield Request(str(i), (i + 1,) * PROMPT_TOKENS, SamplingParams(max_tokens=output, min_tokens=output))


def scheduler_steps(size: int, caching: bool) -> list[int]:
    """Nanoseconds of each `schedule()` + `update()`."""
    scheduler = Scheduler(config(size, caching), frozenset({0}))
    runner = ImmediateRunner()
    for number, request in enumerate(requests(size)):
        scheduler.add(number, request)
    times = []
    for _ in range(WARM_STEPS + STEPS):
        start = time.perf_counter_ns()
        plan = scheduler.schedule(0)
        scheduled = time.perf_counter_ns()
        assert plan is not None
        tokens = runner.execute(plan).tokens
        executed = time.perf_counter_ns()
        scheduler.update(plan, tokens)
        times.append(scheduled - start + time.perf_counter_ns() - executed)
    assert len(scheduler.running) == size
    return times[WARM_STEPS:]


def engine_steps(size: int, caching: bool) -> list[int]:
    """Nanoseconds of each `Engine.step()` with the recorder on."""
    settings = config(size, caching)
    header = Header(
        schema=SCHEMA_VERSION,
        engine=EngineInfo(name="tracereel", version="benchmark"),
        policy=settings.policy,
        slots=size,
        model=ModelInfo(name="none", weights="random", dtype="none"),
        device=DeviceInfo(kind="cpu", name=platform.machine()),
        workload=WorkloadInfo(name="benchmark", digest="0" * 64, requests=size, arrivals="at once"),
        clock=start_clock(),
    )
    times = []
    with tempfile.TemporaryDirectory() as folder, Recorder(Path(folder) / "run.jsonl.zst", header) as recorder:
        engine = Engine(ImmediateRunner(), settings, new_stream=OneLetter, end_ids=frozenset({0}), recorder=recorder)
        for request in requests(size):
            engine.add(request)
        for _ in range(WARM_STEPS + STEPS):
            start = time.perf_counter_ns()
            engine.step()
            times.append(time.perf_counter_ns() - start)
            time.sleep(0.001)  # a real step leaves the recorder's thread time to write
    return times[WARM_STEPS:]


ROWS: dict[str, Callable[[int], list[int]]] = {
    "schedule + update": lambda size: scheduler_steps(size, False),
    "schedule + update, prefix caching": lambda size: scheduler_steps(size, True),
    "Engine.step, recorder on": lambda size: engine_steps(size, False),
}


def table() -> str:
    """Run everything in turns; the table as Markdown."""
    times: dict[tuple[str, int], list[int]] = {(name, size): [] for name in ROWS for size in SIZES}
    for _ in range(TURNS):
        for (name, size), own in times.items():
            own.extend(ROWS[name](size))
    lines = [
        f"| µs a step, median (10th to 90th percentile) | {' | '.join(f'{size} running' for size in SIZES)} |",
        f"|---|{'---:|' * len(SIZES)}",
    ]
    for name in ROWS:
        cells = []
        for size in SIZES:
            low, middle, high = np.percentile(np.array(times[name, size]) / 1e3, (10, 50, 90))
            cells.append(f"{middle:,.0f} ({low:,.0f} to {high:,.0f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    facts = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    cpu = next((line.split(":", 1)[1].strip() for line in facts.splitlines() if line.startswith("model name")), "")
    lines.append("")
    lines.append(
        f"{cpu or platform.processor()}, {os.cpu_count()} cores;"
        f" Python {platform.python_version()}, msgspec {msgspec.__version__};"
        f" {TURNS} turns of {STEPS} steps; {datetime.now(UTC):%Y-%m-%d}."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
