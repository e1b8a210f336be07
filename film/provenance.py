"""Where a film comes from, its chapters and its sound: put into its file without encoding the pictures again.

Knows containers and headers. Does not know what the film shows.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from PIL import Image
from tracereel.film.captions import Cue
from tracereel.film.sound import RATE, Samples
from tracereel.trace import __version__
from tracereel.trace.analysis.model_words import named_model
from tracereel.trace.analysis.queries import Run
from tracereel.trace.format.atomic import replacing, require_file


def provenance_of(runs: Sequence[Run]) -> dict[str, str]:
    """What is true of all recordings in a film, and the digest of each."""
    if not runs:
        return {}
    header = runs[0].trace.header
    return {
        "made_with": f"tracereel {__version__}",
        "engine": f"{header.engine.name} {header.engine.version}",
        "engine_source": header.engine.source_digest or header.engine.commit or "",
        "model": f"{named_model(header.model)} ({header.model.weights} weights)",
        "model_digest": header.model.digest or "",
        "device": header.device.name,
        "workload": f"{header.workload.name} {(header.workload.digest or '')[:12]}".strip(),
        "traces": " ".join(sorted(run.trace.digest for run in runs)),
    }


PREFIX = "tracereel_"


def stamp(film: Path, facts: dict[str, str], chapters: Sequence[Cue] = (), sound: Samples | None = None) -> None:
    """Write facts and chapters into a film's file, and its sound; the pictures stay as they are, never encoded again.

    A GIF takes the facts alone, as a comment.
    """
    if film.suffix == ".gif":
        _stamp_gif(film, {f"{PREFIX}{name}": value for name, value in facts.items()})
    if film.suffix not in (".mp4", ".mov", ".webm"):
        return
    options = {"movflags": "use_metadata_tags+faststart"} if film.suffix != ".webm" else {}
    with replacing(film) as part, av.open(str(film)) as source, av.open(str(part), "w", options=options) as target:
        target.metadata.update(source.metadata)
        target.metadata.update({f"{PREFIX}{name}": value for name, value in facts.items()})
        target.set_chapters([_chapter(i, chapter) for i, chapter in enumerate(chapters)])
        pictures = source.streams.video[0]
        stream = target.add_stream_from_template(pictures)
        voice = _sound_stream(target, _AUDIO[film.suffix]) if sound is not None else None
        for packet in source.demux(pictures):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
        if voice is not None and sound is not None:
            for first in range(0, len(sound), _CHUNK):
                chunk = np.ascontiguousarray(sound[first : first + _CHUNK].T)
                frame = av.AudioFrame.from_ndarray(chunk, format="fltp", layout="stereo")
                frame.sample_rate, frame.pts, frame.time_base = RATE, first, Fraction(1, RATE)
                target.mux(voice.encode(frame))
            target.mux(voice.encode(None))


def _sound_stream(target: OutputContainer, codec: str) -> AudioStream:
    stream = target.add_stream(codec, rate=RATE, layout="stereo")
    assert isinstance(stream, AudioStream)
    return stream


_AUDIO = {".mp4": "aac", ".mov": "aac", ".webm": "libopus"}
_CHUNK = RATE


def _chapter(number: int, cue: Cue) -> Any:
    return {
        "id": number,
        "start": round(cue.from_s * 1000),
        "end": round(cue.to_s * 1000),
        "time_base": Fraction(1, 1000),
        "metadata": {"title": cue.text},
    }


def _stamp_gif(film: Path, facts: dict[str, str]) -> None:
    """Put a comment (GIF89a, section 24) before the first picture: PyAV writes none, Pillow only with new pictures."""
    data, comment = film.read_bytes(), msgspec.json.encode(facts)
    colours = 3 * 2 ** ((data[10] & 7) + 1) if data[10] & 0x80 else 0
    at = 13 + colours
    chunks = [comment[i : i + 255] for i in range(0, len(comment), 255)]
    blocks = b"".join(bytes([len(chunk)]) + chunk for chunk in chunks)
    with replacing(film) as part:
        part.write_bytes(data[:at] + b"\x21\xfe" + blocks + b"\x00" + data[at:])


def _gif_comment(film: Path) -> dict[str, str]:
    """The facts in a GIF's comment; none where it holds another comment, or none."""
    with Image.open(film) as picture:
        comment = picture.info.get("comment", b"")
    try:
        return msgspec.json.decode(comment, type=dict[str, str])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def read_stamp(film: Path) -> dict[str, str]:
    """What a film says of itself. Raises OSError and av.FFmpegError where it cannot be read."""
    require_file(film)
    with av.open(str(film)) as container:
        facts = {name.lower(): value for name, value in container.metadata.items()}
    if film.suffix == ".gif":
        facts = _gif_comment(film)
    return {name.removeprefix(PREFIX): value for name, value in facts.items() if name.startswith(PREFIX)}
