"""What a training would be: its sizes, and how long it takes by the first steps of it, which are thrown away."""

from __future__ import annotations

import math
import resource
import sys
import time
from typing import NamedTuple

import jax

from aevae_jax.data import datasets
from aevae_jax.runs import calls
from aevae_jax.runs.calls import Call
from aevae_jax.runs.resolution import ResolvedRun
from aevae_jax.runs.snapshots import Broken
from aevae_jax.runs.trainer import Trainer
from aevae_jax.types import InputError

SECONDS = 2.0
"""How long steps are timed, at most about."""


class Rehearsal(NamedTuple):
    """What is known of a training before it begins."""

    resolved: ResolvedRun
    members: int
    """Models that are trained at once; 1 of a run."""
    parameters: dict[str, int]
    """How many numbers one model learns, by part."""
    state: int
    """Bytes of parameters, averages, and what the optimizer keeps, of all members."""
    data: int
    """Bytes of the data that is kept on the device."""
    peak: int
    """Bytes that were in use at most so far: of the memory of an accelerator, or of this process."""
    batch: tuple[int, ...]
    """Shape of a batch."""
    steps_per_epoch: int
    steps: int
    """The steps of all epochs."""
    timed: int
    """Steps by which the time is estimated."""
    compiling: float
    """Seconds until the first step and the first evaluation were done."""
    step: float
    """Seconds of a step, an estimate."""
    evaluation: float
    """Seconds of the evaluation after an epoch, an estimate."""

    @property
    def seconds(self) -> float:
        """How long the training takes, an estimate: it may stop earlier, and other work on the machine delays it."""
        return self.compiling + self.steps * self.step + self.resolved.run.epochs * self.evaluation


def rehearse(call: Call) -> Rehearsal:
    """Return what is known of a training after some of its steps; nothing is written.

    Raises:
      InputError: as `fit` before the first step, or the numbers of these steps break.
    """
    resolved, population = calls.resolve(call)
    trainer, run = Trainer(resolved, population), resolved.run
    total = run.epochs * trainer.steps_per_epoch
    began = time.perf_counter()
    snapshot = trainer.start()
    state = sum(leaf.nbytes for leaf in jax.tree.leaves((snapshot.state, snapshot.best)) if hasattr(leaf, "nbytes"))
    count = 1 if population is None else len(population.seeds)
    parts = {
        name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(part)) // count
        for name, part in snapshot.state.params.items()
    }
    try:
        snapshot = trainer.train_to(snapshot, 1)
        trainer.finish_epoch(snapshot)
        compiling = time.perf_counter() - began
        began = time.perf_counter()
        trainer.finish_epoch(snapshot)
        evaluation, began = time.perf_counter() - began, time.perf_counter()
        first, chunk, spent = snapshot.progress.step, 1, 0.0
        while spent < SECONDS and snapshot.progress.step < total:
            snapshot = trainer.train_to(snapshot, min(total, snapshot.progress.step + chunk))
            spent, chunk = time.perf_counter() - began, 2 * chunk
    except Broken as broken:
        raise InputError("training", got=f"numbers that are not finite, {broken}", expected="finite ones") from None
    timed = snapshot.progress.step - first
    source = resolved.prepared.train.x
    return Rehearsal(
        resolved,
        count,
        {name: number for name, number in parts.items() if number},
        state,
        0 if resolved.stream else datasets.size_in_bytes(source),
        _peak(),
        (run.batch_size, *resolved.prepared.event_shape),
        trainer.steps_per_epoch,
        total,
        timed,
        compiling,
        spent / timed if timed else 0.0,
        evaluation,
    )


def _peak() -> int:
    """Return how many bytes were in use at most, of the first device that computes, or of this process."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        return int(statistics["peak_bytes_in_use"])
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes
    return kilobytes if sys.platform == "darwin" else 1024 * kilobytes
