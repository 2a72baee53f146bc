"""What went wrong at a step: its terms, its examples, and the operation that first made a number that is none."""

from __future__ import annotations

import contextlib
import math
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from aevae_jax import keys, training
from aevae_jax.runs import tracing
from aevae_jax.runs.resolution import ResolvedRun
from aevae_jax.runs.snapshots import Snapshot
from aevae_jax.runs.trainer import Trainer
from aevae_jax.types import InputError, Params


class BrokenStep(NamedTuple):
    """A training step computed again, without taking it."""

    step: int
    metrics: dict[str, float]
    """The loss, its terms and `gradient_norm`."""
    broken: tuple[str, ...]
    """Which of them are not finite; or which gradients; or that the norm is beyond its limit."""
    rows: tuple[int, ...]
    """The batch: indices into the training data."""
    examples: tuple[int, ...]
    """Those rows whose loss or gradient is not sound if they are a batch of their own; empty if all are."""
    culprit: tracing.Culprit | None
    """The first operation whose result is not finite and reaches the loss or the gradient, if that was looked for."""


def scale_advice(resolved: ResolvedRun) -> str:
    """Return what to try where the numbers that a model sees are far from unit scale; empty where they are not."""
    _, x = next(resolved.prepared.seen("train", keys.root(resolved.run.seed)))
    spread, largest = float(np.std(x, dtype=np.float64)), float(np.max(np.abs(x)))
    if 1e-2 < spread < 1e2 and largest < 1e3:
        return ""
    return f"the data reach {largest:.3g} with a standard deviation of {spread:.3g}: try the preparation Standardize()"


def examine(trainer: Trainer, snapshot: Snapshot, *, trace: bool = False) -> BrokenStep:
    """Compute the next step of a snapshot, of a run with one seed, without taking it.

    Args:
      trainer: of the run.
      snapshot: before the step.
      trace: also find the operation; it takes some seconds, as every operation is compiled by itself.
    """
    run, step = trainer.resolved.run, snapshot.progress.step
    limit = run.safeguard.max_norm or math.inf
    differentiate = training.make_gradient(run.model, run.objective, prepare=trainer.resolved.prepared.batch)
    params, key, index = snapshot.state.params, trainer.key, snapshot.state.step
    rows = trainer.rows_of(step)
    batch = trainer.resolved.prepared.train.rows[rows]

    @jax.jit
    def measure(params: Params, batch: Any) -> tuple[dict[str, jax.Array], Params]:
        found = differentiate(params, batch, key, index)
        return {"loss": found.loss, **found.metrics, "gradient_norm": optax.tree.norm(found.gradient)}, found.gradient

    found, gradient = measure(params, batch)
    metrics = {name: float(value) for name, value in found.items()}
    broken = tuple(name for name, value in metrics.items() if not math.isfinite(value) and name != "gradient_norm")
    if not broken:
        leaves = jax.tree_util.tree_flatten_with_path(gradient)[0]
        bad = [path for path, leaf in leaves if not np.isfinite(leaf).all()]
        broken = tuple(f"the gradient of {jax.tree_util.keystr(path, simple=True, separator='/')}" for path in bad)
    if not broken and not math.isfinite(metrics["gradient_norm"]):  # the squares of finite gradients may not be
        broken = ("gradient_norm",)
    if not broken and metrics["gradient_norm"] > limit:
        broken = (f"a gradient norm of {metrics['gradient_norm']:.3g}, above max_norm = {limit:g}",)
    examples: list[int] = []
    if broken:
        with contextlib.suppress(InputError):  # a loss that compares the examples of a batch has no term of one alone
            for place, row in enumerate(rows):
                example = batch[place : place + 1]
                alone = {name: float(value) for name, value in measure(params, example)[0].items()}
                sound = math.isfinite(alone["loss"]) and math.isfinite(alone["gradient_norm"])
                if not (sound and alone["gradient_norm"] <= limit):
                    examples.append(int(row))
    culprit = tracing.first_non_finite(differentiate, params, batch, key, index) if trace else None
    return BrokenStep(step, metrics, broken, tuple(int(row) for row in rows), tuple(examples), culprit)
