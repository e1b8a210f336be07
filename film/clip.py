"""A short silent picture that moves, cut from a film: for a README. Knows films, their ledgers, and GIFs."""

from pathlib import Path

import av
import msgspec
from PIL import Image
from tracereel.film.ledger import LEDGER_DIGEST, LedgerFile, digest_of, encode_ledger, ledger_path, read_ledger
from tracereel.film.passages import instants_in, passages_of
from tracereel.film.provenance import stamp
from tracereel.film.recipe import Clip, Recipe
from tracereel.film.staging import staged
from tracereel.trace.format.storage import replace_bytes

_COLOURS = 255


class ClipError(Exception):
    """The clip cannot be made; the message is one line."""


def clip(film: Path, target: Path, from_s: float, to_s: float, width: int, fps: float) -> int:
    """Write the film from `from_s` to `to_s` as a GIF, its part of the film's ledger next to it; returns its frames.

    Raises ClipError, LedgerError, OSError.
    """
    if target.suffix != ".gif":
        raise ClipError(f"{target}: a clip is a .gif")
    ledger, _ = read_ledger(film)
    if fps > ledger.frame_rate:
        raise ClipError(f"{film}: has {ledger.frame_rate:g} frames a second; a clip has no more, so --fps at most that")
    part = Clip(from_s, to_s, fps, width)
    shown = part.frames(ledger.frame_rate, ledger.frames)
    if not shown:
        raise ClipError(f"{film}: nothing between {from_s:g} s and {to_s:g} s")
    try:
        frames = _frames(film, shown, width)
    except (OSError, av.FFmpegError) as error:
        raise ClipError(f"{error.filename or film}: cannot be read ({error.strerror})") from None
    if len(frames) < len(shown):
        raise ClipError(f"{film}: ends before frame {shown[len(frames)]}, which its ledger has")
    target.parent.mkdir(parents=True, exist_ok=True)
    flat = _flattened(frames)
    own = _part_of(ledger, target.name, shown, part)
    data = encode_ledger(own)
    with staged(target) as folder:
        made = folder / target.name
        # Hundredths of a second are what a GIF counts in.
        flat[0].save(made, save_all=True, append_images=flat[1:], duration=hundredths_of(fps) * 10, loop=0, disposal=1)
        stamp(made, {**own.provenance, LEDGER_DIGEST: digest_of(data)})
        replace_bytes(ledger_path(made), data)
    return len(frames)


def hundredths_of(rate: float) -> int:
    """How long a frame of a clip stands, in hundredths of a second."""
    return round(100 / rate)


def _part_of(ledger: LedgerFile, name: str, shown: list[int], part: Clip) -> LedgerFile:
    """What is claimed in these frames of a film, counted in frames of the clip."""
    claims = []
    for claim in ledger.claims:
        inside = [i for i, frame in enumerate(shown) if claim.first <= frame <= claim.last]
        if inside:
            claims.append(msgspec.structs.replace(claim, first=inside[0], last=inside[-1]))
    facts = {**ledger.provenance, **Recipe.read(ledger.provenance).clipped(part).facts}
    instants = instants_in(ledger.clock)
    known = [instants[frame] for frame in shown if frame in instants]
    return msgspec.structs.replace(
        ledger,
        film=name,
        frames=len(shown),
        frame_rate=part.rate,
        provenance=facts,
        clock=passages_of(known) if len(known) == len(shown) else [],
        claims=claims,
    )


def _frames(film: Path, shown: list[int], width: int) -> list[Image.Image]:
    wanted, frames = set(shown), []
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        height = round(stream.height * width / stream.width)
        for i, frame in enumerate(container.decode(stream)):
            if i > shown[-1]:
                break
            if i in wanted:
                picture: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
                frames.append(picture.resize((width, height), Image.Resampling.LANCZOS))
    return frames


def _flattened(frames: list[Image.Image]) -> list[Image.Image]:
    """The frames in one palette, without dithering: what stands still stays the same, and takes no room."""
    sample = frames[:: max(len(frames) // 6, 1)]
    width, height = frames[0].size
    sheet = Image.new("RGB", (width, height * len(sample)))
    for i, frame in enumerate(sample):
        sheet.paste(frame, (0, i * height))
    palette = sheet.quantize(_COLOURS)
    return [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
