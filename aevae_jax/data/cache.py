"""Decoded arrays kept beside what they were decoded from, so that nothing is decoded twice.

A cache is a hidden folder with one .npy file per array and a manifest that names their shapes, types and sha256 and the
state of the source. It appears whole or not at all, nothing in it is unpickled, and one that is damaged or of another
source is not read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aevae_jax import caches, durable
from aevae_jax.data import datasets, rows
from aevae_jax.types import InputError

FORMAT = 1
"""Goes up whenever the same source would be decoded to other arrays, or they would be kept in another way."""

FOLDER = ".aevae_cache"
MANIFEST = "manifest.json"
MAX_MANIFEST = 2**14

_NAME = re.compile(r"[\w.]+", re.ASCII)

STALE_SECONDS = 3600
"""An unfinished cache that nobody has written to for so long was left by a process that was killed."""


def fingerprint(source: Path) -> str:
    """Return the sha256 of the names, sizes and times of change of the files in the folder `source`; hidden ones do
    not count.
    """
    files = sorted(path for path in source.iterdir() if not path.name.startswith("."))
    states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()


def load(source: Path, state: str) -> dict[str, np.ndarray] | None:
    """Return the arrays that were decoded from the folder `source` in this `state`, or None if there is no intact
    cache.
    """
    for folder in _places(source):
        try:
            return _read(folder, state)
        except Exception:  # damage shows in many ways, and all have the same cure
            continue
    return None


def store(source: Path, state: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Keep `arrays` for the next `load`, in the first place that can be written; if there is none, do nothing.

    Args:
      source: the folder that they were decoded from.
      state: its fingerprint before decoding began.
      arrays: of at most `datasets.RESIDENT_BYTES`, by names of letters, digits and dots.
    """
    for folder in _places(source):
        with contextlib.suppress(OSError, InputError):
            if _writable(folder.parent):
                _write(folder, state, arrays)
                return


def _places(source: Path) -> Iterator[Path]:
    """Yield where a cache may be: beside the source's files; else in the user's cache folder."""
    yield source / FOLDER
    home = caches.place("arrays")
    if home is not None:
        yield home / hashlib.sha256(os.fsencode(os.path.realpath(source))).hexdigest()[:32]


def _writable(folder: Path) -> bool:
    """Return whether `folder` can be written, or made. Root may write anywhere, so no write bit at all counts as a
    no.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return os.access(there, os.W_OK) and there.stat().st_mode & 0o222 != 0


def _read(folder: Path, state: str) -> dict[str, np.ndarray]:
    """Return all arrays of an intact cache of a source in this state; anything else raises, whatever it may be."""
    manifest = durable.read_bytes(folder / MANIFEST, limit=MAX_MANIFEST)
    digests, kept = {}, {}
    for name in sorted(json.loads(manifest)["shape"]):
        if not _NAME.fullmatch(name):
            raise ValueError(f"a file called {name!r}")
        path = folder / f"{name}.npy"
        with durable.open_regular(path, limit=datasets.RESIDENT_BYTES + rows.MAX_HEADER) as file:
            digests[path.name] = _digest(file)
            file.seek(0)
            kept[name] = rows.read_open(file, path)[:]
    if manifest.decode() != _manifest(state, digests, kept):
        raise ValueError("damaged, incomplete or of another source")
    return kept


def _write(folder: Path, state: str, kept: Mapping[str, np.ndarray]) -> None:
    """Write beside `folder`, then rename; where another process does the same at once, one of the two stays."""
    for path in folder.parent.glob(f"{folder.name}.*"):
        with contextlib.suppress(OSError):  # it is gone already
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(path)
    part = folder.with_name(f"{folder.name}.{secrets.token_hex(8)}")
    with durable.begun(part):
        part.mkdir(parents=True)
        digests = {}
        for name, array in sorted(kept.items()):
            with durable.replacing(part / f"{name}.npy") as file:
                np.save(file, array, allow_pickle=False)
                file.seek(0)
                digests[f"{name}.npy"] = _digest(file)
        durable.write_bytes(part / MANIFEST, _manifest(state, digests, kept).encode())
        with contextlib.suppress(OSError):  # the other process was faster
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder)
            else:  # `rmtree` would wait for whoever writes to a FIFO
                folder.unlink(missing_ok=True)
            part.rename(folder)
        durable.sync(folder.parent)


def _digest(file: Any) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest(state: str, digests: Mapping[str, str], kept: Mapping[str, np.ndarray]) -> str:
    files = sorted(kept.items())
    shapes, types = {name: array.shape for name, array in files}, {name: str(array.dtype) for name, array in files}
    return json.dumps({"format": FORMAT, "source": state, "shape": shapes, "type": types, "sha256": digests})
