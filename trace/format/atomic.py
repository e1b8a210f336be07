"""One writer, one file: each writes a temporary file of its own, which takes the place of the target in one move.

Knows names and file systems. Does not know what is written. Who may write at all is `locks`'s to say.
"""

import contextlib
import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

PARTIAL_SUFFIX = ".partial"


def target_of(path: Path) -> Path:
    """The file that a writer of `path` replaces: where `path` is a link, the file it names, so that the link stays.

    Raises OSError where something stands there that is no regular file: a folder, a pipe, a device.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return Path(os.path.realpath(path)) if path.is_symlink() else path
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder; name a file", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file; name a file", str(path))
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def require_file(path: Path) -> None:
    """Raise OSError where `path` names no regular file: opening a pipe that nobody writes to would wait for ever."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))


def unfinished_name(name: str) -> str:
    """A name for a file on its way to `name`, never given twice: `run.3f9c21aa.jsonl.zst.partial`."""
    head, dot, rest = name.partition(".")
    return f"{head}.{secrets.token_hex(4)}{dot}{rest}{PARTIAL_SUFFIX}"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file next to `path`, of the same suffix, for a library to write; at a normal end it replaces `path`.

    After an exception it is removed, and what was at `path` is as it was. Raises OSError that names `path`.
    """
    target = target_of(path)
    part = target.with_name(f"{target.stem[:100]}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.open("xb").close()
        yield part
        sync(part)
        part.replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(part)):
            raise naming(error, path) from error
        raise


@contextlib.contextmanager
def replacing_all(folder: Path) -> Iterator[Path]:
    """A temporary folder in `folder`, for files that belong together; at a normal end all of them take their places.

    After an exception it is removed, and what was in `folder` is as it was. Raises OSError that names the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        place = Path(tempfile.mkdtemp(prefix=".", suffix=PARTIAL_SUFFIX, dir=folder))
    except OSError as error:
        raise naming(error, folder) from error
    try:
        yield place
        targets = {file: target_of(folder / file.name) for file in sorted(place.iterdir())}
        for file in targets:
            sync(file)
        for file, target in targets.items():
            file.replace(target)
    except OSError as error:
        if str(error.filename).startswith(str(place)):
            raise naming(error, folder / Path(error.filename).name) from error
        raise
    finally:
        shutil.rmtree(place, ignore_errors=True)


def naming(error: OSError, path: Path) -> OSError:
    """The system's error, of `path`; a new one, since those of libraries (PyAV's) cannot be given another name."""
    return OSError(error.errno, error.strerror or str(error), str(path))


def sync(path: Path) -> None:
    """Have the disk take what was written; a full one may say so only now. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
