"""Is what goes with a film its own? Captions and still next to it; chapters, sound and tags within its file.

Knows files and containers. Does not look at the film's pictures.
"""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image
from tracereel.film.beat import Beat
from tracereel.film.captions import Cue, chapters_of, cues_of, srt, vtt
from tracereel.film.frames import BeatFrames
from tracereel.film.pictures import distance, planes_of
from tracereel.film.provenance import PREFIX
from tracereel.film.redrawing import Redrawing, pixels_of
from tracereel.film.schedule import starts_of
from tracereel.film.settings import VOICE
from tracereel.film.sound import soundtrack
from tracereel.film.sound_comparison import sound_faults
from tracereel.film.stills import still_of
from tracereel.film.voices import ESPEAK, SoundError

_LARGEST_TEXT = 4 * 2**20
_TAGS = {"major_brand", "minor_version", "compatible_brands", "encoder", "comment", "creation_time", "duration"}
_MANIMS = "Rendered with Manim Community v"
_STREAM_TAGS = {"handler_name", "vendor_id", "language", "encoder", "duration", "creation_time", "alpha_mode", "id"}
_APART_S = 0.002
_STILL_APART = 6.0


def attachment_faults(film: Path, redrawing: Redrawing) -> list[str]:
    """What is wrong with captions, still, chapters, sound and tags; a file that is not there is none of them."""
    faults = _tag_faults(film)
    if redrawing.recipe.clip is not None:
        return faults
    rate = redrawing.recipe.rate
    film_s = len(redrawing.film) / rate
    timed_beats = list(zip(starts_of(redrawing.beats, rate), redrawing.beats, strict=True))
    cues, chapters = cues_of(timed_beats), chapters_of(timed_beats, film_s)
    texts = {".srt": srt(cues), ".vtt": vtt(cues), ".chapters.vtt": vtt(chapters)}
    faults += [fault for suffix, text in texts.items() if (fault := _text_fault(film.with_suffix(suffix), text))]
    if film.suffix != ".gif":
        faults += _chapter_faults(film, chapters)
        faults += _sound_faults(film, redrawing, timed_beats, cues)
    faults += _still_faults(film.with_suffix(".png"), redrawing)
    return faults


def _text_fault(path: Path, text: str) -> str | None:
    if not path.is_file():
        return None
    if path.stat().st_size > _LARGEST_TEXT:
        return f"{path.name}: is over {_LARGEST_TEXT >> 20} MiB; no film's captions are"
    there, made = path.read_bytes().decode("utf-8", "replace").splitlines(), text.splitlines()
    for number, (said, wanted) in enumerate(zip(there, made, strict=False), 1):
        if said != wanted:
            return f"{path.name}, line {number}: says {said[:80]!r}, the film {wanted[:80]!r}"
    return None if len(there) == len(made) else f"{path.name}: has {len(there)} lines, the film's words {len(made)}"


def _chapter_faults(film: Path, chapters: list[Cue]) -> list[str]:
    with av.open(str(film)) as container:
        there = [
            (float(chapter["start"] * (chapter["time_base"] or 0)), chapter["metadata"].get("title", ""))
            for chapter in container.chapters()
        ]
    made = [(chapter.from_s, chapter.text) for chapter in chapters]
    if len(there) != len(made):
        return [f"the film has {len(there)} chapters, it was made with {len(made)}"]
    return [
        f"a chapter: the film says {title[:80]!r} at {at:.2f} s, it was made with {name[:80]!r} at {start:.2f} s"
        for (at, title), (start, name) in zip(there, made, strict=True)
        if title != name or abs(at - start) > _APART_S
    ]


def _sound_faults(
    film: Path, redrawing: Redrawing, timed_beats: Sequence[tuple[float, Beat]], cues: Sequence[Cue]
) -> list[str]:
    """Is there one track of pictures, and where there is to be sound one with what the traces make?"""
    settings, film_s = redrawing.show.settings, len(redrawing.film) / redrawing.recipe.rate
    with av.open(str(film)) as container:
        kinds = sorted(stream.type for stream in container.streams)
    wanted = ["audio", "video"] if settings.sound or settings.narration else ["video"]
    if [kind for kind in kinds if kind != "data"] != wanted:
        return [f"the film has tracks of {', '.join(kinds)}; it was made with {', '.join(wanted)}"]
    read_by, voice = redrawing.recipe.settings.get(VOICE, ESPEAK), settings.voice.fact
    if settings.narration and read_by != voice:
        said = f"{_short(read_by)} reads its captions, not {_short(voice)}"
        return [f"its sound was not compared: {said}; name its voice with --voice"]
    try:
        made = soundtrack(settings, timed_beats, cues, film_s)
        return [] if made is None else sound_faults(film, made)
    except (SoundError, av.FFmpegError) as error:
        return [f"its sound was not compared: {error}"]


def _short(voice: str) -> str:
    """A voice with the first digits of its digest."""
    name, colon, digest = voice.rpartition(":")
    return f"{name}{colon}{digest[:12]}"


def _tag_faults(film: Path) -> list[str]:
    """Tags that neither tracereel nor an encoder writes."""
    if film.suffix == ".gif":
        return []
    with av.open(str(film)) as container:
        tags = {name.lower(): value for name, value in container.metadata.items()}
        inner = {name.lower() for stream in container.streams for name in stream.metadata}
    known = {name for name in tags if name.startswith(PREFIX)} | _TAGS
    faults = [f"the tag {name[:40]!r} is not the film's: {tags[name][:80]!r}" for name in sorted(tags.keys() - known)]
    if not tags.get("comment", _MANIMS).startswith(_MANIMS):
        faults.append(f"the comment is not the film's: {tags['comment'][:80]!r}")
    faults += [f"a track's tag {name[:40]!r} is not the film's" for name in sorted(inner - _STREAM_TAGS)]
    return faults


def _still_faults(path: Path, redrawing: Redrawing) -> list[str]:
    if not path.is_file():
        return []
    beat, second = still_of(redrawing.beats)
    made = pixels_of(BeatFrames(beat, redrawing.show).at(second))
    try:
        with Image.open(path) as image:
            size, there = image.size, None
            if size == redrawing.show.pixels:
                there = np.ascontiguousarray(np.asarray(image.convert("RGBA"))[:, :, [2, 1, 0, 3]])
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        return [f"{path.name}: is no picture ({error})"]
    if there is None:
        return [f"{path.name}: is {size[0]}x{size[1]} pixels, the film {redrawing.recipe.size}"]
    found = distance(planes_of(made), planes_of(there))
    if max(found.light, found.colour) > _STILL_APART:
        return [f"{path.name}: is not what the traces draw, most of all at {found.light_at[0]},{found.light_at[1]}"]
    return []
