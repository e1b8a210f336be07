"""Where a film comes from: said in its file's own metadata, without encoding it anew.

Knows containers and headers. Does not know what the film shows.
"""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import av
from tracereel.trace.measured import Run


def provenance_of(runs: Sequence[Run]) -> dict[str, str]:
    """What is true of all recordings in a film, and the digest of each."""
    if not runs:
        return {}
    header = runs[0].trace.header
    return {
        "made_with": f"tracereel {metadata.version('tracereel')}",
        "engine": f"{header.engine.name} {header.engine.version}",
        "engine_source": header.engine.source_digest or header.engine.commit or "",
        "model": f"{header.model.name} ({header.model.weights} weights, {header.model.dtype})",
        "model_digest": header.model.digest or "",
        "device": header.device.name,
        "workload": f"{header.workload.name} {(header.workload.digest or '')[:12]}".strip(),
        "traces": " ".join(sorted(run.trace.digest for run in runs)),
    }


PREFIX = "tracereel_"


def stamp(film: Path, facts: dict[str, str]) -> None:
    """Write facts into a film's metadata; the pictures stay as they are. Does nothing for a container without any."""
    if film.suffix not in (".mp4", ".mov", ".webm"):
        return
    part = film.with_name(f"{film.stem}.stamping{film.suffix}")
    options = {"movflags": "use_metadata_tags+faststart"} if film.suffix != ".webm" else {}
    with av.open(str(film)) as source, av.open(str(part), "w", options=options) as target:
        target.metadata.update(source.metadata)
        target.metadata.update({f"{PREFIX}{name}": value for name, value in facts.items()})
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    part.replace(film)


def read_stamp(film: Path) -> dict[str, str]:
    """What a film says of itself. Raises FileNotFoundError and av.FFmpegError where it cannot be read."""
    with av.open(str(film)) as container:
        facts = {name.lower(): value for name, value in container.metadata.items()}
    return {name.removeprefix(PREFIX): value for name, value in facts.items() if name.startswith(PREFIX)}
