"""Makes forgeries of films: other pictures under the same tags, and other ledgers stamped into the same film."""

import shutil
from fractions import Fraction
from pathlib import Path

import av
import msgspec
import numpy as np
from tracereel.film.ledger import LEDGER_DIGEST, digest_of, encode_ledger, ledger_path, read_ledger
from tracereel.film.provenance import PREFIX

_BESIDE = (".srt", ".vtt", ".chapters.vtt", ".png")


def copied(film: Path, folder: Path) -> Path:
    """The film and its other files, in another folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(film, folder)
    shutil.copy(ledger_path(film), folder)
    for suffix in _BESIDE:
        if film.with_suffix(suffix).is_file():
            shutil.copy(film.with_suffix(suffix), folder)
    return folder / film.name


def frames_of(film: Path) -> list[np.ndarray]:
    """Its pictures, red first."""
    with av.open(str(film)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def repainted(film: Path, folder: Path, frames: list[np.ndarray], *, slower: float = 1.0) -> Path:
    """The film with these pictures in place of its own, everything else as it was."""
    target = copied(film, folder)
    with av.open(str(film)) as source, av.open(str(target), "w", options=_OPTIONS) as output:
        output.metadata.update(source.metadata)
        output.set_chapters(source.chapters())
        like = source.streams.video[0]
        rate = Fraction(like.average_rate).limit_denominator(1001) / Fraction(slower)
        stream = output.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "superfast"})
        stream.width, stream.height, stream.pix_fmt = like.width, like.height, "yuv420p"
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p", dst_colorspace=5)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return target


def retagged(film: Path, folder: Path, tags: dict[str, str], chapters: dict[str, str] | None = None) -> Path:
    """The film with other tags, and other titles of chapters; its pictures as they were."""
    target = copied(film, folder)
    with av.open(str(film)) as source, av.open(str(target), "w", options=_OPTIONS) as output:
        output.metadata.update({**source.metadata, **tags})
        titles = chapters or {}
        told = source.chapters()
        for chapter in told:
            chapter["metadata"]["title"] = titles.get(chapter["metadata"]["title"], chapter["metadata"]["title"])
        output.set_chapters(told)
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    return target


def restamped(film: Path, folder: Path, change) -> Path:
    """The film with a changed ledger that is stamped into it as its own; `change` gets and gives a LedgerFile."""
    ledger = change(read_ledger(film)[0])
    data = encode_ledger(ledger)
    tags = {f"{PREFIX}{name}": value for name, value in ledger.provenance.items()}
    target = retagged(film, folder, {**tags, f"{PREFIX}{LEDGER_DIGEST}": digest_of(data)})
    ledger_path(target).write_bytes(data)
    return target


def replaced(claim, **changes):
    """A claim with other fields."""
    return msgspec.structs.replace(claim, **changes)


_OPTIONS = {"movflags": "use_metadata_tags+faststart"}
