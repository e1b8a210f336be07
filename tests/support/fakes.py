"""A model that is none: the next token is a hash of the sequence so far, so any engine must give the same tokens."""

import dataclasses
import hashlib
import random
from collections import deque
from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path

import msgspec
from tracereel.engine.config import EngineConfig
from tracereel.engine.engine import Engine
from tracereel.engine.request import Request, Samples, SamplingParams
from tracereel.engine.scheduler import StepPlan
from tracereel.trace.format.events import (
    DECODE,
    SCHEMA_VERSION,
    DeviceInfo,
    EngineInfo,
    Header,
    ModelInfo,
    RunInfo,
    WorkloadInfo,
)
from tracereel.trace.format.recorder import Recorder, start_clock

END_ID = 0
VOCABULARY = 50


def next_token(tokens: Sequence[int | None]) -> int:
    """What the fake model says after these tokens."""
    return hashlib.sha256(repr(list(tokens)).encode()).digest()[0] % VOCABULARY


def answer(request: Request) -> list[int]:
    """The whole answer of the fake model, computed the plain way."""
    tokens = list(request.prompt_ids)
    while True:
        token = next_token(tokens)
        tokens.append(token)
        count = len(tokens) - len(request.prompt_ids)
        if count >= request.sampling.max_tokens or (token == END_ID and count >= request.sampling.min_tokens):
            return tokens[len(request.prompt_ids) :]


class FakeRunner:
    """Executes plans as a model with a paged KV cache would: it sees what stands in the blocks of a table, no more."""

    def __init__(self, config: EngineConfig) -> None:
        self.block_size = config.block_size
        self.memory: list[list[int | None]] = [[None] * config.block_size for _ in range(config.num_blocks)]
        self.tables: dict[int, list[int]] = {}

    def execute(self, plan: StepPlan) -> Samples:
        for admission in plan.admitted:
            self.tables[admission.request] = []
        for grant in plan.blocks:
            self.tables[grant.request].extend(grant.blocks)
        columns = list(zip(plan.requests, plan.positions, plan.token_ids, plan.samples, strict=True))
        for request, position, ids, _ in columns:
            for at, token in enumerate(ids, position):
                self.memory[self.tables[request][at // self.block_size]][at % self.block_size] = token
        new_tokens = []
        for request, position, ids, samples in columns:
            if samples:
                content = [token for block in self.tables[request] for token in self.memory[block]]
                new_tokens.append(next_token(content[: position + len(ids)]))
        return Samples(new_tokens)


class FakeAsyncRunner(FakeRunner):
    """A device that runs while the host works: it knows the newest token of each slot; at most two steps at a time."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self.newest: dict[int, int] = {}
        self.in_flight: deque[Samples] = deque()
        self.ahead = 0

    def launch(self, plan: StepPlan) -> Callable[[], Samples]:
        assert len(self.in_flight) < 2
        self.ahead += bool(self.in_flight)
        ids = [
            [self.newest[slot]] if phase == DECODE else known
            for slot, phase, known in zip(plan.slots, plan.phases, plan.token_ids, strict=True)
        ]
        samples = self.execute(dataclasses.replace(plan, token_ids=ids))
        for slot, token in zip(compress(plan.slots, plan.samples), samples.tokens, strict=True):
            self.newest[slot] = token
        self.in_flight.append(samples)

        def wait() -> Samples:
            assert self.in_flight.popleft() is samples, "steps are waited for in their order"
            return samples

        return wait


class FakeText:
    """A letter a token."""

    def text(self, token_id: int, last: bool = False) -> str:
        return chr(ord("a") + token_id % 26)


def header(config: EngineConfig, *, run: RunInfo | None = None) -> Header:
    """A header for a run of the fake model."""
    return Header(
        schema=SCHEMA_VERSION,
        engine=EngineInfo(name="tracereel", version="0"),
        policy=config.policy,
        slots=config.max_num_seqs,
        token_budget=config.max_num_batched_tokens,
        kv_blocks=config.num_blocks,
        kv_block_tokens=config.block_size,
        model=ModelInfo(name="fake", weights="random", dtype="none", digest="0" * 64),
        device=DeviceInfo(kind="cpu", name="a test"),
        workload=WorkloadInfo(name="test", digest="0" * 64, arrivals="at once"),
        clock=start_clock(),
        run=run,
    )


def make_engine(config: EngineConfig, recorder: Recorder | None = None) -> Engine:
    """The real engine around the fake model."""
    return Engine(FakeRunner(config), config, new_stream=FakeText, end_ids=frozenset({END_ID}), recorder=recorder)


def make_requests(count: int, seed: int = 0, longest: int = 30, *, pinned: bool = False) -> list[Request]:
    """Requests of mixed lengths; pinned ones end by their length, whatever their tokens."""
    rng = random.Random(seed)
    return [
        Request(
            f"request-{i}",
            tuple(rng.randrange(1, VOCABULARY) for _ in range(rng.randint(1, longest))),
            SamplingParams(max_tokens=(most := rng.randint(1, longest)), min_tokens=most if pinned else 0),
            f"prompt {i}",
        )
        for i in range(count)
    ]


def record_small_run(path: Path, policy: str = "continuous", run: RunInfo | None = None, count: int = 12) -> None:
    """Record a run that preempts, cancels and ends requests both ways."""
    config = EngineConfig(
        policy=policy, max_num_seqs=4, max_num_batched_tokens=24, num_blocks=20, block_size=4, max_model_len=64
    )
    with Recorder(path, header(config, run=run)) as recorder:
        engine = make_engine(config, recorder)
        for request in make_requests(count):
            engine.add(request)
        engine.cancel(count - 1)
        while engine.has_work:
            engine.step()


def seal(path: Path) -> None:
    """Give a trace whose records a test has changed the end record's digest of what it holds now."""
    *lines, last = path.read_bytes().splitlines()
    end = msgspec.json.decode(last) | {"digest": hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest()}
    path.write_bytes(b"\n".join([*lines, msgspec.json.encode(end)]) + b"\n")
