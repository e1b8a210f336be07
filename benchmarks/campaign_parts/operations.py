"""Every command that writes, for the parts that kill it and fill its disk: arguments, targets, and is it whole?"""

import json
import xml.etree.ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fakes
import msgspec
from confined import run_command
from tracereel.engine.config import EngineConfig
from tracereel.trace.format.events import ParallelInfo
from tracereel.trace.format.recorder import Recorder

from campaign_parts.files import SUITE
from campaign_parts.trial import SMALL, TINY_MODEL, must, names_below, prompts, recordings_into, rendered


@dataclass(frozen=True)
class Operation:
    """A command that writes below a folder. `whole` says of one of its files whether it is what a reader takes."""

    name: str
    arguments: Callable[[Path], list[str | Path]]
    whole: Callable[[Path], bool]


def operations(folder: Path) -> list[Operation]:
    """The operations, on inputs that are made in `folder`."""
    recordings = folder / "recordings"
    recordings_into(recordings)
    tables = ("export", recordings / "film-continuous-1.jsonl.zst", "--format")
    trace, other = recordings / "film-continuous-1.jsonl.zst", recordings / "film-static-1.jsonl.zst"
    (folder / "prompts.jsonl").write_text(prompts(24))
    (folder / "suite.toml").write_text(SUITE)
    replicas = record_replicas(folder)
    film = rendered("opening", recordings, folder / "media")

    def verified(path: Path) -> bool:
        return (
            path.suffix not in (".mp4", ".gif", ".html") or run_command("verify", path, "--trace", recordings).code == 0
        )

    run = ("record", "--workload", folder / "prompts.jsonl", *TINY_MODEL, "--out")
    suite = ("record", "--suite", folder / "suite.toml", "--all", *TINY_MODEL, "--out")
    scene = ("render", "latency", "--recordings", recordings, *SMALL, "--media")
    scenes = ("render", "--all", "--recordings", recordings, *SMALL, "--part", "1/8", "--jobs", "2")
    return [
        Operation("record", lambda out: [*run, out / "run.jsonl.zst"], checked),
        Operation("suite", lambda out: [*suite, out / "suite"], checked),
        Operation("render", lambda out: [*scene, out], verified),
        # Another quality than that of the earlier films, which would be kept.
        Operation(
            "renders", lambda out: [*scenes, "--crf", "20" if names_below(out) else "30", "--media", out], verified
        ),
        Operation("merge", lambda out: ["merge", *replicas, "--out", out / "merged.jsonl"], checked),
        Operation("perfetto", lambda out: ["export", trace, "--out", out / "x.json"], is_json),
        Operation("csv", lambda out: [*tables, "csv", "--out", out / "tables"], has_rows),
        Operation("parquet", lambda out: [*tables, "parquet", "--out", out / "tables"], is_parquet),
        Operation("plot", lambda out: ["plot", trace, other, "--figure", "slots", "--out", out], is_svg),
        Operation(
            "clip", lambda out: ["clip", film, out / "clip.gif", "--to", "4", "--width", "128", "--fps", "1"], verified
        ),
        Operation("play", lambda out: ["play", trace, other, "--out", out / "page.html"], verified),
    ]


def record_replicas(folder: Path) -> list[Path]:
    """Traces of two engines that took turns with the steps."""
    config = EngineConfig(max_num_seqs=4, max_num_batched_tokens=24, num_blocks=20, block_size=4, max_model_len=64)
    paths = [folder / f"replica-{number}.jsonl" for number in range(2)]
    headers = [
        msgspec.structs.replace(fakes.header(config), parallel=ParallelInfo(data=2, replica=number))
        for number in range(2)
    ]
    recorders = [Recorder(path, header) for path, header in zip(paths, headers, strict=True)]
    engines = [fakes.make_engine(config, recorder) for recorder in recorders]
    for i, request in enumerate(fakes.make_requests(40)):
        engines[i % 2].add(request)
    while any(engine.has_work for engine in engines):
        for engine in engines:
            engine.step()
    for recorder in recorders:
        recorder.close()
    return paths


def earlier(operation: Operation, folder: Path) -> dict[str, bytes]:
    """Run it once, undisturbed; what it made below the folder, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    must(run_command(*operation.arguments(folder)))
    made = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    if not made:
        raise RuntimeError(f"{operation.name} makes nothing")
    return made


def checked(path: Path) -> bool:
    """A whole, valid recording?"""
    return run_command("check", path).code == 0


def is_json(path: Path) -> bool:
    """JSON to its end?"""
    json.loads(path.read_bytes())
    return True


def has_rows(path: Path) -> bool:
    """A table that ends with a line?"""
    return path.read_bytes().endswith(b"\n")


def is_parquet(path: Path) -> bool:
    """A table with its footer?"""
    import pyarrow.parquet

    return bool(pyarrow.parquet.read_table(path).num_columns)


def is_svg(path: Path) -> bool:
    """A picture to its end?"""
    xml.etree.ElementTree.parse(path)
    return True
