"""The directory of a run: found fit to be one, made, and cleared. No link in it is followed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shlex
import stat
import tempfile
from pathlib import Path

from aevae_jax import durable
from aevae_jax.checkpoints import array_files
from aevae_jax.runs.records import CHECKPOINTS, PARTS, RECORD, holds
from aevae_jax.types import InputError


def check_place(folder: Path) -> None:
    """Refuse a name that no directory can have, and a place that cannot be looked at.

    Raises:
      InputError: it is too long, not UTF-8, a file, within a private directory or a file, or a link to itself.
    """
    try:
        str(folder).encode()
        if not stat.S_ISDIR(folder.stat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise _no_place(folder, error) from None


def create_directory(folder: Path) -> Path:
    """Make a new directory; refuse one that already holds something."""
    check_place(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise _taken(folder, "is not empty")
    return _writable(folder)


def open_directory(folder: Path, *, fresh: bool = False) -> Path:
    """Make a directory for a run; accept one that holds a run.

    Args:
      folder: where.
      fresh: accept parts of a run without its record as well: they will be deleted.

    Raises:
      InputError: it holds something else, or parts of a run that nothing says what they are of; or it is none.
    """
    check_contents(folder, fresh=fresh)
    return _writable(folder)


def check_contents(folder: Path, *, fresh: bool = False) -> None:
    """Refuse what `open_directory` refuses for what is in it, and make nothing."""
    check_place(folder)
    if folder.is_dir() and not holds(folder, RECORD):
        names = sorted(path.name for path in folder.iterdir() if path.name != "lock" and path.suffix != durable.PART)
        if others := [name for name in names if name not in PARTS]:
            raise _taken(folder, f"is not empty ({others[0]})")
        if names and not fresh:
            raise InputError(
                "run directory",
                got=f"{folder}, which holds {names[0]} and no {RECORD}",
                expected="a run with its record, or an empty directory",
                hint=f"put {RECORD} back, or start over with --fresh",
            )


def clear_directory(folder: Path) -> None:
    """Delete a run, and nothing else; no link is followed.

    All of it is moved out of the way before anything is deleted, and the record first: what is left of a run whose
    deletion was cut short has no record, and is never taken for a run.

    Raises:
      InputError: something cannot be deleted. Where that was seen in time, nothing is.
    """
    token, moved = secrets.token_hex(8), list[tuple[Path, Path]]()
    try:
        for place, _, _ in os.walk(folder / CHECKPOINTS) if not (folder / CHECKPOINTS).is_symlink() else ():
            if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), place)
        for name in PARTS:
            if holds(folder, name):
                aside = folder / f".{token}-{name}{durable.PART}"
                (folder / name).rename(aside)
                moved.append((folder / name, aside))
        durable.sync(folder)
    except OSError as error:
        for path, aside in reversed(moved):
            with contextlib.suppress(OSError):
                aside.rename(path)
        raise InputError(
            "run directory",
            got=f"a run that cannot be deleted ({array_files.reason(error)})",
            expected="permission to delete it",
            where=str(folder),
            hint="nothing was deleted; choose another directory",
        ) from None
    for path, aside in moved:
        try:
            array_files.remove(aside)
        except OSError as error:
            raise InputError(
                "run directory",
                got=f"{path.name}, which cannot be deleted ({array_files.reason(error)})",
                expected="permission to delete it",
                where=str(folder),
                hint=f"remove {aside.name} by hand",
            ) from None


def sweep(folder: Path) -> None:
    """Remove what killed processes left half written or half deleted, as far as that is possible."""
    for path in folder.iterdir():
        if re.fullmatch(rf"\.[0-9a-f]{{16}}(-.*)?\{durable.PART}", path.name):
            with contextlib.suppress(OSError):
                array_files.remove(path)


def _taken(folder: Path, state: str) -> InputError:
    return InputError(
        "run directory",
        got=f"{folder}, which {state}",
        expected="a new or empty directory",
        hint=f"type another name, such as {shlex.quote(str(durable.unused(folder)))}",
    )


def _no_place(folder: Path, error: Exception) -> InputError:
    reason = error.strerror if isinstance(error, OSError) else "a name that is not UTF-8"
    free = durable.unused(folder) if isinstance(error, NotADirectoryError) and folder.is_file() else None
    hint = f"type another name, such as {shlex.quote(str(free))}" if free else ""
    return InputError("run directory", got=f"{folder} ({reason})", expected="a directory to write in", hint=hint)


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise _no_place(folder, error) from None
