"""What a checkpoint says of itself: notes, whose it is, its arrays and its files, with a sha256 over all of that."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path
from typing import Any

from aevae_jax.checkpoints import array_files
from aevae_jax.checkpoints.saving import DamageError, OtherRunError
from aevae_jax.types import InputError

NAME = "manifest.json"

WHOLE, IN_PIECES = 1, 2
"""The formats: files of Orbax, each listed with its sha256; or those of `pieces`, of which only the ones that describe
pieces are listed, as they have the sha256 of the others' contents."""

_FORMATS = (WHOLE, IN_PIECES)

LARGEST = 64 * 2**20
"""Bytes that a manifest may take."""


def write(part: Path, *, form: int, step: int, run: str | None, arrays: dict[str, Any], notes: dict[str, Any]) -> None:
    """Fill the manifest of a checkpoint, which exists, of the files that lie in `arrays/` beside it.

    Args:
      part: the folder of the checkpoint.
      form: `WHOLE` or `IN_PIECES`.
      step: of it.
      run: the digest of the run; empty or `None` for none.
      arrays: their signatures.
      notes: as they are to be read again.
    """
    files = {
        name: (size, array_files.digest(part / "arrays" / name))
        for name, size in array_files.walk(part / "arrays").items()
        if form == WHOLE or name.endswith(".json")
    }
    manifest = {
        "format": form,
        "step": int(step),
        "notes": notes,
        **({"run": run} if run else {}),
        "arrays": arrays,
        "files": files,
    }
    digest = hashlib.sha256(array_files.canonical(manifest)).hexdigest()
    with (part / NAME).open("r+b") as file:  # fails if the directory was removed and Orbax made it anew
        file.write(array_files.canonical({**manifest, "sha256": digest}))


def read(folder: Path, run: str | None) -> dict[str, Any]:
    """Return what `write` put in the manifest of a checkpoint, if it is there byte for byte.

    Args:
      folder: of the checkpoint; its name is the step.
      run: as it was written; `None` for that of any run.

    Raises:
      DamageError: it is missing, or not the one that was written.
      OtherRunError: it is another run's.
      InputError: a newer version wrote it.
    """
    try:
        file = (folder / NAME).lstat()
        if not (stat.S_ISDIR(folder.lstat().st_mode) and stat.S_ISREG(file.st_mode) and file.st_size <= LARGEST):
            raise ValueError("a link or something else in the place of manifest.json")
        text = (folder / NAME).read_bytes()
        manifest: dict[str, Any] = json.loads(text)
        digest = hashlib.sha256(
            array_files.canonical({n: part for n, part in manifest.items() if n != "sha256"})
        ).hexdigest()
        if manifest["sha256"] != digest or array_files.canonical(manifest) != text:
            raise ValueError("a manifest.json that does not match its sha256")
        wrong = manifest["step"] != int(folder.name) or not isinstance(manifest["notes"], dict)
        if manifest["format"] in _FORMATS and wrong:
            raise ValueError(f"the manifest.json of step {manifest['step']}")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise damage(folder, array_files.reason(error)) from None
    if manifest["format"] not in _FORMATS:
        raise InputError(
            f"checkpoint of step {folder.name}",
            got=f"format {manifest['format']}",
            where=str(folder),
            expected="format " + " or ".join(map(str, _FORMATS)),
            hint="use the version that wrote it",
        )
    if run is not None and manifest.get("run", "") != run:
        raise OtherRunError(
            f"checkpoint of step {folder.name}",
            got="that of another run",
            where=str(folder),
            expected=f"one of the run in {folder.parents[1] / 'run.json'}",
            hint="remove it, or start over with --fresh",
        )
    return manifest


def damage(folder: Path, got: str) -> DamageError:
    """Return what is wrong with the checkpoint in a folder."""
    return DamageError(f"checkpoint of step {folder.name}", got=got, expected="intact files", where=str(folder))
