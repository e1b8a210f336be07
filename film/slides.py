"""A film as a presentation for manim-slides: a clip for each caption, the same reversed, and the caption as a note.

Written as its `PresentationConfig` expects (manim-slides 5), for `manim-slides present` and `convert`. Knows films,
beats and their captions. Does not know how a film is rendered.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import msgspec
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream
from tracereel.film.beat import FADE_S, Beat
from tracereel.film.ledger import LEDGER_DIGEST
from tracereel.film.provenance import PREFIX, read_stamp
from tracereel.film.theme import GROUND, Palette
from tracereel.trace.format.storage import replace_text

_X264 = {"crf": "16", "preset": "veryfast", "g": "30", "bf": "0", "sc_threshold": "0"}
"""A picture that needs no other every 30 frames: so many are in memory when a clip is turned round."""
_BLOCK, _ALIKE = 16, 6.0
"""Two frames are one picture where no block of so many pixels a side differs by more on average (of 255)."""


@dataclass(frozen=True)
class Slide:
    """Frames of a film from `first` up to but without `end`. `still`: engine time holds in all of it."""

    first: int
    end: int
    still: bool
    notes: str


class _SlideEntry(msgspec.Struct, kw_only=True):
    """A slide as manim-slides reads it; paths are relative to the folder above the presentation's."""

    file: str
    rev_file: str
    loop: bool
    notes: str


class _Presentation(msgspec.Struct, kw_only=True):
    slides: list[_SlideEntry]
    resolution: tuple[int, int]
    background_color: str


def slides_of(timed_beats: Sequence[tuple[float, Beat]], rate: float) -> list[Slide]:
    """A slide a caption, each ending while its caption is whole; how a beat goes is the next one's beginning.

    `timed_beats` are the film's beats, each with the second of film at which it begins; `rate` is frames a second.
    """
    cuts: list[tuple[int, bool, str]] = []
    for start, beat in timed_beats:
        spoken = beat.spoken() or [(0.0, beat.clock.film_s, beat.title)]
        for i, (from_s, to_s, phrase) in enumerate(spoken):
            ends_s = to_s if i == len(spoken) - 1 else max(to_s - FADE_S, from_s)
            held = beat.clock.engine_ns(from_s) == beat.clock.engine_ns(ends_s)
            cuts.append((round((start + ends_s) * rate), held, phrase.text))
    firsts = [0, *(end for end, _, _ in cuts)]
    slides = [Slide(first, *cut) for first, cut in zip(firsts, cuts, strict=False)]
    return [slide for slide in slides if slide.end > slide.first]


def write_presentation(film: Path, slides: Sequence[Slide], palette: Palette, folder: Path) -> Path:
    """Cut a film (mp4) into `folder/files/<its name>/` and write `folder/<its name>.json`; returns that path.

    A slide loops where engine time holds in it and its last picture is its first. Raises OSError and av.FFmpegError.
    """
    name = film.stem
    clips = folder / "files" / name
    if clips.exists():
        shutil.rmtree(clips)
    clips.mkdir(parents=True)
    facts = {PREFIX + key: value for key, value in read_stamp(film).items() if key != LEDGER_DIGEST}
    entries, size = [], (0, 0)
    for i, (slide, ends) in enumerate(_cut(film, slides, clips, facts)):
        file, back = _names(clips, i)
        _reverse(file, back, facts)
        entries.append(
            _SlideEntry(
                file=file.relative_to(folder.parent).as_posix(),
                rev_file=back.relative_to(folder.parent).as_posix(),
                loop=slide.still and _alike(*ends),
                notes=slide.notes,
            )
        )
        size = (ends[0].width, ends[0].height)
    ground = "#" + "".join(f"{round(255 * part):02x}" for part in palette.rgb(GROUND))
    path = folder / f"{name}.json"
    shown = _Presentation(slides=entries, resolution=size, background_color=ground)
    replace_text(path, msgspec.json.format(msgspec.json.encode(shown), indent=2).decode() + "\n")
    return path


def _names(clips: Path, i: int) -> tuple[Path, Path]:
    return clips / f"{i + 1:03d}.mp4", clips / f"{i + 1:03d}-reversed.mp4"


def _cut(
    film: Path, slides: Sequence[Slide], clips: Path, facts: dict[str, str]
) -> Iterator[tuple[Slide, tuple[av.VideoFrame, av.VideoFrame]]]:
    """Write the clips one after the other; gives each slide with its first and last frame once its clip is whole."""
    with av.open(str(film)) as source:
        frames = enumerate(source.decode(video=0))
        rate = Fraction(source.streams.video[0].average_rate or 30)
        for i, slide in enumerate(slides):
            inside: list[av.VideoFrame] = []
            with _opened(_names(clips, i)[0], source.streams.video[0], rate, facts) as (target, stream):
                for at, frame in frames:
                    if at < slide.first:
                        continue
                    inside = [*inside[:1], frame]
                    _write(target, stream, frame, at - slide.first)
                    if at + 1 >= slide.end:
                        break
            if inside:
                yield slide, (inside[0], inside[-1])


def _reverse(clip: Path, target: Path, facts: dict[str, str]) -> None:
    """The same pictures from the last to the first, a group of them in memory at a time."""
    with av.open(str(clip)) as source:
        stream = source.streams.video[0]
        groups: list[list[av.Packet[VideoStream]]] = []
        for packet in source.demux(stream):
            if packet.size:
                if packet.is_keyframe or not groups:
                    groups.append([])
                groups[-1].append(packet)
        count = 0
        with _opened(target, stream, Fraction(stream.average_rate or 30), facts) as (output, encoder):
            for group in reversed(groups):
                decoder = av.CodecContext.create(stream.codec_context.name, "r")
                assert isinstance(decoder, av.VideoCodecContext)
                decoder.extradata = stream.codec_context.extradata
                frames = [frame for packet in [*group, None] for frame in decoder.decode(packet)]
                for frame in reversed(frames):
                    _write(output, encoder, frame, count)
                    count += 1


@contextmanager
def _opened(
    path: Path, like: VideoStream, rate: Fraction, facts: dict[str, str]
) -> Iterator[tuple[OutputContainer, VideoStream]]:
    """A clip to write into, of pictures like another stream's; whole at a normal end."""
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags+faststart"}) as target:
        target.metadata.update(facts)
        stream = target.add_stream("libx264", rate=rate, options=_X264)
        stream.width, stream.height, stream.pix_fmt = like.width, like.height, "yuv420p"
        stream.codec_context.colorspace = like.codec_context.colorspace
        stream.codec_context.color_range = like.codec_context.color_range
        yield target, stream
        target.mux(stream.encode(None))


def _write(target: OutputContainer, stream: VideoStream, frame: av.VideoFrame, number: int) -> None:
    frame.pts, frame.time_base = number, 1 / Fraction(stream.average_rate or 30)
    frame.pict_type = 0  # the encoder chooses, not the film that it comes from
    target.mux(stream.encode(frame))


def _alike(one: av.VideoFrame, other: av.VideoFrame) -> bool:
    first, last = (frame.to_ndarray(format="gray").astype(np.float32) for frame in (one, other))
    rows, columns = (side // _BLOCK for side in first.shape)
    differences = np.abs(first - last)[: rows * _BLOCK, : columns * _BLOCK]
    return bool((differences.reshape(rows, _BLOCK, columns, _BLOCK).mean(axis=(1, 3)) <= _ALIKE).all())
