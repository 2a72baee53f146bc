"""Checkpoints that several processes write and read together, each its own part, in a folder that all of them see.

Process 0 begins one, every process writes the pieces that it has, and when process 0 sees all of these files it gives
the checkpoint its manifest and its name: until then the one before is the newest. To restore, each process reads what
its devices need, and all agree on a checkpoint that is intact in what any of them reads.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aevae_jax import durable
from aevae_jax.checkpoints import manifests, pieces
from aevae_jax.checkpoints.saving import NonFiniteError
from aevae_jax.checkpoints.store import Place, Restored, Store
from aevae_jax.types import InputError, Peers

if TYPE_CHECKING:
    from jax import ShapeDtypeStruct

LOOK_SECONDS = 0.05
"""How long a process waits before it looks once more for the files of another."""


class SharedStore:
    """The checkpoints of `store`, which all of `peers` write and read at once; each of them calls each method."""

    def __init__(self, store: Store, peers: Peers):
        self._store, self._peers = store, peers

    def save(self, step: int, arrays: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
        """Write a checkpoint; once this returns it survives a crash of the machines. One of the same step is replaced.

        A process that dies on the way leaves the checkpoints as they were.

        Args:
          step: as in `Store.save`.
          arrays: as there; each process has the pieces on its devices.
          notes: as there; those of process 0 count.

        Raises:
          NonFiniteError: NaN or infinity, in any process; all raise it.
          InputError: a file cannot be written, or a process does not see those of another.
        """
        if self._peers.index():
            self._write(step, arrays)
        else:
            with self._store.writing(step, arrays, notes, pieces=True) as folder:
                folder.mkdir()
                for process, sha256 in enumerate(self._write(step, arrays)):
                    whole = functools.partial(pieces.complete, folder, process, sha256)
                    self._see(whole, folder, whose=process)
        self._peers.share(None)  # it is complete

    def restore_newest(
        self,
        like: Callable[[int, dict[str, Any]], Mapping[str, ShapeDtypeStruct]],
        *,
        until: int | None = None,
        place: Place,
    ) -> Restored | None:
        """Return the newest checkpoint that is intact, as `Store.restore_newest` does; all processes return the same.

        Raises:
          InputError: as there, and where a process does not see what process 0 sees.
        """
        told = self._peers.share(self._seen())
        if self._peers.index():
            self._see(lambda: self._seen() == told, self._store.folder)
        self._agreed("")  # all see them
        return self._store.restore_newest(like, until=until, place=place, agreed=self._agreed)

    def _write(self, step: int, arrays: Mapping[str, Any]) -> list[str]:
        """Write the pieces of this process, and return what `pieces.write` says of those of each."""
        folder, broken = self._store.folder / f"{step}.tmp" / "arrays", ""
        self._peers.share(None)  # process 0 has made it
        self._see(folder.is_dir, folder)
        written = ""
        try:
            written = pieces.write(folder, self._peers.index(), pieces.own(arrays, self._peers.index()))
        except NonFiniteError as error:
            broken = error.got
        told = self._peers.gather([written, broken])
        if broken := next((each for _, each in told if each), ""):
            raise NonFiniteError(f"checkpoint of step {step}", got=broken, expected="finite numbers")
        return [each for each, _ in told]

    def _agreed(self, damage: str) -> str:
        """Return what the first process finds wrong, "" if none finds anything."""
        return next(filter(None, self._peers.gather(damage)), "")

    def _seen(self) -> list[Any]:
        """Return what this process sees of the run: who trains it, and the checkpoints that there are."""
        steps = self._store.steps()
        return [_sha256(self._store.folder.parent / "lock"), *([s, _sha256(self._manifest(s))] for s in steps)]

    def _manifest(self, step: int) -> Path:
        return self._store.folder / str(step) / manifests.NAME

    def _see(self, there: Callable[[], bool], where: Path, *, whose: int = 0) -> None:
        """Wait until this process sees the files of another, which a file system of several machines may show late.

        Raises:
          InputError: it does not in time.
        """
        end = time.monotonic() + self._peers.timeout()
        while not there():
            if time.monotonic() > end:
                raise InputError(
                    f"process {self._peers.index()}",
                    got=f"none of the files of process {whose} within {self._peers.timeout()} s",
                    where=str(where),
                    expected="a directory that all processes share",
                    hint="choose one, or train without --shard-params",
                )
            time.sleep(LOOK_SECONDS)


def _sha256(path: Path) -> str:
    """Return the sha256 of a file; empty where there is none that can be read."""
    try:
        return hashlib.sha256(durable.read_bytes(path, limit=manifests.LARGEST)).hexdigest()
    except InputError:
        return ""
