"""A stand-in of vLLM's shapes, as of 0.33: what the adapter imports of it, and a scheduler that a test moves by hand.

`installed` puts it where `import vllm` finds it. `Engine` keeps the books that vLLM's scheduler keeps (who runs and who
waits, which blocks are free), so that a recording of it has to pass `tracereel check`; what is scheduled, and what
comes of it, the test says.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, make_dataclass
from enum import Enum, IntEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec

IMPORT_VLLM = [f"tracereel.engine.adapters.vllm.{name}" for name in ("header", "tap", "texts", "traced")]
"""Modules of the adapter that import vLLM."""
BLOCK = 4
BLOCKS = 32


class FinishReason(Enum):
    STOP, LENGTH, ABORT, ERROR = "stop", "length", "abort", "error"

    def __str__(self) -> str:
        return self.value


class RequestStatus(IntEnum):
    WAITING, WAITING_FOR_REMOTE_KVS, RUNNING, PREEMPTED, FINISHED_ABORTED, FINISHED_ERROR = range(1, 7)

    @staticmethod
    def get_finished_reason(status: "RequestStatus") -> FinishReason | None:
        return {5: FinishReason.ABORT, 6: FinishReason.ERROR}.get(status)


NewRequestData = make_dataclass("NewRequestData", ["req_id", "num_computed_tokens", "block_ids"])
CachedRequestData = make_dataclass(
    "CachedRequestData", ["req_ids", "resumed_req_ids", "new_block_ids", "num_computed_tokens"]
)


@dataclass
class SchedulerOutput:
    scheduled_new_reqs: list[Any]
    scheduled_cached_reqs: Any
    num_scheduled_tokens: dict[str, int]
    total_num_scheduled_tokens: int
    scheduled_spec_decode_tokens: dict[str, list[int]] = field(default_factory=dict)
    num_invalid_spec_tokens: dict[str, int] | None = None
    preempted_req_ids: set[str] | None = None


class EngineCoreOutput(msgspec.Struct):
    request_id: str
    new_token_ids: list[int]
    finish_reason: FinishReason | None = None
    routed_experts: Any = None


class EngineCoreOutputs(msgspec.Struct):
    outputs: list[EngineCoreOutput]


class Detokenizer:
    """As vLLM's: each token is a letter."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []

    @classmethod
    def from_new_request(cls, tokenizer: Any, request: Any) -> "Detokenizer":
        return cls()

    def decode_next(self, token_id: int) -> str:
        return chr(token_id)


class Tokenizer:
    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join(map(chr, ids))


class Scheduler:
    """vLLM's own scheduler, which gives back what it was told to."""

    def __init__(self, vllm_config: Any):
        self.__dict__ |= vars(scheduler_of(vllm_config))
        self.answer: Any = None

    def add_request(self, request: Any) -> None:
        self.requests[request.request_id] = request

    def schedule(self, throttle_prefills: bool = False) -> Any:
        return self.answer

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        return self.answer

    def finish_requests(self, request_ids: Any, finished_status: Any) -> Any:
        return self.answer

    def shutdown(self) -> None:
        self.answer = "shut down"


class AsyncScheduler(Scheduler):
    pass


class SchedulerConfig:
    def get_scheduler_cls(self) -> Any:
        return Scheduler


MODULES: dict[str, dict[str, Any]] = {
    "vllm": {"__version__": "0.33.0", "envs": SimpleNamespace(VLLM_ENABLE_V1_MULTIPROCESSING=True)},
    "vllm.platforms": {"current_platform": SimpleNamespace(device_type="cpu")},
    "vllm.tokenizers": {"cached_tokenizer_from_config": lambda model_config: Tokenizer()},
    "vllm.config": {},
    "vllm.config.scheduler": {"SchedulerConfig": SchedulerConfig},
    "vllm.v1": {},
    "vllm.v1.core": {},
    "vllm.v1.core.sched": {},
    "vllm.v1.core.sched.async_scheduler": {"AsyncScheduler": AsyncScheduler},
    "vllm.v1.core.sched.output": {
        "SchedulerOutput": SchedulerOutput,
        "NewRequestData": NewRequestData,
        "CachedRequestData": CachedRequestData,
    },
    "vllm.v1.core.sched.scheduler": {"Scheduler": Scheduler},
    "vllm.v1.engine": {"EngineCoreOutputs": EngineCoreOutputs, "EngineCoreOutput": EngineCoreOutput},
    "vllm.v1.engine.detokenizer": {"IncrementalDetokenizer": Detokenizer},
}


@contextmanager
def installed() -> Iterator[None]:
    """Within it `import vllm` finds the stand-in; what the adapter imported of it is forgotten after it."""
    for name, content in MODULES.items():
        module = ModuleType(name)
        vars(module).update(content)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in [*MODULES, *IMPORT_VLLM]:
            sys.modules.pop(name, None)


def config(*, depth: int = 1, drafts: bool = False, **more: Any) -> Any:
    """vLLM's configuration: `depth` steps may be in flight."""
    return SimpleNamespace(
        max_concurrent_batches=depth,
        scheduler_config=SimpleNamespace(
            policy="fcfs", async_scheduling=depth > 1, enable_chunked_prefill=True, **more.pop("scheduling", {})
        ),
        cache_config=SimpleNamespace(enable_prefix_caching=True, cache_dtype="auto"),
        model_config=SimpleNamespace(
            model="tiny", dtype="torch.float32", max_model_len=4096, enforce_eager=True, quantization=None
        ),
        load_config=SimpleNamespace(load_format="dummy"),
        parallel_config=SimpleNamespace(
            tensor_parallel_size=1,
            pipeline_parallel_size=1,
            data_parallel_size=1,
            data_parallel_index=0,
            distributed_executor_backend="uni",
        ),
        speculative_config=SimpleNamespace(method="ngram", num_speculative_tokens=3) if drafts else None,
        lora_config=None,
        kv_transfer_config=None,
        **more,
    )


class FullAttentionSpec:
    block_size = BLOCK


class SlidingWindowSpec:
    block_size, sliding_window = BLOCK, 2 * BLOCK


class Manager:
    kv_cache_group_id = 0
    pool: Any = None

    def _remove_blocks_in_range(self, request_id: str, blocks: list[int]) -> None:
        self.pool.free_blocks([SimpleNamespace(block_id=block, is_null=block == 0) for block in blocks])

    def remove_skipped_blocks(self, request_id: str, processed_computed_tokens: int) -> None:
        pass


def scheduler_of(vllm_config: Any, *, spec: Any = FullAttentionSpec, manager: Any = Manager, **more: Any) -> Any:
    """The attributes of a scheduler that has been built."""
    own = manager()
    pool = SimpleNamespace(
        num_gpu_blocks=BLOCKS + 1, get_num_free_blocks=lambda: BLOCKS, free_blocks=lambda blocks: None
    )
    own.pool = pool
    return SimpleNamespace(
        vllm_config=vllm_config,
        requests={},
        kv_cache_manager=SimpleNamespace(
            block_pool=pool,
            coordinator=SimpleNamespace(single_type_managers=(own,)),
            get_block_ids=lambda request_id: ([],),
        ),
        kv_cache_config=SimpleNamespace(kv_cache_groups=[SimpleNamespace(kv_cache_spec=spec(), layer_names=["layer"])]),
        max_num_running_reqs=4,
        max_num_scheduled_tokens=64,
        block_size=BLOCK,
        get_request_counts=lambda: (0, 0),
        **more,
    )


def request(key: str, prompt: int = 4, *, max_tokens: int = 8, stop: Any = None, extra: Any = None, **more: Any) -> Any:
    """A request as vLLM's scheduler has it; its prompt is letters."""
    facts = {
        "request_id": key,
        "prompt_token_ids": [97 + i % 26 for i in range(prompt)],
        "num_prompt_tokens": prompt,
        "sampling_params": SimpleNamespace(stop=stop, extra_args=extra),
        "max_tokens": max_tokens,
        "arrival_time": 0.0,
        "priority": 0,
        "resumable": False,
        "num_computed_tokens": 0,
        "status": RequestStatus.WAITING,
    }
    return SimpleNamespace(**facts | more)


class Engine:
    """A scheduler that a test moves by hand, with a tap."""

    def __init__(
        self,
        path: Path,
        *,
        connector: Any = None,
        settings: Mapping[str, Any] | None = None,
        spec: Any = FullAttentionSpec,
        experts: int = 0,
        **options: Any,
    ):
        from tracereel.engine.adapters.vllm.settings import Settings
        from tracereel.engine.adapters.vllm.tap import Tap

        self.running: list[str] = []
        self.waiting: list[str] = []
        self.tables: dict[str, list[int]] = {}
        self.held: set[int] = set()
        """Blocks that nobody runs with any more."""
        more = {"connector": connector, "kv_holding_waiting": []} if connector is not None else {}
        self.scheduler = scheduler_of(config(**options), spec=spec, **more)
        self.scheduler.vllm_config.model_config.get_num_experts = lambda: experts
        self.scheduler.get_request_counts = lambda: (len(self.running), len(self.waiting))
        manager = self.scheduler.kv_cache_manager
        manager.block_pool.get_num_free_blocks = lambda: BLOCKS - len(self.held.union(*self.tables.values()))
        manager.get_block_ids = lambda key: (self.tables[key],)
        self.path = path
        self.tap = Tap(self.scheduler, Settings(path=str(path), **settings or {}))

    def arrive(self, key: str, prompt: int = 4, **more: Any) -> Any:
        came = request(key, prompt, **more)
        self.waiting.append(key)
        self.scheduler.requests[key] = came
        self.tap.arrived(came)
        return came

    def schedule(
        self,
        new: Mapping[str, tuple[int, int, list[int]]] | None = None,
        running: Mapping[str, tuple[int, int, list[int]]] | None = None,
        *,
        resumed: tuple[str, ...] = (),
        preempted: tuple[str, ...] = (),
        drafts: Mapping[str, list[int]] | None = None,
        invalid: Mapping[str, int] | None = None,
    ) -> SchedulerOutput:
        """A schedule: for each member (position, tokens, blocks), blocks numbered as vLLM does, from 1."""
        new, running = new or {}, running or {}
        before = self.tap.before()
        for key in preempted:
            self.running.remove(key)
            self.waiting.insert(0, key)
            del self.tables[key]
        for key in [*new, *resumed]:
            self.waiting.remove(key)
            self.running.append(key)
        for key, (_, _, blocks) in (new | running).items():
            self.tables.setdefault(key, []).extend(blocks)
        counts = {key: tokens for key, (_, tokens, _) in (new | running).items()}
        plan = SchedulerOutput(
            [NewRequestData(key, position, (list(blocks),)) for key, (position, _, blocks) in new.items()],
            CachedRequestData(
                list(running),
                set(resumed),
                [(list(blocks),) if blocks else None for _, _, blocks in running.values()],
                [position for position, _, _ in running.values()],
            ),
            counts,
            sum(counts.values()),
            dict(drafts or {}),
            dict(invalid) if invalid else None,
            set(preempted),
        )
        self.tap.scheduled(plan, time.monotonic_ns(), time.monotonic_ns(), before)
        return plan

    def done(
        self,
        plan: SchedulerOutput,
        tokens: Mapping[str, list[int]],
        ends: Mapping[str, FinishReason] | None = None,
        **output: Any,
    ) -> list[EngineCoreOutput]:
        """The tokens of a schedule are there."""
        ends = ends or {}
        outputs = [EngineCoreOutput(key, new, ends.get(key)) for key, new in tokens.items()]
        for key in ends:
            self.leave(key)
        self.tap.updated(plan, {0: EngineCoreOutputs(outputs)}, SimpleNamespace(**output), time.monotonic_ns())
        return outputs

    def step(self, *schedule: Any, tokens: Mapping[str, list[int]], ends: Any = None, **more: Any) -> None:
        """A schedule, and its tokens."""
        self.done(self.schedule(*schedule, **more), tokens, ends)

    def lose(self, key: str, blocks: list[int]) -> None:
        """A running request loses blocks that its layers read no more."""
        (manager,) = self.scheduler.kv_cache_manager.coordinator.single_type_managers
        manager._remove_blocks_in_range(key, blocks)
        self.tables[key] = [block for block in self.tables[key] if block not in blocks]

    def abort(self, key: str, *, keeps: bool = False) -> None:
        """A request is ended from outside; `keeps`: its blocks stay held until somebody has sent them."""
        if keeps:
            self.held.update(self.tables[key])
        self.leave(key, forget=not keeps)
        self.tap.ended(key, "abort", time.monotonic_ns())

    def leave(self, key: str, *, forget: bool = True) -> None:
        for queue in (self.running, self.waiting):
            if key in queue:
                queue.remove(key)
        self.tables.pop(key, None)
        if forget:
            self.scheduler.requests.pop(key, None)
