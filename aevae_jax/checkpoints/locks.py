"""One process at a time writes in a run's directory: an advisory lock that the kernel releases when its holder dies."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from datetime import UTC, datetime
from pathlib import Path

from aevae_jax.types import InputError


class Lock:
    """An exclusive lock on a directory, made by `Lock.claim`; also a context manager that releases it at the end.

    The file `lock` in the directory says who holds it. That it exists means nothing: what counts is the kernel's lock
    on it, which ends with the process, however that ends. A program that the holder starts does not inherit it, and
    neither does a fork of the holder: in the child this object is released, and the parent still holds the lock.
    """

    def __init__(self, folder: Path, descriptor: int):
        """Use `Lock.claim`. `descriptor` is of the open file `lock` in `folder`, locked."""
        self._folder = folder
        self._path = (folder / "lock").absolute()  # the process may change its working directory
        self._descriptor: int | None = descriptor
        _HELD.add(self)

    @classmethod
    def claim(cls, folder: Path) -> Lock:
        """Lock an existing directory, at once or not at all.

        Raises:
          InputError: another process, or another `Lock` of this one, holds it; or there is no such directory, or no
            file can be written in it.
        """
        try:
            while True:
                descriptor = _open_locked(folder)
                if descriptor is not None:
                    break
        except OSError as error:
            raise InputError(
                "run directory", got=f"{folder} ({error.strerror})", expected="a directory to write in"
            ) from None
        return cls(folder, descriptor)

    def check(self) -> None:
        """Refuse to continue where the directory is no longer the one that was locked.

        Raises:
          InputError: the directory, or the lock file in it, was removed or replaced.
          RuntimeError: the lock was released before.
        """
        if self._descriptor is None:
            raise RuntimeError("the lock was released")
        if not _is_at(self._descriptor, self._path):
            raise InputError(
                "run directory",
                got=f"{self._folder}, removed or replaced while the run was writing to it",
                expected="a directory that stays until the run ends",
                hint="start the run again",
            )

    def release(self) -> None:
        """Remove the lock file and let others in. May be repeated, also after the directory has vanished."""
        descriptor, self._descriptor = self._descriptor, None
        _HELD.discard(self)
        if descriptor is None:
            return
        try:
            if _is_at(descriptor, self._path):  # else it is another's by now
                self._path.unlink()
        except OSError:
            pass  # a file that stays behind locks nobody out
        finally:
            os.close(descriptor)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def holder(folder: Path) -> str:
    """Return who holds the lock of a directory, as the lock file says; empty where nobody does. Nothing is written.

    The kernel is asked by a shared lock, which is let go at once: `Lock.claim` waits for as long as that takes.
    """
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _signed(descriptor)
    except OSError:  # a file system that has no locks
        return ""
    finally:
        os.close(descriptor)
    return ""


_HELD: set[Lock] = set()


def _forget_after_fork() -> None:
    """Close the copies of locks that a fork has: a child shares the open file, and would hold the lock beyond its
    parent.
    """
    for lock in _HELD:
        if lock._descriptor is not None:
            os.close(lock._descriptor)  # closed and not unlocked: unlocking would be for the parent as well
            lock._descriptor = None
    _HELD.clear()


os.register_at_fork(after_in_child=_forget_after_fork)


_SIGNATURE = b"process "


def _open_locked(folder: Path) -> int | None:
    """Return the descriptor of the lock file, locked and signed; None if its holder removed it in the meantime."""
    path = folder / "lock"
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o644)  # not inheritable, as all of Python's
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode) or state.st_nlink > 1:
            raise OSError(errno.EINVAL, "lock is not a file of its own")
        if not _locked(descriptor):
            raise InputError(
                "run directory",
                got=f"one in use by {_signed(descriptor)}",
                where=str(folder),
                expected="one run at a time",
                hint="wait for it, stop it, or choose another directory",
            ) from None
        if not _is_at(descriptor, path):
            os.close(descriptor)
            return None
        if os.pread(descriptor, len(_SIGNATURE), 0).rstrip(b"\0") not in (b"", _SIGNATURE):  # NULs: after a power cut
            raise OSError(errno.EEXIST, "lock is a file of something else")
        os.ftruncate(descriptor, 0)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        os.write(descriptor, _SIGNATURE + f"{os.getpid()} on {socket.gethostname()} since {now}\n".encode())
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _signed(descriptor: int) -> str:
    """Return who says, in an open lock file, that it holds the lock."""
    return os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"


def _locked(descriptor: int) -> bool:
    """Return whether an open file could be locked; whoever asks who holds it has it for an instant, see `holder`."""
    for attempt in range(5):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.002 * attempt)
        else:
            return True
    return False


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether the open file is the one that `path` leads to."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    except OSError:
        return False
