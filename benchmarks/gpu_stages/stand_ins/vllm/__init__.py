"""What stands for vLLM in a dry run: the few calls that `worker_vllm` makes, answered by tracereel's engine.

It records as the adapter does with these settings, so that all that follows has files to work on. It measures nothing,
and names itself in the traces.
"""

from pathlib import Path
from typing import Any

import msgspec
from gpu_stages.setting import dry_setting
from tracereel.engine.config import EngineConfig
from tracereel.engine.engine import Engine
from tracereel.engine.recording import header_of
from tracereel.engine.request import Request
from tracereel.engine.request import SamplingParams as OwnSampling
from tracereel.engine.workload import Workload
from tracereel.trace.format.events import EngineInfo, RunInfo, WorkloadInfo
from tracereel.trace.format.recorder import Recorder

__version__ = "0, a stand-in"


class SamplingParams:
    """Greedy, so many tokens."""

    def __init__(self, *, max_tokens: int, temperature: float, ignore_eos: bool, extra_args: dict[str, str]):
        assert temperature == 0
        assert ignore_eos
        self.own = OwnSampling(max_tokens=max_tokens, min_tokens=max_tokens, ignore_eos=True)
        self.prompt = extra_args["tracereel_prompt"]


class LLM:
    """An engine that loads the model's geometry from nowhere: in a dry run there is one."""

    def __init__(
        self,
        model: str,
        *,
        dtype: str,
        max_model_len: int,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        block_size: int,
        num_gpu_blocks_override: int,
        gpu_memory_utilization: float,
        enable_prefix_caching: bool,
        skip_tokenizer_init: bool,
        scheduler_cls: str,
        additional_config: dict[str, Any],
    ):
        assert (Path(model) / "config.json").is_file(), model
        config = EngineConfig(
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            max_model_len=max_model_len,
            num_blocks=num_gpu_blocks_override - 1,
            block_size=block_size,
        )
        self.llm_engine = _Engine(config, additional_config["tracereel"])


class _Engine:
    def __init__(self, config: EngineConfig, settings: dict[str, Any]):
        self._config, self._settings = config, settings
        self._loaded = dry_setting().load("race")
        self._runner = self._loaded.runner(config)
        self._run = msgspec.convert(settings["run"], RunInfo)
        self._to_skip, self._left, self._repeat = settings["warmup"], 0, 0
        self._recorder: Recorder | None = None
        self._engine = self._new_engine()

    def add_request(self, name: str, prompt: Any, sampling: SamplingParams, arrival_time: float) -> None:
        if self._to_skip:
            self._to_skip -= 1
        elif not self._left:
            self._begin()
        self._left = max(0, self._left - 1)
        self._engine.add(Request(name, tuple(prompt["prompt_token_ids"]), sampling.own, sampling.prompt), arrival_ns=0)

    def has_unfinished_requests(self) -> bool:
        return self._engine.has_work

    def step(self) -> None:
        self._engine.step()
        if not self._engine.has_work and self._recorder is not None:
            self._recorder.close()
            self._recorder = None

    def _begin(self) -> None:
        path = Path(self._settings["path"].replace(".jsonl.zst", f"-{self._repeat + 1}.jsonl.zst"))
        run = msgspec.structs.replace(self._run, repeat=self._repeat)
        header = header_of(self._loaded, self._config, Workload("dry", "at once", ()), run)
        header = msgspec.structs.replace(
            header,
            engine=EngineInfo(name="stand-in for vLLM", version=__version__),
            workload=msgspec.convert(self._settings["workload"], WorkloadInfo),
        )
        self._recorder = Recorder(path, header)
        self._repeat, self._left = self._repeat + 1, self._settings["requests_per_run"]
        self._engine = self._new_engine()

    def _new_engine(self) -> Engine:
        return Engine(
            self._runner,
            self._config,
            new_stream=self._loaded.tokenizer.stream,
            vocabulary=self._loaded.model.config.vocabulary,
            recorder=self._recorder,
        )
