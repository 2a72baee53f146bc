"""The loop of a training, chunk by chunk and epoch by epoch, with saving, stops, and rollbacks when numbers break."""

from __future__ import annotations

import contextlib
import math
import re
import time
from dataclasses import replace
from typing import Any

import jax

from aevae_jax.checkpoints.saving import NonFiniteError
from aevae_jax.runs import non_finite, processes, resume
from aevae_jax.runs.callbacks import Callbacks, Note
from aevae_jax.runs.resolution import ResolvedRun
from aevae_jax.runs.resume import CheckpointManager, ChunkSizer, Follower
from aevae_jax.runs.snapshots import Broken, Progress, Snapshot, Steps
from aevae_jax.runs.sweeps import Population
from aevae_jax.runs.trainer import Trainer
from aevae_jax.training.devices import Layout
from aevae_jax.types import InputError


def train(
    resolved: ResolvedRun,
    population: Population | None,
    manager: CheckpointManager | Follower | None,
    callbacks: Callbacks,
) -> tuple[Snapshot, dict[str, Any]]:
    """Train to the end, from wherever a checkpoint manager says that it has got to.

    Returns:
      The last snapshot, and the validation and test metrics of its best parameters.

    Raises:
      InputError: no step could be used, the numbers went on breaking, or the memory is too small.
    """
    try:
        trainer = Trainer(resolved, population)
        last = _loop(trainer, manager, callbacks)
        if not trainer.used(last.progress):
            raise InputError(
                "training",
                got=f"{last.progress.step} steps, none of which could be used",
                expected="finite losses and gradients, below max_norm",
                hint=_advice(resolved),
            )
        if manager is not None:
            manager.save(last, boundary=True)
        return last, trainer.results(last)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and not re.search("RESOURCE_EXHAUSTED|Out of memory", str(error)):
            raise
        size = resolved.run.batch_size
        raise InputError(
            "memory",
            got=f"too little on {jax.devices()[0].device_kind} for batches of {size}",
            expected="a smaller batch or network",
            hint=f"try --batch-size {max(1, size // 2)}, or --stream yes to leave the data off the device",
        ) from error


def _loop(trainer: Trainer, manager: CheckpointManager | Follower | None, callbacks: Callbacks) -> Snapshot:
    """Go from snapshot to snapshot: a chunk of steps, or the evaluation at the end of an epoch."""
    snapshot = _last(trainer, manager)
    if manager is not None:
        manager.truncate_to(snapshot)
        if snapshot.progress.step:
            callbacks.on_begin(f"resuming at step {snapshot.progress.step}, in epoch {snapshot.progress.epoch + 1}")
    timer, boundary, told = ChunkSizer(), False, callbacks.on_steps
    if not trainer.finished(snapshot.progress):
        _tell_steps(trainer, snapshot, callbacks)
    while not trainer.finished(snapshot.progress):
        if manager is not None:
            manager.save_if_due(snapshot, boundary=boundary)
        progress, began = snapshot.progress, time.monotonic()
        stop = trainer.end_of_epoch(progress)
        boundary = progress.step == stop
        try:
            if boundary:
                snapshot, report = trainer.finish_epoch(snapshot)
            else:
                if manager is not None:
                    stop = min(stop, manager.next_stop(progress.step, timer.steps()))
                else:
                    stop = min(stop, processes.share(stop if told is None else progress.step + timer.steps()))
                snapshot = trainer.advance(snapshot, stop)
                timer.took(stop - progress.step, time.monotonic() - began)
                _tell_steps(trainer, snapshot, callbacks)
        except Broken as broken:
            snapshot = _roll_back(trainer, manager, progress, broken, callbacks.on_note)
            boundary = False
            continue
        if boundary and manager is not None:
            manager.log(snapshot)
        if boundary and callbacks.on_epoch is not None:
            try:
                callbacks.on_epoch(report)
            except BaseException:
                if (
                    manager is not None and not trainer.layout.apart
                ):  # else it may be that this process alone would save
                    with contextlib.suppress(NonFiniteError):
                        manager.save(snapshot, boundary=True)
                raise
    return snapshot


def _tell_steps(trainer: Trainer, snapshot: Snapshot, callbacks: Callbacks) -> None:
    """Tell how far the epoch being trained has got."""
    if callbacks.on_steps is not None:
        progress, steps = snapshot.progress, trainer.steps_per_epoch
        done = progress.step - progress.epoch * steps
        callbacks.on_steps(Steps(progress.epoch + 1, trainer.resolved.run.epochs, done, steps))


def _last(trainer: Trainer, manager: CheckpointManager | Follower | None, until: int | None = None) -> Snapshot:
    """Return the newest snapshot that there is, which may be that of the run that this one goes on from."""
    found, begins = None if manager is None else manager.restore(trainer, until), trainer.resolved.beginning
    if found is None and begins is not None and begins.earlier is not None:
        found = resume.restore(begins.earlier, trainer, until=until)
        found = found and resume.placed(found, trainer)
    return found or trainer.start()


def _roll_back(
    trainer: Trainer, manager: CheckpointManager | Follower | None, progress: Progress, broken: Broken, note: Note
) -> Snapshot:
    """Return to before the numbers broke, with the batches that led there to be skipped.

    A function of the run alone: wherever it is stopped, and whatever checkpoints there are, it goes the same way.

    Raises:
      InputError: it has been tried often enough.
    """
    guard, rollbacks = trainer.resolved.run.safeguard, progress.rollbacks
    if trainer.population is not None:
        raise InputError(
            f"training of {trainer.population.name(broken.seed_index)}",
            got=f"no finite loss or gradient in {broken}",
            expected="finite numbers",
            hint=_advice(trainer.resolved),
        )
    if len(rollbacks) >= guard.rollbacks:
        snapshot = _last(trainer, manager, broken.first)
        snapshot = snapshot._replace(progress=replace(snapshot.progress, rollbacks=rollbacks))
        snapshot = trainer.train_to(snapshot, broken.first)
        raise _stopped(trainer, manager, snapshot)
    rollback = (max(0, broken.first - guard.in_a_row * 2 ** len(rollbacks)), broken.after)
    snapshot = _last(trainer, manager, rollback[0])
    snapshot = snapshot._replace(progress=replace(snapshot.progress, rollbacks=(*rollbacks, rollback)))
    if manager is not None:  # saved at once, with the rollback in it: `replay` must find it
        manager.truncate_to(snapshot)
        manager.save(snapshot, boundary=False)
    note(
        f"no finite loss or gradient in {broken}: rolled back to step {snapshot.progress.step}, "
        f"to skip the batches of steps {rollback[0]} to {rollback[1] - 1}"
    )
    return snapshot


def _advice(resolved: ResolvedRun) -> str:
    """Return what to do about numbers that break."""
    return "; or ".join(filter(None, [non_finite.scale_advice(resolved), "lower the learning rate or set clip_norm"]))


def _stopped(trainer: Trainer, manager: CheckpointManager | Follower | None, snapshot: Snapshot) -> InputError:
    state, best = trainer.layout.whole((snapshot.state, snapshot.best))
    alone = trainer if trainer.layout.count == 1 else Trainer(trainer.resolved._replace(layout=Layout()))
    found = non_finite.examine(alone, snapshot._replace(state=state, best=best))
    step, epoch = found.step, found.step // trainer.steps_per_epoch + 1
    advice = _advice(trainer.resolved)
    if manager is not None:
        advice = f"type: aevae replay {manager.folder} --step {step}; or {advice}"
    if not found.broken:
        return InputError(
            f"validation bound after step {step}", got="NaN or infinity", expected="a finite number", hint=advice
        )
    shown = found.examples or found.rows
    names = ", ".join(map(str, shown[:10])) + (f" and {len(shown) - 10} more" if len(shown) > 10 else "")
    sound = all(map(math.isfinite, found.metrics.values()))  # then it is the norm, which is beyond its limit
    terms = ("" if sound else "NaN or infinity in ") + ", ".join(found.broken[:5])
    return InputError(
        f"step {step} (epoch {epoch})",
        got=f"{terms}, from training examples {names}",
        expected=f"finite numbers, also after {len(snapshot.progress.rollbacks)} rollbacks",
        hint=advice,
    )
