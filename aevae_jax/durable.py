"""The one way to write a file, and the one way to open a file that was not made here.

What is written appears whole or not at all, survives a crash of the machine once the call returns, and follows no link.
What is read is a regular file of a bounded size: a FIFO, a device or a sparse giant is refused before a byte is read.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from aevae_jax.types import InputError

PART = ".part"
"""The suffix of a file that is still being written; one that stays behind was left by a process that was killed."""


_BEGUN = set[Path]()


@contextlib.contextmanager
def begun(part: Path) -> Iterator[None]:
    """Remove a file or a folder in the end, whatever happens: what is finished has got another name by then."""
    _BEGUN.add(part)
    try:
        yield
    finally:
        _remove(part)
        _BEGUN.discard(part)


def remove_begun() -> None:
    """Remove all that `begun` would: for who ends the program without passing there."""
    for part in list(_BEGUN):
        _remove(part)


def _remove(part: Path) -> None:
    with contextlib.suppress(OSError):
        part.unlink()
        return
    shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def replacing(path: Path, *, what: str = "output") -> Iterator[BinaryIO]:
    """Open a new file, which becomes `path` when the block ends; after an error `path` is as it was.

    The file is created exclusively under a name that cannot be guessed, so no link that lies there is followed; it and
    its directory are synced, so that it survives a power cut.

    Args:
      path: the name that the file gets; a file or link of that name is replaced, and what the link led to is untouched.
      what: what is written, for messages.

    Raises:
      InputError: the file cannot be written. Errors of the block itself, other than `OSError`, pass through.
    """
    part = path.with_name(f".{secrets.token_hex(8)}{PART}")
    try:
        with begun(part):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(part, flags, 0o666), "w+b") as file:
                yield cast(BinaryIO, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            sync(path.parent)
    except OSError as error:
        raise unwritable(path, error, what=what) from None


def unused(path: str | Path) -> Path:
    """Return a path, or the first one with a number at the end of its name, under which nothing exists: `x-2.png`."""
    path = Path(path)
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
    return next(each for each in itertools.chain([path], numbered) if not os.path.lexists(each))


def make_room(path: Path, *, what: str = "output") -> None:
    """Make the folder of a file that is written after long work, if there is none, and try to write there.

    Raises:
      InputError: that fails, and so before the work.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise unwritable(path, error, what=what) from None


def write_bytes(path: Path, contents: bytes, *, what: str = "output") -> None:
    """Write a whole file at once, as `replacing` does."""
    with replacing(path, what=what) as file:
        file.write(contents)


def append(path: Path, contents: bytes, *, what: str = "output") -> None:
    """Add to the end of a regular file, which exists or not; what was added is on the disk once this returns.

    Raises:
      InputError: the file cannot be written, or is a link or a special file.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags, 0o666), "ab") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritable(path, error, what=what) from None


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_regular(path: Path, *, limit: int | None = None, what: str = "input") -> BinaryIO:
    """Open a file for reading, if it is a regular file of at most `limit` bytes. Links to such a file are followed.

    Args:
      path: where it is.
      limit: the largest size in bytes; `None` for whoever reads no more than a header before looking at the size.
      what: what is read, for messages.

    Raises:
      InputError: there is no such file, it is a directory, a FIFO or a device, it is too large, or it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would wait for a writer
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise unreadable(path, error, what=what) from None
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            kind = "a directory" if stat.S_ISDIR(state.st_mode) else "a FIFO, device or socket"
            raise InputError(what, got=kind, expected="a regular file", where=str(path))
        if limit is not None and state.st_size > limit:
            raise InputError(what, got=f"{state.st_size:,} bytes", expected=f"at most {limit:,}", where=str(path))
        return cast(BinaryIO, os.fdopen(descriptor, "rb"))
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: Path, *, limit: int, what: str = "input") -> bytes:
    """Read a regular file whole, if it has at most `limit` bytes; otherwise as `open_regular`."""
    with open_regular(path, limit=limit, what=what) as file:
        try:
            contents = file.read(limit + 1)
        except OSError as error:
            raise unreadable(path, error, what=what) from None
    if len(contents) > limit:  # it has grown since, or never said how long it is
        raise InputError(what, got=f"more than {limit:,} bytes", expected="a file of that size", where=str(path))
    return contents


def unreadable(path: Path, error: Exception, *, what: str) -> InputError:
    """Return one line about a file that could not be read."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return InputError(what, got="no file", expected="a file that exists", where=str(path))
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return InputError(what, got=f"a file that cannot be read ({reason})", expected="a readable file", where=str(path))


def unwritable(path: Path, error: OSError, *, what: str) -> InputError:
    """Return one line about a file that could not be written."""
    return InputError(
        what,
        got=f"{path.name}, which cannot be written ({error.strerror or error})",
        expected="room and permission",
        where=str(path.parent),
    )
