"""The scenes by name, for those who do not call Manim themselves; the names can be had without Manim."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from tracereel.trace.recordings.index import ENGINES, FILM

if TYPE_CHECKING:
    from tracereel.scenes.reel import ReelScene

SUITES = {
    "kv_cache_paging": "paging",
    "chunked_prefill": "chunked",
    "batch_size_sweep": "sweep",
    "engine_race": FILM + ENGINES,
}
"""The suite whose recordings a scene plays, where it is not the film's."""
FILMS = ("continuous_batching", "full_length")
"""The films: each is several scenes' beats, one after the other."""
SCENES = (
    *FILMS,
    "pipeline_flow",
    "decode_batching",
    "same_position",
    "throughput_comparison",
    "latency",
    "where_it_hurts",
    "kv_cache_paging",
    "chunked_prefill",
    "batch_size_sweep",
    "speedup_waterfall",
    "engine_race",
    "opening",
    "closing",
)
"""The films, then the scenes that stand alone, then their cards."""


def suite_of(name: str) -> str:
    """The suite whose recordings a scene plays."""
    return SUITES.get(name, FILM)


def scene_file(name: str) -> Path:
    """The file of a scene."""
    return Path(__file__).resolve().parent / f"{name}.py"


def scene_class(name: str) -> "type[ReelScene]":
    """The scene in the file of that name: the one ReelScene that is defined in it."""
    from tracereel.scenes.reel import ReelScene

    module = importlib.import_module(f"tracereel.scenes.{name}")
    return next(
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, ReelScene) and value.__module__ == module.__name__
    )
