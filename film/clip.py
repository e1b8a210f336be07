"""A short silent picture that moves, cut from a film: for a README. Knows films, their ledgers, and GIFs."""

from pathlib import Path

import av
import msgspec
from PIL import Image
from tracereel.film.ledger import LEDGER_DIGEST, LedgerFile, digest_of, encode_ledger, ledger_path, read_ledger
from tracereel.film.provenance import stamp
from tracereel.film.staging import staged
from tracereel.trace.format.storage import replace_text

_COLOURS = 255


class ClipError(Exception):
    """The clip cannot be made; the message is one line."""


def clip(film: Path, target: Path, from_s: float, to_s: float, width: int, fps: float) -> int:
    """Write the film from `from_s` to `to_s` as a GIF, its part of the film's ledger beside it; returns its frames.

    Raises ClipError, LedgerError, OSError.
    """
    if target.suffix != ".gif":
        raise ClipError(f"{target}: a clip is a .gif")
    try:
        frames = _frames(film, from_s, to_s, width, fps)
    except (OSError, av.FFmpegError) as error:
        raise ClipError(f"{error.filename or film}: cannot be read ({error.strerror})") from None
    ledger, _ = read_ledger(film)
    if not frames:
        raise ClipError(f"{film}: nothing between {from_s:g} s and {to_s:g} s")
    target.parent.mkdir(parents=True, exist_ok=True)
    flat = _flattened(frames)
    own = _part_of(ledger, target.name, from_s, len(frames), fps)
    text = encode_ledger(own)
    with staged(target) as folder:
        made = folder / target.name
        # Hundredths of a second are what a GIF counts in.
        flat[0].save(made, save_all=True, append_images=flat[1:], duration=round(100 / fps) * 10, loop=0, disposal=1)
        stamp(made, {**own.provenance, LEDGER_DIGEST: digest_of(text)})
        replace_text(ledger_path(made), text)
    return len(frames)


def _part_of(ledger: LedgerFile, name: str, from_s: float, frames: int, fps: float) -> LedgerFile:
    """What is claimed in these frames of a film, counted in frames of the clip."""
    # The clip's frame i is the film's first at or after from_s + i / fps.
    shown = [round((from_s + i / fps) * ledger.frame_rate) for i in range(frames)]
    claims = []
    for claim in ledger.claims:
        inside = [i for i, frame in enumerate(shown) if claim.first <= frame <= claim.last]
        if inside:
            claims.append(msgspec.structs.replace(claim, first=inside[0], last=inside[-1]))
    return msgspec.structs.replace(ledger, film=name, frames=frames, frame_rate=fps, claims=claims)


def _frames(film: Path, from_s: float, to_s: float, width: int, fps: float) -> list[Image.Image]:
    frames: list[Image.Image] = []
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        height = round(stream.height * width / stream.width)
        due = from_s
        for frame in container.decode(stream):
            at = float(frame.time or 0)
            if at >= to_s:
                break
            if at + 1e-6 >= due:
                picture: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
                frames.append(picture.resize((width, height), Image.Resampling.LANCZOS))
                due = from_s + len(frames) / fps
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
