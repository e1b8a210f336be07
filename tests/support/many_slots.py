"""Runs with 256 slots of the fake model, for layouts: their steps, batches and queues are the engine's own, but their
times are made up, and their headers say so. No film is made of them for anybody to see."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fakes
import msgspec
from retimed import retimed
from tracereel.engine.config import EngineConfig
from tracereel.engine.engine import Engine
from tracereel.engine.request import Request, SamplingParams
from tracereel.trace.format.events import DeviceInfo, RunInfo
from tracereel.trace.format.recorder import Recorder

SLOTS = 256
WORDS = [
    "a",
    "the",
    "step",
    "of",
    "slots",
    "token",
    "and",
    "queue",
    "batch",
    "waits",
    "model",
    "writes",
    "in",
    "reads",
    "one",
    "row",
    "engine",
    "prompt",
]
ROOMY = EngineConfig(max_num_seqs=SLOTS, max_num_batched_tokens=1024, num_blocks=8000)


class FakeWords:
    """A word a token."""

    def text(self, token_id: int, last: bool = False) -> str:
        return " " + WORDS[token_id % len(WORDS)]


def step_ns(step: dict) -> int:
    """The made-up time of a step: four milliseconds, and more for each token that it computes."""
    return 4_000_000 + 10_000 * sum(step["computed"])


def request(name: str, rng: random.Random, prompt: int, output: int, shared: tuple[int, ...] = ()) -> Request:
    """A request with so many tokens of prompt, the first of them shared, and of output."""
    ids = shared + tuple(rng.randrange(1, fakes.VOCABULARY) for _ in range(prompt - len(shared)))
    sampling = SamplingParams(max_tokens=output, min_tokens=output)
    return Request(name, ids, sampling, f"What does a batch of {name} have in common?")


def mixed(count: int, shared: int = 0) -> list[tuple[int, Request]]:
    """Requests that differ in length, all there from the start."""
    rng = random.Random(0)
    common = tuple(rng.randrange(1, fakes.VOCABULARY) for _ in range(shared))
    return [
        (0, request(f"request-{i}", rng, shared + rng.randint(4, 30), rng.randint(6, 40), common)) for i in range(count)
    ]


def by_the_clock(requests: list[tuple[int, Request]], a_step: int) -> list[tuple[int, Request]]:
    """The same, some more in each step."""
    return [(i // a_step, each) for i, (_, each) in enumerate(requests)]


def record(
    folder: Path,
    suite: str,
    case: str,
    config: EngineConfig,
    requests: list[tuple[int, Request]],
    repeats: int = 2,
    step_ns: Callable[[dict], int] = step_ns,
) -> None:
    """Record repeats of a case: each request comes before its step."""
    for repeat in range(repeats):
        path = folder / suite / f"{case}-{repeat + 1}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        info = RunInfo(suite=suite, case=case, repeat=repeat, repeats=repeats)
        made_up = DeviceInfo(kind="cpu", name="synthetic: times made up for a test")
        header = msgspec.structs.replace(fakes.header(config, run=info), device=made_up)
        with Recorder(path, header) as recorder:
            engine = Engine(
                fakes.FakeRunner(config), config, new_stream=FakeWords, end_ids=frozenset(), recorder=recorder
            )
            coming, steps = list(requests), 0
            while coming or engine.has_work:
                while coming and (coming[0][0] <= steps or not engine.has_work):
                    engine.add(coming.pop(0)[1], arrival_ns=0)
                engine.step()
                steps += 1
        retimed(path, lambda step, by=1 + 0.01 * repeat: round(step_ns(step) * by))


def recordings(folder: Path) -> Path:
    """Recordings of every suite that a scene plays, in a folder."""
    film, fewer = mixed(560), mixed(360)
    for policy in ("static", "continuous"):
        record(folder, "film", policy, replace(ROOMY, policy=policy), film)
    record(folder, "film", "same-position", replace(ROOMY, policy="same-position"), film, repeats=1)
    record(folder, "film", "online", ROOMY, by_the_clock(film, 14), repeats=1)
    for case, policy in (("tracereel", "continuous"), ("transformers-static", "static"), ("vllm", "continuous")):
        record(folder, "film-engines", case, replace(ROOMY, policy=policy), fewer)
    for slots in (64, SLOTS):
        for policy in ("static", "continuous"):
            few = replace(ROOMY, policy=policy, max_num_seqs=slots)
            record(folder, "sweep", f"{policy}-{slots}", few, fewer, repeats=1)
    # Memory for a part of the requests, that runs out; each begins with the same text.
    for case, caches in (("prefix-caching", True), ("no-prefix-caching", False)):
        tight = replace(ROOMY, num_blocks=900, enable_prefix_caching=caches)
        record(folder, "paging", case, tight, mixed(300, shared=32), repeats=1)
    rng = random.Random(1)
    beside = [(0, request(f"request-{i}", rng, 8, 90)) for i in range(SLOTS - 1)]
    long = [*beside, (20, request("long", rng, 1600, 12))]
    for case, budget in (("unchunked", 2048), ("chunked", 512)):
        record(folder, "chunked", case, replace(ROOMY, max_num_batched_tokens=budget), long)
    return folder
