"""A film from the films of its scenes: joined without encoding anything again, its ledger, captions and sound with it.

Knows files, and beats for what they say. Renders nothing.
"""

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import msgspec
from tracereel.film.beat import Beat
from tracereel.film.ledger import LedgerFile, ledger_path, read_ledger
from tracereel.film.passages import instants_of, passages_of
from tracereel.film.provenance import provenance_of, read_stamp
from tracereel.film.publishing import publish
from tracereel.film.recipe import Recipe, code_digest
from tracereel.film.schedule import schedule, starts_of
from tracereel.film.show import Show
from tracereel.film.staging import staged

JOB = "job"
"""The entry of a film's metadata that says from what it was rendered: equal for equal films."""


class AssemblyError(Exception):
    """Films cannot be joined; the message is one line."""


def job_digest(recordings: Sequence[Path], settings: dict[str, str]) -> str:
    """What a render depends on: the recordings, everything that was asked for, and this package's own source."""
    digest = hashlib.sha256(code_digest().encode())
    for path in recordings:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    for name, value in sorted(settings.items()):
        digest.update(f"{name}={value}\n".encode())
    return digest.hexdigest()


def is_fresh(film: Path, job: str) -> bool:
    """Is the film there, whole, with its ledger, and rendered from just this?"""
    try:
        return ledger_path(film).is_file() and read_stamp(film).get(JOB) == job
    except (OSError, av.FFmpegError):
        return False


def join(name: str, parts: Sequence[Path], beats: Sequence[Beat], target: Path, show: Show, job: str) -> None:
    """Put the films of scenes, each of one beat, one after the other into `target`, the film `name`.

    Raises LedgerError where a part's ledger cannot be read, RecipeError where it does not say from what it was made,
    AssemblyError where the parts were not encoded alike.
    """
    ledgers = [read_ledger(part)[0] for part in parts]
    rate = ledgers[0].frame_rate
    first, claims = 0, []
    transparent = Recipe.read(ledgers[0].provenance).transparent
    recipe = Recipe.of(name, show, rate, transparent=transparent)
    facts = {**provenance_of(list(show.shown.values())), **recipe.facts, JOB: job}
    timed_beats = list(zip(starts_of(beats, rate), beats, strict=True))
    for ledger in ledgers:
        claims += [msgspec.structs.replace(c, first=c.first + first, last=c.last + first) for c in ledger.claims]
        first += ledger.frames
    clock = passages_of(instants_of(beats, schedule(beats, rate)))
    whole = LedgerFile(film=target.name, frames=first, frame_rate=rate, provenance=facts, clock=clock, claims=claims)
    with staged(target) as folder:
        film = folder / target.name
        _join_pictures(parts, [ledger.frames for ledger in ledgers], Fraction(rate).limit_denominator(1001), film)
        publish(film, show, timed_beats, whole)


def _join_pictures(parts: Sequence[Path], frames: Sequence[int], rate: Fraction, target: Path) -> None:
    with av.open(str(target), "w") as output:
        stream, like, before = None, None, 0
        for part, count in zip(parts, frames, strict=True):
            with av.open(str(part)) as source:
                pictures = source.streams.video[0]
                kind = (pictures.codec_context.name, pictures.width, pictures.height, pictures.codec_context.extradata)
                if stream is None or like is None:
                    stream, like = output.add_stream_from_template(pictures), kind
                elif kind != like:
                    raise AssemblyError(f"{part}: encoded unlike {parts[0]}; render both again")
                assert pictures.time_base is not None
                shift = round(before / rate / pictures.time_base)
                for packet in source.demux(pictures):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = stream
                    output.mux(packet)
            before += count
