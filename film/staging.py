"""Where a film is made until it is whole: a folder of its own next to its place, with all that goes with the film.

A film that was there before stays as it is until ledger, captions, still and stamp of the new one are all made. Knows
folders. Does not know what makes the film.
"""

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tracereel.trace.format.atomic import naming, sync, target_of
from tracereel.trace.format.locks import Lock


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder to make the film `target` in, under its own name, and its other files.

    At a normal end all files of the folder take their places next to `target`, the film last; after an exception they
    are removed. The folder's path holds no character of the user's own: libraries that read paths as patterns or quote
    them are given this one. Raises LockedError where another process makes the same film, and OSError.
    """
    target = target_of(target).absolute()
    with Lock(target):
        # Nobody else makes this film now: what is left of such a folder is of a process that was killed.
        for left in target.parent.glob(f".{target.stem}.*.making"):
            shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.stem}.", suffix=".making", dir=target.parent))
        try:
            with tempfile.TemporaryDirectory(prefix="tracereel-") as plain:
                link = Path(plain) / "film"
                link.symlink_to(folder, target_is_directory=True)
                try:
                    yield link
                except OSError as error:
                    if str(error.filename).startswith(str(link)):
                        raise naming(error, target.parent / Path(error.filename).name) from error
                    raise
                except Exception as error:
                    # Manim's encoder wraps what the disk said.
                    if (cause := _of_the_disk(error)) is None:
                        raise
                    raise naming(cause, target) from error
            made = sorted(
                (path for path in folder.iterdir() if path.is_file()), key=lambda path: path.name == target.name
            )
            for path in made:
                sync(path)
            for path in made:
                path.replace(target.parent / path.name)
        finally:
            with suppress(OSError):
                shutil.rmtree(folder)


def _of_the_disk(error: BaseException | None) -> OSError | None:
    """The system's error from which another was raised, or None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            return error
        error = error.__cause__ or error.__context__
    return None
