"""One hostile input, and how what became of it is judged.

A `Subject` is something that is read: how an intact one is made, and the function that reads it. A trial changes a copy
of it and reads that. What comes out must be, value by value, what comes out of the intact one, or be refused by one
line; where a format has no checksum and a change makes another valid file, what an independent reader finds in it.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from faults.watch import Found, attempt

FINE = ("same", "refused", "as it says")
BAD = ("silent", "traceback", "hang", "memory", "executed", "outside", "raw")
"""Other numbers taken for these; an exception that is no `InputError`; more than `SECONDS` or `MEMORY`; code of the
input was run; a file that is not the trial's was touched; control characters reach the terminal."""


class Verdict(NamedTuple):
    """What became of a trial: one of `FINE` or `BAD`, and how."""

    kind: str
    detail: str = ""


class Place:
    """Where a worker does its trials, and what must stay as it is.

    Args:
      root: a folder of the worker's own.
      originals: the intact subjects, shared by all workers.
    """

    def __init__(self, root: Path, originals: Path):
        self.root, self.originals = root, originals
        self.trial, self.outside, self.canary = root / "trial", root / "outside", root / "executed"

    def prepare(self) -> None:
        """Make an empty folder for a trial, which becomes the current one, and untouched surroundings."""
        for folder in (self.trial, self.outside):
            remove(folder)
            folder.mkdir(parents=True)
        (self.outside / "precious").write_bytes(b"precious\n")
        (self.outside / "folder").mkdir()
        self.canary.unlink(missing_ok=True)
        os.chdir(self.trial)

    def touched(self) -> bool:
        """Return whether anything outside the trial's folder was changed, made or deleted."""
        found = sorted(path.relative_to(self.outside).as_posix() for path in self.outside.rglob("*"))
        kept = [name for name in found if name not in self.lent]
        precious = self.outside / "precious"
        return kept != ["folder", "precious"] or precious.read_bytes() != b"precious\n" or self._lent_is_changed()

    lent: Mapping[str, bytes] = {}

    def lend(self, name: str, content: bytes) -> Path:
        """Return a file outside of the trial's folder, for links; it must stay as it is."""
        self.lent = {**self.lent, name: content}
        (self.outside / name).write_bytes(content)
        return self.outside / name

    def _lent_is_changed(self) -> bool:
        paths = {self.outside / name: content for name, content in self.lent.items()}
        return any(not path.is_file() or path.read_bytes() != content for path, content in paths.items())


Change = Callable[[Path, random.Random, Place], Any]
"""Damages the copy in a folder. It may return a set of digests that are right as well (a whole run exchanged for
another), or `FREE`."""

FREE = frozenset({"*"})
"""Whatever is read is right, as long as it is read soundly: the input says so itself."""


def freely(change: Change) -> Change:
    """Return the same change, after which the input says something else, and is right in that."""

    def changed(folder: Path, dice: random.Random, place: Place) -> Any:
        change(folder, dice, place)
        return FREE

    return changed


@dataclass(frozen=True)
class Subject:
    """Something that is read.

    Args:
      name: without a slash.
      make: writes an intact one into an empty folder.
      read: what comes out of it: a tree of dicts, lists, texts, numbers and arrays; or an `InputError`.
      changes: by name, how often each is tried, and what it does.
      reference: for formats without a checksum: what an independent reader says. Then `read` gives `{"values": ...,
        "sha256": ...}`: these values, and a sha256 that is another if they are others.
      share: the originals of several subjects may be one folder, of this name.
    """

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    changes: Mapping[str, tuple[int, Change]]
    reference: Callable[[Path], Any] | None = None
    share: str = ""
    known: dict[str, Any] = field(default_factory=dict, compare=False)

    def trials(self) -> list[str]:
        """Return the names of all trials."""
        return [f"{self.name}/{change}/{n}" for change, (times, _) in self.changes.items() for n in range(times)]

    def original(self, place: Place) -> Path:
        """Return the intact one, which the first worker that needs it makes."""
        import fcntl

        folder = place.originals / (self.share or self.name)
        place.originals.mkdir(parents=True, exist_ok=True)
        with (place.originals / f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                part = folder.with_name(f"{folder.name}.part")
                remove(part)
                part.mkdir()
                self.make(part)
                part.rename(folder)
        return folder

    def run(self, trial: str, place: Place, seed: int) -> Verdict:
        """Do a trial."""
        place.lent = {}
        place.prepare()
        original = self.original(place)
        if "intact" not in self.known:
            copy(original, place.trial)
            self.known["intact"] = self.read(place.trial)
            place.prepare()
        copy(original, place.trial)
        change = self.changes[trial.split("/")[1]][1]
        also = change(place.trial, random.Random(f"{seed} {trial}"), place) or frozenset()
        found = attempt(lambda: self.read(place.trial))
        kind = self._weigh(found, also, place) if found.kind == "read" else Verdict(found.kind, found.detail)
        if place.canary.exists():
            return Verdict("executed", kind.detail)
        return Verdict("outside", kind.detail) if place.touched() else kind

    def _weigh(self, found: Found, also: Any, place: Place) -> Verdict:
        mine, intact = digest(found.value), self.known["intact"]
        if mine == digest(intact):
            return Verdict("same")
        if also == FREE or mine in also:
            return Verdict("as it says")
        if self.reference is None:
            return Verdict("silent", difference(intact, found.value))
        other = attempt(lambda: self.reference(place.trial))  # type: ignore[misc]
        if other.kind != "read":
            return Verdict("silent", f"for another reader: {other.detail}; {difference(intact, found.value)}")
        if digest(other.value) != digest(found.value["values"]):
            return Verdict("silent", f"for another reader: {difference(other.value, found.value['values'])}")
        if found.value["sha256"] == intact["sha256"]:
            return Verdict("silent", f"other values of the same sha256: {difference(intact, found.value)}")
        return Verdict("as it says")


# ---------------------------------------------------------------------------------------------------------- helpers


def digest(tree: Any) -> str:
    """Return the sha256 of a tree, so that trees are compared to the last bit."""
    import numpy as np

    total = hashlib.sha256()

    def add(item: Any) -> None:
        if isinstance(item, Mapping):
            total.update(f"{{{len(item)}".encode())
            for key in sorted(item):
                total.update(f"{key!r}:".encode(errors="surrogatepass"))
                add(item[key])
        elif isinstance(item, list | tuple):
            total.update(f"[{len(item)}".encode())
            for inner in item:
                add(inner)
        elif isinstance(item, str | bytes | int | float | bool | None):
            total.update(f"{item!r},".encode(errors="surrogatepass"))
        else:
            array = np.asarray(item)
            total.update(f"{array.shape}{array.dtype}".encode())
            total.update(np.ascontiguousarray(array).tobytes())

    add(tree)
    return total.hexdigest()


def difference(one: Any, other: Any, where: str = "") -> str:
    """Return the first place where two trees are not the same, with what is there."""
    if digest(one) == digest(other):
        return ""
    if isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
        return next(filter(None, (difference(one[key], other[key], f"{where} {key}") for key in one)))
    both = isinstance(one, list | tuple) and isinstance(other, list | tuple)
    if both and len(one) == len(other):
        return next(
            filter(None, (difference(a, b, f"{where} {n}") for n, (a, b) in enumerate(zip(one, other, strict=True))))
        )
    return f"{where.strip()}: {_shown(one)}, here {_shown(other)}"


def _shown(tree: Any) -> str:
    text = " ".join(f"{getattr(tree, 'shape', '')} {tree!r}".split())
    return text if len(text) <= 200 else f"{text[:200]}..."


def copy(source: Path, target: Path) -> None:
    """Copy the contents of a folder."""
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)


def remove(path: Path) -> None:
    """Remove a path, whatever it is."""
    if path.is_dir() and not path.is_symlink():
        for inner in (path, *path.rglob("*")):
            if inner.is_dir() and not inner.is_symlink():
                inner.chmod(0o755)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
