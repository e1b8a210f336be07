"""Who is writing: a lock file next to the target, with the process and the host that hold it.

The system releases the lock of a process that ended, however it ended: the file that it leaves locks nothing. Where the
file system knows no locks, the process and the host in the file decide.
"""

import contextlib
import errno
import os
import socket
import weakref
from pathlib import Path

from tracereel.trace.format.atomic import naming

try:
    import fcntl
except ImportError:  # a system without flock: see `_try`
    fcntl = None  # type: ignore[assignment]

_HELD: "weakref.WeakSet[Lock]" = weakref.WeakSet()
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class LockedError(Exception):
    """Another writer is at work; the message is one line that names it and what to do."""


class Lock:
    """Held from its making until `release()`, or as a context manager; one writer of `target` at a time.

    Raises LockedError where another one holds it, also in this process, and OSError, which names the target, where the
    lock file cannot be made. A forked child does not hold what its parent holds.
    """

    def __init__(self, target: Path):
        self.path = target.with_name(f".{target.name}.lock")
        self._target = target
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._descriptor = self._taken()
        except OSError as error:
            raise naming(error, target) from None
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
        _HELD.add(self)

    def _taken(self) -> int:
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                self._try(descriptor)
                # The last holder may have removed the file after it was opened here.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                        return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _try(self, descriptor: int) -> None:
        """Take the lock of an open lock file. Raises LockedError where it is held."""
        holder = os.pread(descriptor, 300, 0).decode(errors="replace").split()
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "this system knows no flock")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._held_by(holder) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            if _is_alive(holder):
                raise self._held_by(holder) from None

    def _held_by(self, holder: list[str]) -> LockedError:
        who = f"process {holder[0]} on {holder[1]}" if len(holder) == 2 else "another process"
        return LockedError(f"{self._target}: {who} is writing it; wait until it has ended, or name another target")

    def release(self) -> None:
        """Let others write. Once is enough; a forked child's call does nothing."""
        if self in _HELD:
            _HELD.discard(self)
            with contextlib.suppress(OSError):
                self.path.unlink()
            os.close(self._descriptor)

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _is_alive(holder: list[str]) -> bool:
    """Does the holder that a lock file names still run? Another host's is taken to."""
    if len(holder) != 2 or not holder[0].isdigit():
        return False
    if holder[1] != socket.gethostname():
        return True
    try:
        os.kill(int(holder[0]), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _forget_in_child() -> None:
    """The child's copies of the descriptors would keep the locks after the parent's end."""
    for lock in list(_HELD):
        os.close(lock._descriptor)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
