"""A short silent picture that moves, cut from a film: for a README. Knows films and picture files, nothing else."""

from pathlib import Path

import av
from PIL import Image


class ClipError(Exception):
    """The clip cannot be made; the message is one line."""


def clip(film: Path, target: Path, from_s: float, to_s: float, width: int, fps: float) -> int:
    """Write the film from `from_s` to `to_s` as an animated .webp or .gif; returns its frames. Raises ClipError."""
    if target.suffix not in (".webp", ".gif"):
        raise ClipError(f"{target}: a clip is a .webp or a .gif")
    try:
        frames = _frames(film, from_s, to_s, width, fps)
    except (OSError, av.FFmpegError) as error:
        raise ClipError(f"{film}: cannot be read ({error.strerror})") from None
    if not frames:
        raise ClipError(f"{film}: nothing between {from_s:g} s and {to_s:g} s")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.stem}.partial{target.suffix}")
    options = {"quality": 70, "method": 4} if target.suffix == ".webp" else {"optimize": True}
    frames[0].save(part, save_all=True, append_images=frames[1:], duration=round(1000 / fps), loop=0, **options)
    part.replace(target)
    return len(frames)


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
                due += 1 / fps
    return frames
