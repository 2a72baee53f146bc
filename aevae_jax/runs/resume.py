"""Between the training loop and the disk: when to save, where to resume, and when to leave."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from aevae_jax import durable
from aevae_jax.checkpoints.locks import Lock
from aevae_jax.checkpoints.saving import NonFiniteError, Saving
from aevae_jax.checkpoints.signals import Caught, Interrupted
from aevae_jax.checkpoints.store import Place, Region, Store
from aevae_jax.checkpoints.together import SharedStore
from aevae_jax.runs import processes, records
from aevae_jax.runs.callbacks import Note
from aevae_jax.runs.curves import Live
from aevae_jax.runs.snapshots import Progress, Snapshot
from aevae_jax.runs.trainer import Trainer
from aevae_jax.training.devices import Layout
from aevae_jax.types import InputError

CHUNK_SECONDS = 1.0
"""How long a training takes steps, at most about, before it looks whether it should save or leave."""


SOONER = 6
"""How many times as soon as the others the first checkpoint is written: until then nobody can look at the run."""


class CheckpointManager:
    """What of one run is in its directory while it is trained: checkpoints, written when they are due, and a log.

    Args:
      folder: of the run.
      run: its digest, which every checkpoint carries.
      saving: when to write, and what to keep.
      lock: held on the run's directory.
      caught: signals that ask to leave.
      note: is told what was damaged.
      selects: the entry of the validation metrics by which the best checkpoint is kept.
      curves: the picture that shows how it learns, if there is to be one.

    Raises:
      checkpoints.OtherRunError: there are checkpoints of another run.
      InputError: there is something else in the place of the checkpoints.
    """

    def __init__(
        self,
        folder: Path,
        run: str,
        saving: Saving,
        *,
        lock: Lock,
        caught: Caught,
        note: Note,
        selects: str,
        curves: Live | None = None,
    ):
        self.folder, self._selects, self._curves = folder, selects, curves
        self._store = Store(folder / records.CHECKPOINTS, run=run)
        self._log = folder.absolute() / records.METRICS
        self._saving, self._lock, self._caught, self._note = saving, lock, caught, note
        self._saved_at, self._saved = time.monotonic(), Progress(step=-1)
        self._store.clean()
        self._store.check()

    def restore(self, trainer: Trainer, until: int | None = None) -> Snapshot | None:
        """Restore the newest intact checkpoint, as the function `restore` does."""
        found = restore(self._store, trainer, until=until, note=self._note)
        if not trainer.layout.apart:
            processes.share(None if found is None else found.progress.to_notes())
        if found is None:
            return None
        self._saved = found.progress
        return placed(found, trainer)

    def truncate_to(self, snapshot: Snapshot) -> None:
        """Cut the log where the training resumes, and delete the checkpoints of later steps.

        These are damaged, or the training goes another way from here.
        """
        self._store.discard([step for step in self._store.steps() if step > snapshot.progress.step])
        records.write_lines(self._log, snapshot.progress.history)

    def log(self, snapshot: Snapshot) -> None:
        """Add the last epoch to the log, a line for each member."""
        entries = snapshot.progress.history[-len(snapshot.progress.best_value) :]
        durable.append(self._log, b"".join(map(records.line, entries)), what=self._log.name)
        if self._curves is not None:
            self._curves.update(snapshot.progress.history)

    def next_stop(self, step: int, chunk: int) -> int:
        """Return where to look up again, at most `chunk` steps on."""
        every = self._saving.steps
        return processes.share(min(step + chunk, (step // every + 1) * every) if every else step + chunk)

    def save_if_due(self, snapshot: Snapshot, *, boundary: bool) -> None:
        """Save if it is time; `boundary` says that an epoch has just been evaluated.

        Raises:
          Interrupted: a signal came; the snapshot is saved.
          InputError: it could not be saved.
        """
        saving, progress = self._saving, snapshot.progress
        wait = saving.seconds if self._saved.step >= 0 else saving.seconds / SOONER
        due = time.monotonic() - self._saved_at >= wait
        due |= boundary and saving.every > 0 and progress.epoch % saving.every == 0
        due |= saving.steps > 0 and progress.step % saving.steps == 0
        signal = processes.signalled(self._caught.name)
        save = bool(signal or due) and progress != self._saved
        processes.share((save, signal))
        if save:
            with contextlib.suppress(NonFiniteError):  # the loop will see it, and go back to the checkpoint before
                self.save(snapshot, boundary=boundary)
        if signal:
            if self._curves is not None:
                self._curves.update(progress.history, now=True)
            step = self._saved.step
            raise Interrupted(f"stopped by {signal}, saved at step {step}: the same command resumes it")

    def save(self, snapshot: Snapshot, *, boundary: bool) -> None:
        """Save now; durable once this returns.

        Raises:
          checkpoints.NonFiniteError: there are numbers in it that are not finite.
          InputError: it could not be saved, or the directory is no longer this run's.
        """
        progress = snapshot.progress
        notes = {**progress.to_notes(), "boundary": boundary}
        if boundary and progress.history and len(progress.best_value) == 1:
            notes["value"] = progress.history[-1]["validation"][self._selects]
        self._lock.check()
        _save(self._store, snapshot, notes)
        self._store.retain(self._saving)
        self._saved_at, self._saved = time.monotonic(), progress


class Follower:
    """What the other processes do where process 0, with its `CheckpointManager`, reads or writes the directory."""

    def __init__(self, folder: Path, caught: Caught):
        self.folder, self._caught = folder, caught
        self._store = Store(folder / records.CHECKPOINTS)

    def restore(self, trainer: Trainer, until: int | None = None) -> Snapshot | None:
        """Return the snapshot that process 0 restores."""
        if trainer.layout.apart:
            return restore(self._store, trainer, until=until)
        notes = processes.share(None)
        if notes is None:
            return None
        like = trainer.shapes(Progress.from_notes(notes))
        return placed(like._replace(losses=np.zeros(like.losses.shape, like.losses.dtype)), trainer)

    def truncate_to(self, snapshot: Snapshot) -> None:
        """Do nothing: the log is that of process 0."""

    def log(self, snapshot: Snapshot) -> None:
        """Do nothing."""

    def next_stop(self, step: int, chunk: int) -> int:
        """Return where process 0 looks up again."""
        return processes.share(None)

    def save_if_due(self, snapshot: Snapshot, *, boundary: bool) -> None:
        """Take part in saving, and in leaving, if process 0 does. Raises `Interrupted`."""
        processes.signalled(self._caught.name)
        save, signal = processes.share(None)
        if save:
            with contextlib.suppress(NonFiniteError):
                self.save(snapshot, boundary=boundary)
        if signal:
            raise Interrupted(f"stopped by {signal}, saved by process 0: the same command resumes it")

    def save(self, snapshot: Snapshot, *, boundary: bool) -> None:
        """Write what this process has, where arrays are divided among processes."""
        _save(self._store, snapshot, {})


def _save(store: Store, snapshot: Snapshot, notes: dict[str, Any]) -> None:
    """Save a snapshot: process 0 alone, unless arrays are divided among processes. All must call this."""
    arrays = _flatten(snapshot)
    if any(isinstance(a, jax.Array) and not (a.is_fully_addressable or a.is_fully_replicated) for a in arrays.values()):
        SharedStore(store, processes).save(snapshot.progress.step, arrays, notes)
    elif processes.index() == 0:
        host = arrays if processes.count() == 1 else {name: np.asarray(array) for name, array in arrays.items()}
        store.save(snapshot.progress.step, host, notes)


def placed(snapshot: Snapshot, trainer: Trainer) -> Snapshot:
    """Return a snapshot that process 0 restored where this training has its arrays; the others give its shapes."""
    if trainer.layout.apart:
        return snapshot
    if processes.count() > 1:
        snapshot = _unflatten(snapshot, processes.share_arrays(_flatten(snapshot)))
    state, best = trainer.layout.place((snapshot.state, snapshot.best))
    return snapshot._replace(state=state, best=best, metrics=trainer.layout.replicate(snapshot.metrics))


def restore(
    store: Store, trainer: Trainer, *, until: int | None = None, note: Note = lambda text: None
) -> Snapshot | None:
    """Return the newest checkpoint that is intact, not after step `until`; `None` if there is none at all.

    Where parameters are divided among processes, all of them must call this, and each reads what its devices hold.

    Raises:
      checkpoints.DamageError: there are some, and all are damaged.
    """

    def like(step: int, notes: dict[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
        progress = Progress.from_notes(notes)
        if progress.step != step:
            raise InputError("checkpoint", got=f"notes of step {progress.step}", expected=f"those of step {step}")
        return _flatten(trainer.shapes(progress))

    if trainer.layout.apart:
        found = SharedStore(store, processes).restore_newest(like, until=until, place=_place(trainer.layout))
    elif processes.count() == 1:
        found = store.restore_newest(like, until=until, place=_place(trainer.layout))
    else:  # `placed` sends it to the others
        found = store.restore_newest(like, until=until)
    if found is None:
        return None
    for message in found.damaged:
        note(f"{message}; resuming at step {found.step}")
    progress = Progress.from_notes(found.notes)
    return _unflatten(trainer.shapes(progress), found.arrays)._replace(progress=progress)


def _place(layout: Layout) -> Place:
    """Return what puts arrays of a checkpoint where a training has them."""

    def place(name: str, spec: Any, read: Callable[[Region], Any]) -> Any:
        if name == _LOSSES:
            return read((slice(None),) * len(spec.shape))
        return layout.read(spec, read, everywhere=name.startswith("logged/"))

    return place


class ChunkSizer:
    """How many steps take about `seconds`, from those before; the first call, which compiles, takes one."""

    def __init__(self, seconds: float = CHUNK_SECONDS):
        self._seconds, self._steps, self._compiled = seconds, 1, False

    def steps(self) -> int:
        """Return how many steps the next chunk has."""
        return self._steps

    def took(self, steps: int, seconds: float) -> None:
        """Learn what a chunk took: at most four times as many steps come next."""
        if self._compiled:
            self._steps = max(1, min(4 * self._steps, int(steps * self._seconds / max(seconds, 1e-9))))
        self._compiled = True


_LOSSES = "logged/losses"
"""The one array of a snapshot that lies in host memory."""


def _tree(snapshot: Snapshot) -> dict[str, Any]:
    logged = {"metrics": snapshot.metrics, "losses": snapshot.losses}
    return {"state": snapshot.state._asdict(), "best": snapshot.best, "logged": logged}


def named(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return the arrays of a tree by name, such as `state/params/encoder/Dense_0/kernel`, behind a prefix."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {prefix + jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _flatten(snapshot: Snapshot) -> dict[str, Any]:
    return named(_tree(snapshot))


def _unflatten(like: Snapshot, arrays: dict[str, Any]) -> Snapshot:
    """Return the snapshot whose arrays are `arrays`, in the structure of `like`."""
    tree = jax.tree.unflatten(jax.tree.structure(_tree(like)), [arrays[name] for name in _flatten(like)])
    return like._replace(
        state=type(like.state)(**tree["state"]),
        best=tree["best"],
        metrics=tree["logged"]["metrics"],
        losses=jax.device_get(tree["logged"]["losses"]),
    )
