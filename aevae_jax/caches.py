"""Where this package keeps what it can make again: a folder of the user's, which may be deleted at any moment."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from aevae_jax.types import InputError


def place(name: str) -> Path | None:
    """Return where the part `name` of the cache is: in `$AEVAE_CACHE_DIR`, `$XDG_CACHE_HOME/aevae_jax` or
    `~/.cache/aevae_jax`; `None` where there is no home folder, or `$AEVAE_NO_CACHE` is set.
    """
    if os.environ.get("AEVAE_NO_CACHE"):
        return None
    own, base = os.environ.get("AEVAE_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.path.expanduser(own or os.path.join(base, "aevae_jax"))
    return None if home.startswith("~") else Path(os.path.abspath(home), name)  # as it is left where there is no home


def private(folder: Path) -> None:
    """Make a folder that nobody else may write to, or see that it is one: what lies there is trusted.

    Raises:
      InputError: it is somebody else's, others may write to it, or it can neither be written nor made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.stat()
    except OSError as error:
        got = f"{folder} ({error.strerror or error})"
    else:
        if state.st_uid == os.geteuid() and not state.st_mode & 0o022:
            if state.st_mode & 0o200 and os.access(folder, os.W_OK):  # root may write anywhere
                return
            got = f"{folder}, which cannot be written"
        else:
            got = f"{folder}, which others may write to"
    raise InputError("cache", got=got, expected="a folder of your own", hint="set AEVAE_CACHE_DIR")


def trim(folder: Path, limit: int) -> None:
    """Delete the files in a folder, and in those within, that were not used for longest, if there are more than `limit`
    bytes: down to half of that, so that it is seldom done.

    Other processes may read, write and trim at the same time.
    """
    files = []
    for within, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # it is gone already
                path = os.path.join(within, name)
                state = os.lstat(path)
                files.append((max(state.st_atime, state.st_mtime), state.st_size, path))
    total = sum(size for _, size, _ in files)
    if total <= limit:
        return
    for _, size, path in sorted(files):
        if total <= limit // 2:
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
        total -= size
