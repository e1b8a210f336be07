"""From stored weights to something that runs: device, dtype, model and tokenizer, and how a trace names them."""

import hashlib
import platform
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import torch
from tracereel.engine.accelerator import driver_version, faults_named, require_cuda
from tracereel.engine.config import ConfigError, EngineConfig
from tracereel.engine.device_runner import DeviceRunner
from tracereel.engine.engine import Engine
from tracereel.engine.graph_buckets import GraphBuckets
from tracereel.engine.layer_ops import LayerOps, make_layer_ops
from tracereel.engine.memory import sized
from tracereel.engine.model import LlamaModel
from tracereel.engine.model_store import require_model
from tracereel.engine.runner import ModelRunner, Runner, require_context
from tracereel.engine.tokenizer import ChatTokenizer
from tracereel.engine.weights import open_weights
from tracereel.trace import __version__
from tracereel.trace.format.bounds import shown
from tracereel.trace.format.events import (
    SCHEMA_VERSION,
    DeviceInfo,
    EngineInfo,
    Header,
    ModelInfo,
    RunInfo,
    WorkloadInfo,
)
from tracereel.trace.format.identity import cpu_facts, cpu_name
from tracereel.trace.format.recorder import Recorder, start_clock

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run, and what a trace says of it."""

    model: LlamaModel
    tokenizer: ChatTokenizer
    info: ModelInfo
    device: DeviceInfo

    def layer_ops(self, config: EngineConfig) -> LayerOps:
        """The operations of this model's layers under a configuration; no KV cache is allocated."""
        return make_layer_ops(self.model.shape, config.block_size, batch_invariant=config.batch_invariant)

    def runner(self, config: EngineConfig) -> ModelRunner | DeviceRunner:
        """What runs the model's steps: the KV cache and the batch.

        Raises ConfigError and DeviceError, and LinearError where `batch_invariant` is not available.
        """
        require_context(self.model, config)
        make = DeviceRunner if self.model.device.type == "cuda" else ModelRunner
        model = self.model.batch_invariant() if config.batch_invariant else self.model
        with faults_named(f"making room for {config.num_blocks} KV blocks", "lower num_blocks"):
            return make(model, config, self.layer_ops(config))

    def engine(
        self, config: EngineConfig | None = None, *, runner: Runner | None = None, recorder: Recorder | None = None
    ) -> Engine:
        """An engine for this model; with a recorder everything it does is recorded. Raises ConfigError.

        Without a configuration it has the default one, on a GPU with as many KV blocks as its free memory holds.

        `runner` is one made with the same configuration, where the recording's header has named it.
        """
        if config is None:
            longest = min(EngineConfig.max_model_len, self.model.config.context)
            config = sized(EngineConfig(max_model_len=longest), self.model)
        return Engine(
            runner or self.runner(config),
            config,
            new_stream=self.tokenizer.stream,
            end_ids=self.tokenizer.end_ids,
            vocabulary=self.model.config.vocabulary,
            recorder=recorder,
        )

    def header(
        self,
        config: EngineConfig,
        workload: WorkloadInfo,
        run: RunInfo | None = None,
    ) -> Header:
        """The header of a recording that starts now; no runner is needed for it, and none is made."""
        layer_ops = self.layer_ops(config)
        settings: dict[str, bool | int | float | str | None] = {
            "max_model_len": config.max_model_len,
            "enable_prefix_caching": config.enable_prefix_caching,
            "max_wait_ms": config.max_wait_ms,
            "attention": layer_ops.name,
        }
        if config.batch_invariant:
            settings["batch_invariant"] = True
        if self.model.device.type == "cuda" and layer_ops.captures:
            settings["cuda_graphs"] = str(GraphBuckets(config, layer_ops.tile_tokens))
        return Header(
            schema=SCHEMA_VERSION,
            engine=engine_info(),
            policy=config.policy,
            slots=config.max_num_seqs,
            token_budget=config.max_num_batched_tokens,
            kv_blocks=config.num_blocks,
            kv_block_tokens=config.block_size,
            config=settings,
            model=self.info,
            device=self.device,
            libraries=_libraries(self.model.device),
            workload=workload,
            clock=start_clock(),
            run=run,
        )


def load_model(source: str | Path | None = None, device: str | None = None, dtype: str | None = None) -> LoadedModel:
    """Load a model onto a device.

    `source` is a GGUF file, a folder in Hugging Face's layout, a name on the Hugging Face hub, or `random:NAME` for a
    known geometry with random weights (default: the model that `tracereel fetch` keeps). `device` is a torch device
    name (default: cuda where there is one, else cpu), `dtype` one of `bf16` and `fp32` (default: bf16 where the device
    computes in it, else fp32). Raises ModelMissingError, ModelFileError and ConfigError.
    """
    on = choose_device(device)
    name = dtype or ("bf16" if has_bf16(on) else "fp32")
    if name not in DTYPES:
        raise ConfigError(f"dtype: {name!r} is not one of {', '.join(DTYPES)}")
    weights = open_weights(require_model() if source is None else source)
    model_config = weights.config
    info = ModelInfo(
        name=weights.name,
        weights="random" if weights.random else "real",
        dtype=name,
        digest=weights.digest(),
        architecture=model_config.architecture,
        parameters=model_config.parameters,
    )
    tokenizer = weights.tokenizer()
    with faults_named(f"loading {weights.name}", "choose a smaller model"):
        model = LlamaModel(weights, on, DTYPES[name])
    return LoadedModel(model, tokenizer, info, device_info(on))


def choose_device(name: str | None) -> torch.device:
    """The device of that name, or the best there is.

    Raises ConfigError for an unknown name, DeviceError where CUDA was asked for and cannot be used.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device: {shown(name)} is not a device; try cpu or cuda") from None
    if device.type == "cuda":
        require_cuda(device.index or 0)
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index):
        raise ConfigError(f"device: {name!r} is not supported; supported: cpu, cuda")
    return device


def has_bf16(device: torch.device) -> bool:
    """Does the device compute in bf16 by itself, rather than by emulation?"""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(cpu_facts().get("flags", "").split()))


def device_info(device: torch.device) -> DeviceInfo:
    """The device by its own name."""
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        return DeviceInfo(kind="cuda", name=facts.name, driver=driver_version(), memory_bytes=int(facts.total_memory))
    return DeviceInfo(kind="cpu", name=cpu_name(), threads=torch.get_num_threads())


def _libraries(device: torch.device) -> dict[str, str]:
    """The versions of what the engine rests on, on that device."""
    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    if device.type == "cuda":
        found["cuda"] = str(torch.version.cuda)
        with suppress(metadata.PackageNotFoundError):
            found["triton"] = metadata.version("triton")
    return found


@cache
def engine_info() -> EngineInfo:
    """This engine: its version and the digest of its source."""
    return EngineInfo(name="tracereel", version=__version__, source_digest=source_digest())


def source_digest() -> str:
    """SHA-256 (hex) over the engine's Python and C files: recordings made by another engine are known by it.

    The adapters are left out: they record other engines.
    """
    folder = Path(__file__).resolve().parent
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in (".py", ".c") and "adapters" not in path.relative_to(folder).parts
    )
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
