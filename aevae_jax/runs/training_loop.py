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
from aevae_jax.runs import non_finite
from aevae_jax.runs.callbacks import Callbacks, Note
from aevae_jax.runs.plans import Plan
from aevae_jax.runs.resume import Keeper, Pace
from aevae_jax.runs.snapshots import Broken, Progress, Snapshot
from aevae_jax.runs.trainer import Trainer
from aevae_jax.types import InputError


def train(
    plan: Plan, seeds: tuple[int, ...] | None, keeper: Keeper | None, callbacks: Callbacks
) -> tuple[Snapshot, dict[str, Any]]:
    """Train to the end, from wherever a keeper says that it has got to.

    Returns:
      The last snapshot, and the validation and test metrics of its best parameters.

    Raises:
      InputError: no step could be used, the numbers went on breaking, or the memory is too small.
    """
    try:
        trainer = Trainer(plan, seeds)
        last = _loop(trainer, keeper, callbacks)
        if not trainer.used(last.progress):
            raise InputError(
                "training",
                got=f"{last.progress.step} steps, none of which could be used",
                expected="finite losses and gradients, below max_norm",
                hint=_advice(plan),
            )
        if keeper is not None:
            keeper.save(last, boundary=True)
        return last, trainer.results(last)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and not re.search("RESOURCE_EXHAUSTED|Out of memory", str(error)):
            raise
        size = plan.run.batch_size
        raise InputError(
            "memory",
            got=f"too little on {jax.devices()[0].device_kind} for batches of {size}",
            expected="a smaller batch or network",
            hint=f"try --batch-size {max(1, size // 2)}, or --stream yes to leave the data off the device",
        ) from error


def _loop(trainer: Trainer, keeper: Keeper | None, callbacks: Callbacks) -> Snapshot:
    """From snapshot to snapshot: a chunk of steps, or the evaluation at the end of an epoch."""
    snapshot = _last(trainer, keeper)
    if keeper is not None:
        keeper.begin(snapshot)
        if snapshot.progress.step:
            callbacks.on_resume(f"going on at step {snapshot.progress.step}, in epoch {snapshot.progress.epoch + 1}")
    pace, boundary = Pace(), False
    while not trainer.finished(snapshot.progress):
        if keeper is not None:
            keeper.offer(snapshot, boundary=boundary)
        progress, began = snapshot.progress, time.monotonic()
        stop = trainer.end_of_epoch(progress)
        boundary = progress.step == stop
        try:
            if boundary:
                snapshot, report = trainer.finish_epoch(snapshot)
            else:
                stop = stop if keeper is None else min(stop, keeper.next_stop(progress.step, pace.steps()))
                snapshot = trainer.advance(snapshot, stop)
                pace.took(stop - progress.step, time.monotonic() - began)
        except Broken as broken:
            snapshot = _detour(trainer, keeper, progress, broken, callbacks.on_note)
            boundary = False
            continue
        if boundary and keeper is not None:
            keeper.log(snapshot)
        if boundary and callbacks.on_epoch is not None:
            try:
                callbacks.on_epoch(report)
            except BaseException:
                if keeper is not None:
                    with contextlib.suppress(NonFiniteError):
                        keeper.save(snapshot, boundary=True)
                raise
    return snapshot


def _last(trainer: Trainer, keeper: Keeper | None, until: int | None = None) -> Snapshot:
    """The newest snapshot that there is."""
    return (None if keeper is None else keeper.restore(trainer, until)) or trainer.start()


def _detour(trainer: Trainer, keeper: Keeper | None, progress: Progress, broken: Broken, note: Note) -> Snapshot:
    """Back to before the numbers broke, with the batches that led there to be gone round.

    A function of the run alone: wherever it is stopped, and whatever checkpoints there are, it goes the same way.

    Raises:
      InputError: it has been tried often enough.
    """
    guard, detours = trainer.plan.run.safeguard, progress.detours
    if trainer.seeds is not None:
        lane = trainer.seeds[broken.lane]
        raise InputError(
            f"training of seed {lane}",
            got=f"no finite loss or gradient in {broken}",
            expected="finite numbers",
            hint=_advice(trainer.plan),
        )
    if len(detours) >= guard.detours:
        snapshot = _last(trainer, keeper, broken.first)
        snapshot = trainer.move(snapshot._replace(progress=replace(snapshot.progress, detours=detours)), broken.first)
        raise _stopped(trainer, keeper, snapshot)
    detour = (max(0, broken.first - guard.in_a_row * 2 ** len(detours)), broken.after)
    snapshot = _last(trainer, keeper, detour[0])
    snapshot = snapshot._replace(progress=replace(snapshot.progress, detours=(*detours, detour)))
    if keeper is not None:  # saved at once, with the detour in it: `replay` must find it
        keeper.begin(snapshot)
        keeper.save(snapshot, boundary=False)
    note(
        f"no finite loss or gradient in {broken}: went back to step {snapshot.progress.step}, "
        f"to go round the batches of steps {detour[0]} to {detour[1] - 1}"
    )
    return snapshot


def _advice(plan: Plan) -> str:
    """What to do about numbers that break."""
    return "; or ".join(filter(None, [non_finite.scale_advice(plan), "lower the learning rate or set clip_norm"]))


def _stopped(trainer: Trainer, keeper: Keeper | None, snapshot: Snapshot) -> InputError:
    found = non_finite.diagnose(trainer, snapshot)
    step, epoch = found.step, found.step // trainer.steps_per_epoch + 1
    advice = _advice(trainer.plan)
    if keeper is not None:
        advice = f"type: aevae replay {keeper.folder} --step {step}; or {advice}"
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
        expected=f"finite numbers, also after {len(snapshot.progress.detours)} detours",
        hint=advice,
    )
