"""One or more stages of what is measured on a CUDA GPU; `gpu_session.py` runs all of them within limits.

    python benchmarks/gpu.py STAGE ... --out FOLDER [--dry-run]

A stage writes FOLDER/results/STAGE.json, the rounds so far each time a round has ended, and what it records below
FOLDER/recordings. With --dry-run tiny models run on the CPU, Triton's kernels interpreted: the numbers mean nothing.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpu_stages.setting import Setting

    Measure = Callable[[Setting, Path], Iterator[dict[str, Any]]]

CLOCKS = ("clocks.sm", "clocks.mem", "clocks.max.sm", "temperature.gpu", "power.draw")


def stages() -> "dict[str, Measure]":
    """Every stage that measures, by its name."""
    from gpu_stages import race, recordings, steps

    return {
        "film": recordings.film,
        "ratios": recordings.ratios,
        "decode": steps.decode,
        "mixed": steps.mixed,
        "profile": steps.profile,
        "large": steps.large,
        "film-8b": recordings.film_8b,
        "nano-vllm": race.nano_vllm,
        "install-vllm": race.install_vllm,
        "race-film": race.race_film,
        "race-nano-vllm": race.race_nano_vllm,
        "tokens": recordings.tokens,
        "invariant": recordings.invariant,
        "recorder": steps.recorder,
        "attention": steps.attention,
    }


def run_stage(name: str, folder: Path, parcel: Path | None, dry: bool) -> None:
    """Run a stage; its result is on disk from the first round on, and says at the end that it is whole."""
    if dry:
        os.environ["TRITON_INTERPRET"] = "1"
    import torch
    from gpu_stages.place import Place
    from gpu_stages.setting import FULL, dry_setting
    from tracereel.engine.accelerator import ask_driver, require_cuda
    from tracereel.engine.loading import device_info
    from tracereel.trace.format.storage import replace_text

    if not dry:
        require_cuda()
    setting = replace(dry_setting() if dry else FULL, parcel=parcel)
    device = device_info(torch.device(setting.device))
    facts = {"device": device.name, "driver": device.driver, "dry": dry, "torch": str(torch.__version__)}
    file = Place(folder).results / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    begin, result = time.monotonic(), {}

    def keep(whole: bool) -> None:
        known = {**facts, **result, "seconds": time.monotonic() - begin, "whole": whole, "clocks": ask_driver(*CLOCKS)}
        replace_text(file, json.dumps(known, indent=1) + "\n")

    for result in stages()[name](setting, folder):  # noqa: B007  # `keep` looks at it
        keep(whole=False)
    keep(whole=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="+", choices=list(stages()), metavar="STAGE", help=", ".join(stages()))
    parser.add_argument("--out", type=Path, required=True, help="folder for results and recordings")
    parser.add_argument("--parcel", type=Path, help="what `gpu_parcel.py pack` made; install-vllm takes vLLM from it")
    parser.add_argument("--dry-run", action="store_true", help="tiny models on the CPU: does every stage run?")
    args = parser.parse_args()
    for name in args.stages:
        run_stage(name, args.out.resolve(), args.parcel, args.dry_run)


if __name__ == "__main__":
    main()
