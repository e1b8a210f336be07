"""What a stage runs on: the real sizes on a GPU, or tiny ones on the CPU to find out whether every stage runs.

In a dry run the engine's own path for GPUs computes, its Triton kernels interpreted; TRITON_INTERPRET=1 has to be in
the environment before Triton is imported.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
from tracereel.engine.config import EngineConfig
from tracereel.engine.device_runner import DeviceRunner
from tracereel.engine.layer_ops import LayerOps, make_triton_ops
from tracereel.engine.loading import LoadedModel, load_model
from tracereel.engine.model_config import ModelConfig, rotary_frequencies
from tracereel.engine.suite import Suite, suite_named
from tracereel.engine.weights.random_weights import MODEL_CONFIGS

Figures = dict[str, list[float]]
"""Name of a figure -> its values, one a round."""

TINY = ModelConfig(
    architecture="llama",
    layers=1,
    hidden=16,
    heads=2,
    kv_heads=1,
    head_dim=16,
    intermediate=16,
    vocabulary=320,
    context=512,
    norm_epsilon=1e-5,
    rope_frequencies=rotary_frequencies(16, 10_000.0),
    tied=True,
)


@dataclass(frozen=True)
class Setting:
    """Sizes of a run. `models`: what each model of the stages is loaded from; None is the default model."""

    device: str
    dtype: str
    models: dict[str, str | None]
    rounds: int
    steps: int
    margin: int
    """Steps at a run's start and end that are not counted."""
    decode_points: tuple[tuple[int, int], ...]
    """(sequences, tokens of context)"""
    large_points: tuple[tuple[int, int], ...]
    attention_points: tuple[tuple[int, int], ...]
    mixed: tuple[int, int]
    """(decoding sequences, prompt tokens) of a step with a prefill."""
    ratio_slots: tuple[int, ...]
    check_prompts: int
    """Prompts whose tokens are compared with the CPU's."""
    race_requests: int
    race_lengths: tuple[int, int]
    budget_s: float
    """A round begins only while it still fits into so many seconds of a stage."""
    parcel: Path | None = None
    """Where `install-vllm` takes vLLM from."""

    @property
    def dry(self) -> bool:
        """Is this a dry run?"""
        return self.device == "cpu"

    def load(self, model: str, dtype: str | None = None, device: str | None = None) -> LoadedModel:
        """One of `models`. In a dry run the engine's path for GPUs runs it."""
        loaded = load_model(self.models[model], device or self.device, dtype or self.dtype)
        if not self.dry or device is not None:
            return loaded
        return _Interpreted(loaded.model, loaded.tokenizer, loaded.info, loaded.device)

    def suite(self, name: str, **engine: int | bool) -> Suite:
        """A suite of the package; in a dry run a few short requests of it."""
        suite = suite_named(name)
        suite = replace(suite, engine={**suite.engine, **engine})
        if not self.dry:
            return suite
        few = tuple(
            msgspec.structs.replace(prompt, prompt=prompt.prompt[:3], output_tokens=min(prompt.output_tokens or 1, 2))
            for prompt in suite.prompts[:3]
        )
        small = {"max_num_seqs": 2, "max_num_batched_tokens": 64, "num_blocks": 32, "max_model_len": 192}
        once = tuple(msgspec.structs.replace(case, repeats=None) for case in suite.cases)
        return replace(suite, prompts=few, cases=once, repeats=1, engine={**small, **engine})


class _Interpreted(LoadedModel):
    """A model on the CPU that the path for GPUs runs."""

    def layer_ops(self, config: EngineConfig) -> LayerOps:
        if find_spec("triton") is None:
            sys.exit("a dry run needs triton, whose interpreter runs the kernels: pip install triton")
        return make_triton_ops(self.model.shape, config.block_size, batch_invariant=config.batch_invariant)

    def runner(self, config: EngineConfig) -> DeviceRunner:  # type: ignore[override]
        model = self.model.batch_invariant() if config.batch_invariant else self.model
        return DeviceRunner(model, config, self.layer_ops(config))


FULL = Setting(
    device="cuda",
    dtype="bf16",
    models={
        "default": None,
        "small": "random:SmolLM2-135M",
        "large": "random:Llama-3.1-8B",
        "race": "random:Qwen3-0.6B",
        "attention": "random:Llama-3.2-1B",
    },
    rounds=5,
    steps=60,
    margin=8,
    decode_points=((1, 256), (8, 256), (32, 256), (64, 256), (128, 256), (256, 256)),
    large_points=((1, 256), (64, 256), (64, 1024)),
    attention_points=((1, 4096), (32, 1024)),
    mixed=(64, 100),
    ratio_slots=(32, 128, 8),
    check_prompts=48,
    race_requests=256,
    race_lengths=(100, 1024),
    budget_s=75.0,
)


def dry_setting() -> Setting:
    """Tiny sizes, on the CPU. Makes the tiny geometry known to `load_model`."""
    MODEL_CONFIGS["tiny"] = TINY
    return Setting(
        device="cpu",
        dtype="fp32",
        models=dict.fromkeys(FULL.models, "random:tiny"),
        rounds=1,
        steps=2,
        margin=1,
        decode_points=((1, 3), (2, 3)),
        large_points=((1, 3), (2, 3)),
        attention_points=((1, 3),),
        mixed=(2, 3),
        ratio_slots=(1, 2),
        check_prompts=2,
        race_requests=3,
        race_lengths=(2, 3),
        budget_s=5.0,
    )


def progress(text: str) -> None:
    """A line that says what a stage does now."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def rounds_within(setting: Setting, what: str, warm: Callable[[], Any] | None = None) -> Iterator[int]:
    """The numbers of rounds, as many as fit into the budget; at least one, at most `setting.rounds`.

    `warm` runs before the first, outside of the count, inside of the budget; a dry run has nothing to warm up.
    """
    begin = time.monotonic()
    if warm is not None and not setting.dry:
        progress(f"{what}: warming up")
        warm()
    longest = 0.0
    for turn in range(setting.rounds):
        start = time.monotonic()
        if turn and start - begin + 1.1 * longest > setting.budget_s:
            progress(f"{what}: no time for more than {turn} of {setting.rounds} rounds")
            return
        progress(f"{what}: round {turn + 1} of {setting.rounds}")
        yield turn
        longest = max(longest, time.monotonic() - start)
