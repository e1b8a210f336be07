"""One trial of the campaign: what was tried, how it ended, what is wrong with that."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from confined import Outcome, run_command
from tracereel.engine.model_config import ModelConfig, rotary_frequencies
from tracereel.engine.weights.random_weights import MODEL_CONFIGS
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS

EARLIER = b"what was there before\n"
SMALL = ("--fps", "1", "--size", "256x144")
TINY_MODEL = ("--model", "random:Tiny", "--device", "cpu", "--dtype", "fp32")


@dataclass
class Trial:
    """What was tried and found; `inputs` are kept where something is wrong."""

    name: str
    inputs: tuple[Path, ...] = ()
    verdicts: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def note(self, outcome: Outcome, *codes: int) -> Outcome:
        """Count how a command ended and what is wrong with that; it may end with one of `codes` (0, 1, 2)."""
        self.verdicts.append(f"{outcome.command[0]} {outcome.code}")
        said = outcome.err.strip().splitlines()[-1:] or outcome.out.strip().splitlines()[-1:]
        self.faults += [
            f"{' '.join(outcome.command)}: {what}: {' '.join(said)}" for what in outcome.faults(codes or (0, 1, 2))
        ]
        return outcome

    def expect(self, holds: bool, what: str) -> None:
        """Something that must hold."""
        if not holds:
            self.faults.append(what)


Trials = Iterator[Trial]


def rng_of(seed: int, part: str, number: int) -> random.Random:
    """The generator of one trial: it can be tried again without those before it."""
    return random.Random(f"{seed}/{part}/{number}")


def names_below(folder: Path) -> set[str]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def left_behind(folder: Path) -> set[str]:
    """What writers use on their way and should have removed."""
    return {name for name in names_below(folder) if any(part in name for part in (".partial", ".lock", ".making"))}


def add_tiny_model() -> None:
    """Make `random:Tiny` known: a model whose steps take a millisecond."""
    MODEL_CONFIGS["Tiny"] = ModelConfig(
        "llama", 2, 48, 4, 2, 16, 80, 300, 4096, 1e-6, rotary_frequencies(16, 1e4), True
    )


def recordings_into(folder: Path) -> list[Path]:
    """Copies of a recording or two of each suite that scenes play."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for suite, cases in (
        ("film", ("continuous-1", "static-1", "same-position-1")),
        ("chunked", ("chunked-1", "unchunked-1")),
        ("paging", None),
        ("sweep", ("continuous-2-1", "continuous-8-1", "static-2-1", "static-8-1")),
        ("film-engines", ("tracereel-1", "transformers-1", "vllm-1")),
    ):
        for path in sorted((PACKAGE_RECORDINGS / suite / "cpu").glob("*.jsonl.zst")):
            if cases is None or path.name.split(".")[0] in cases:
                made.append(folder / f"{suite}-{path.name}")
                made[-1].write_bytes(path.read_bytes())
    return made


def prompts(count: int) -> str:
    """A prompt file of so many requests, pinned."""
    rows = ({"id": f"p{i}", "prompt": f"question {i} " * (1 + i % 5), "output_tokens": 3 + i % 9} for i in range(count))
    return "".join(json.dumps(row) + "\n" for row in rows)


def must(outcome: Outcome) -> Outcome:
    """An outcome without which the campaign cannot go on. Raises RuntimeError where it is not exit code 0."""
    if outcome.code:
        raise RuntimeError(f"{' '.join(outcome.command)}: exit code {outcome.code}\n{outcome.out}{outcome.err}")
    return outcome


def rendered(scene: str, recordings: Path, media: Path, *options: str) -> Path:
    """A small film of a scene."""
    outcome = must(run_command("render", scene, "--recordings", recordings, "--media", media, *SMALL, *options))
    return Path(outcome.out.splitlines()[-1])
