"""A training as steps from snapshot to snapshot: each is all that a training is at a step, and goes to disk.

Host code runs between chunks of an epoch, array programs inside them. Where the chunks are cut, and where a training
stops and resumes, changes no bit of what it computes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from aevae_jax import evaluation, keys, training
from aevae_jax.data import datasets
from aevae_jax.runs import compilation
from aevae_jax.runs.batches import Batches
from aevae_jax.runs.compilation import Recipe
from aevae_jax.runs.resolution import ResolvedRun
from aevae_jax.runs.snapshots import Broken, Epoch, Progress, Snapshot
from aevae_jax.runs.sweeps import Population
from aevae_jax.training import loops
from aevae_jax.training.step import TrainState
from aevae_jax.types import InputError, Metrics, Params


class Trainer:
    """A resolved run, compiled, and its data placed: what `train_step` compiles to, and where its data is.

    Args:
      resolved: from `resolution.resolve`.
      population: train its members, all at once; `None` trains the run alone.
    """

    def __init__(self, resolved: ResolvedRun, population: Population | None = None):
        run, prepared, stream, layout = resolved.run, resolved.prepared, resolved.stream, resolved.layout
        source, validation, test = (getattr(prepared, part).rows for part in datasets.PARTS)
        self.resolved, self.population, self.layout = resolved, population, layout
        self.steps_per_epoch = training.steps_per_epoch(prepared.train.x, run.batch_size)
        recipe = Recipe(
            run.model,
            run.objective,
            run.optimizer,
            run.epochs * self.steps_per_epoch,
            run.ema,
            run.safeguard.max_norm,
            prepared.preparation,
            prepared.format,
            () if population is None else population.fields,
            layout,
        )
        self._programs = compilation.programs_of(recipe)
        if datasets.in_memory(prepared.validation.x):
            validation, test = layout.replicate((validation, test))
        self._validation, self._test = validation, test
        self._numbers: tuple[Array, ...] = ()
        """What members have of their own beside their keys: `[S]` per field."""
        if population is None:
            self.key = layout.replicate(keys.root(run.seed))
            self._members: list[tuple[Array, ...]] = [(self.key,)]
        else:
            self.key = jax.vmap(keys.root)(jnp.asarray(np.asarray(population.seeds, np.uint32)))
            self._numbers = tuple(jnp.asarray(np.asarray(column, np.float32)) for column in population.numbers)
            self._members = loops.unstack((self.key, *self._numbers))
        self._batches = Batches(source, self.key, run.batch_size, layout, stream=stream)
        self._blank: Metrics | None = None
        self._epoch_seconds, self._epoch_steps = 0.0, 0  # seconds and steps of this epoch, in this process
        self._compiled = False
        self._measured: set[int] = set()  # the sizes of the data that has been measured

    # ------------------------------------------------------------------------------------------------------- the steps

    def start(self) -> Snapshot:
        """Return the state before the first step."""
        count, begins = len(self._members), self.resolved.beginning
        if begins is None or begins.params is None:
            states = [self._programs.init(*own) for own in self._members]
        elif begins.state is None:
            states = [self._programs.init_at(begins.params, *own) for own in self._members]
        else:
            states = [self.layout.place(begins.state) for _ in self._members]
        state = states[0] if self.population is None else loops.stack(states)
        progress = Progress(best_value=(math.inf,) * count, best_epoch=(0,) * count, in_a_row=(0,) * count)
        losses = np.zeros((0, *self.key.shape), np.float32)
        return Snapshot(state, loops.copied(state.averaged), self._empty_metrics(state), losses, progress)

    def shapes(self, progress: Progress) -> Snapshot:
        """Return the shapes of the snapshot at a progress; nothing is computed."""
        first, count = progress.epoch * self.steps_per_epoch, len(self._members)
        per_seed = (progress.best_value, progress.best_epoch, progress.in_a_row)
        if any(len(values) != count for values in per_seed) or progress.epoch > self.resolved.run.epochs:
            raise InputError("checkpoint", got="notes of another training", expected="those of this run")
        if not 0 <= first <= progress.step <= self.end_of_epoch(progress):
            raise InputError(
                "checkpoint",
                got=f"step {progress.step} in epoch {progress.epoch + 1}",
                expected=f"{self.steps_per_epoch} steps per epoch",
            )
        snapshot: Snapshot = jax.eval_shape(lambda: self.start()._replace(progress=None))  # type: ignore[arg-type]
        losses = jax.ShapeDtypeStruct((first, *self.key.shape), np.float32)
        return snapshot._replace(losses=losses, progress=progress)  # type: ignore[arg-type]

    def finished(self, progress: Progress) -> bool:
        """Return whether all epochs are done, or patience is used up for every seed."""
        patience = self.resolved.run.patience
        stopped = patience and all(progress.epoch - epoch >= patience for epoch in progress.best_epoch)
        return progress.epoch >= self.resolved.run.epochs or bool(progress.epoch and stopped)

    def used(self, progress: Progress) -> bool:
        """Return whether any step of the epochs so far could be used."""
        return sum(entry["skipped"] for entry in progress.history) < progress.step * len(self._members)

    def end_of_epoch(self, progress: Progress) -> int:
        """Return the step at which the epoch being trained ends."""
        return (progress.epoch + 1) * self.steps_per_epoch

    def advance(self, snapshot: Snapshot, stop: int) -> Snapshot:
        """Train up to step `stop`, at most to the end of the epoch. The snapshot's state is donated.

        Raises:
          Broken: too many steps in a row could not be used.
        """
        state, metrics, progress = snapshot.state, snapshot.metrics, snapshot.progress
        began, base, step = time.perf_counter(), progress.epoch * self.steps_per_epoch, progress.step
        before: list[Metrics] = []
        in_skipped_range = np.zeros(self.steps_per_epoch, bool)
        while step < stop:
            after = next((after for first, after in progress.rollbacks if first <= step < after), None)
            if after is not None:
                end = min(after, stop)
                in_skipped_range[step - base : end - base] = True
                state = state._replace(step=self._step_array(end))
            else:
                end = min([stop, *(first for first, _ in progress.rollbacks if first > step)])
                chunk = self._batches.chunk_at(step)
                end = min(end, base + chunk.first + len(chunk.rows))
                if len(before) > 1:  # the host may run ahead by one window, not more: windows are large
                    jax.block_until_ready(before[-2])
                with jax.transfer_guard("disallow"):  # a chunk never waits for the host
                    state, metrics = training.advance(
                        self._programs.step,
                        state,
                        chunk,
                        self.key,
                        *self._numbers,
                        metrics=metrics,
                        start=step - base,
                        stop=end - base,
                    )
                before.append(metrics)
            step = end
        skipped = np.asarray(metrics["skipped"])[progress.step - base : stop - base]
        if self._compiled:  # else it took the time of a compilation, too
            self._epoch_seconds += time.perf_counter() - began
            self._epoch_steps += stop - progress.step
        self._compiled = True
        progress = replace(
            progress,
            step=stop,
            in_a_row=progress.streaks(
                skipped,
                in_skipped_range[progress.step - base : stop - base],
                limit=self.resolved.run.safeguard.in_a_row,
            ),
            seconds=progress.seconds + time.perf_counter() - began,
        )
        return snapshot._replace(state=state, metrics=metrics, progress=progress)

    def train_to(self, snapshot: Snapshot, step: int) -> Snapshot:
        """Train to a step of any epoch without evaluating on the way: the state is the same, `best` is not."""
        while snapshot.progress.step < step:
            progress = snapshot.progress
            if progress.step == self.end_of_epoch(progress):
                snapshot = snapshot._replace(
                    metrics=self._empty_metrics(snapshot.state),
                    losses=np.concatenate([snapshot.losses, np.asarray(snapshot.metrics["loss"], np.float32)]),
                    progress=replace(progress, epoch=progress.epoch + 1),
                )
            snapshot = self.advance(snapshot, min(step, self.end_of_epoch(snapshot.progress)))
        return snapshot

    def finish_epoch(self, snapshot: Snapshot) -> tuple[Snapshot, Epoch]:
        """Evaluate after the last step of an epoch, and begin the next.

        Raises:
          Broken: the validation bound is not finite.
        """
        state, best, metrics, losses, progress = snapshot
        began, run, count = time.perf_counter(), self.resolved.run, len(self._members)
        measured = self._measure(state.averaged, self._validation)
        value = np.array([m[self.resolved.selects] for m in measured])
        if not np.isfinite(value).all():
            raise Broken(progress.step, progress.step, int(np.argmin(np.isfinite(value))))
        epoch, best_value, best_epoch = progress.epoch + 1, np.array(progress.best_value), np.array(progress.best_epoch)
        waiting = (epoch - best_epoch <= run.patience) | (run.patience == 0)  # seeds that have not stopped yet
        better = waiting & (value < best_value)
        if better.any():
            best = _choose(better[0] if self.population is None else better, state.averaged, best)
        logged = {name: np.asarray(m).reshape(len(m), count) for name, m in metrics.items()}
        used = logged.pop("skipped") == 0
        trained = {name: _means(m, used) for name, m in logged.items()}
        entries = [
            {
                "epoch": epoch,
                "step": progress.step,
                "train": _finite({name: m[s] for name, m in trained.items()}),
                "validation": _finite(measured[s]),
                "skipped": int((~used[:, s]).sum()),
            }
            for s in range(count)
        ]
        report = Epoch(
            epoch,
            run.epochs,
            progress.step,
            {name: float(m.mean()) for name, m in trained.items()},
            {name: float(np.mean([m[name] for m in measured])) for name in measured[0]},
            int((~used).sum()),
            count * run.batch_size * self._epoch_steps / self._epoch_seconds if self._epoch_seconds else math.nan,
            np.asarray(metrics["loss"], np.float32),
            self.resolved.selects,
        )
        progress = replace(
            progress,
            epoch=epoch,
            best_value=tuple(np.where(better, value, best_value).tolist()),
            best_epoch=tuple(np.where(better, epoch, best_epoch).tolist()),
            seconds=progress.seconds + time.perf_counter() - began,
            history=(*progress.history, *entries),
        )
        self._epoch_seconds, self._epoch_steps = 0.0, 0
        losses = np.concatenate([losses, report.losses])
        return Snapshot(state, best, self._empty_metrics(state), losses, progress), report

    def results(self, snapshot: Snapshot) -> dict[str, Any]:
        """Return validation and test metrics of the best parameters; with several seeds, one list entry per seed."""
        progress, one = snapshot.progress, self.population is None
        measured = {
            "validation": self._measure(snapshot.best, self._validation),
            "test": self._measure(snapshot.best, self._test),
        }
        return {
            "protocol": "means over examples, at one sample of z each but where a metric has more; "
            f"parameters of the epoch of the least {self.resolved.selects} of validation data",
            "best_epoch": progress.best_epoch[0] if one else list(progress.best_epoch),
            "seconds": round(progress.seconds, 3),
            **{part: found[0] if one else found for part, found in measured.items()},
        }

    def rows_of(self, step: int) -> np.ndarray:
        """Return which training examples a step sees, `[batch size]`, or `[S, batch size]` for seeds."""
        return self._batches.rows_of(step)

    # ------------------------------------------------------------------------------------------------------ their parts

    def _step_array(self, step: int) -> Array:
        return self.layout.replicate(np.full(self.key.shape, step, np.int32))

    def _empty_metrics(self, state: TrainState) -> Metrics:
        """Return the metrics of an epoch before its first step: every step counts as skipped until it is taken."""
        if self._blank is None:
            blank = training.empty_outputs(
                self._programs.step, state, self._batches.shapes(), self.key, *self._numbers, steps=self.steps_per_epoch
            )
            self._blank = {**blank, "skipped": blank["skipped"] + 1}
        return self.layout.replicate(self._blank)

    def _measure(self, params: Params, x: Any) -> list[dict[str, float]]:
        """Return the means of the metric over `x`, of each member."""
        model = self.resolved.run.model

        def measure(member: tuple[Params, tuple[Array, ...]]) -> dict[str, float]:
            own, (root, *numbers) = member
            key = keys.stream(root, keys.Stream.EVALUATE)
            given = (own, *numbers) if numbers else own
            return evaluation.evaluate(model, given, x, key, metric=self._programs.metric, layout=self.layout)

        each = [params] if self.population is None else loops.unstack(params)
        compiled = len(x) in self._measured
        self._measured.add(len(x))
        return list(loops.map_in_threads(measure, zip(each, self._members, strict=True), compiled=compiled))


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Return metrics as JSON can hold them: `None` for what is no finite number."""
    return {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()}


def _means(metric: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return means over the used steps, per seed, in float64: `[T, S]` -> `[S]`."""
    return np.array(
        [m[u].astype(np.float64).mean() if u.any() else np.nan for m, u in zip(metric.T, used.T, strict=True)]
    )


@jax.jit
def _choose(better: Array, new: Params, old: Params) -> Params:
    """Return `new` where better, else `old`, per seed; always a copy, since the state's buffers are donated."""

    def pick(n: Array, o: Array) -> Array:
        return jnp.where(better.reshape(better.shape + (1,) * (n.ndim - better.ndim)), n, o)

    return jax.tree.map(pick, new, old)
