"""What a film says, as files next to it: captions (.srt, .vtt) and chapters, all made from what its beats say.

Knows seconds and texts. Does not know how a caption looks in the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tracereel.film.beat import Beat
from tracereel.trace.format.storage import replace_text


@dataclass(frozen=True)
class Cue:
    """A text and the seconds of film during which it holds. `link` leads to its first instant in the player."""

    from_s: float
    to_s: float
    text: str
    link: str = ""


def cues_of(timed_beats: Sequence[tuple[float, Beat]]) -> list[Cue]:
    """Every caption of the beats, which begin at these seconds."""
    return [
        Cue(start + from_s, start + to_s, phrase.text)
        for start, beat in timed_beats
        for from_s, to_s, phrase in beat.spoken()
    ]


def chapters_of(timed_beats: Sequence[tuple[float, Beat]], film_s: float) -> list[Cue]:
    """A chapter a beat, from its beginning to the next one's."""
    starts = [0.0, *(start for start, _ in timed_beats[1:]), film_s]
    return [Cue(starts[i], starts[i + 1], beat.title.text, _link(beat)) for i, (_, beat) in enumerate(timed_beats)]


def _link(beat: Beat) -> str:
    """The player's link to where a beat begins (web/links.js of the player reads it)."""
    seconds = f"{beat.clock.engine_ns(0) / 1e9:.9f}".rstrip("0").rstrip(".")
    return f"#run={beat.runs[0].trace.name}&t={seconds}" if beat.runs else ""


def write_captions(film: Path, cues: Sequence[Cue], chapters: Sequence[Cue]) -> None:
    """Write `<film>.srt`, `<film>.vtt` and `<film>.chapters.vtt` next to a film, its suffix left out."""
    replace_text(film.with_suffix(".srt"), srt(cues))
    replace_text(film.with_suffix(".vtt"), vtt(cues))
    replace_text(film.with_suffix(".chapters.vtt"), vtt(chapters))


def srt(cues: Sequence[Cue]) -> str:
    """SubRip text."""
    return "\n".join(f"{i}\n{_span(cue, ',')}\n{_line(cue.text)}\n" for i, cue in enumerate(cues, 1))


def vtt(cues: Sequence[Cue]) -> str:
    """WebVTT; what would be read as markup is escaped. A cue's link is a note before it, which no player shows."""
    escaped = [_line(cue.text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for cue in cues]
    entries = [
        (f"NOTE {cue.link}\n\n" if cue.link else "") + f"{_span(cue, '.')}\n{text}\n"
        for cue, text in zip(cues, escaped, strict=True)
    ]
    return "\n".join(["WEBVTT\n", *entries])


def _line(text: str) -> str:
    return " ".join(text.split()) or "…"


def _span(cue: Cue, point: str) -> str:
    return f"{_time(cue.from_s, point)} --> {_time(cue.to_s, point)}"


def _time(seconds: float, point: str) -> str:
    whole = round(seconds * 1000)
    hours, rest = divmod(whole, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"
