"""What each dimension of a code does: one at a time is moved over what the prior holds likely, and decoded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from aevae_jax import conditions, keys
from aevae_jax.conditions import Conditioned
from aevae_jax.data.datasets import Source
from aevae_jax.discrete import Snapping
from aevae_jax.evaluation import metrics
from aevae_jax.types import InputError, LatentModel, Params, Scaled, has_point_codes

DRAWS = 10_000
"""Codes by which the moments of a prior are estimated that does not tell them."""


class Dimensions(NamedTuple):
    """Statistics of each dimension of a code, `[L]` each; of a map, of all its numbers in their order."""

    loc: np.ndarray
    """Mean of the prior; of codes that are points, of the codes of the data."""
    scale: np.ndarray
    """Standard deviation of the same."""
    activity: np.ndarray
    """Variance of the posterior means over the data: Burda, Grosse & Salakhutdinov 2016 count those above 0.01."""


def describe(
    model: LatentModel,
    params: Params,
    x: Array | Source | Conditioned,
    *,
    at: int = 0,
    on_part: Callable[[int, int], None] | None = None,
) -> Dimensions:
    """Return statistics of the dimensions of a model.

    Args:
      model: whose codes are arrays `[B, *latent]`.
      params: its parameters.
      x: examples as the model sees them, `[N, *event]`.
      at: the example whose condition the prior is at, where `x` is `Conditioned`.
      on_part: see `metrics.per_example`.

    Raises:
      InputError: codes that are discrete.
    """
    if isinstance(model, Snapping):
        got = f"those of a {type(model).__name__}, which are discrete"
        raise InputError("codes", got=got, expected="dimensions to move along", hint="try aevae interpolate")
    means = metrics.per_example(_codes, model, params, x, keys.root(0), on_part=on_part)["codes"]
    means = means.reshape(len(means), -1).astype(np.float64)
    activity = means.var(axis=0)
    if has_point_codes(model):
        return Dimensions(means.mean(axis=0), np.sqrt(activity), activity)
    own, _ = conditions.bound_to(model, x[at : at + 1])
    prior: Any = own.prior(params, 1)
    scale = prior.scale if isinstance(prior, Scaled) else None
    if scale is not None:
        return Dimensions(np.asarray(prior.mean())[0].reshape(-1), np.asarray(scale)[0].reshape(-1), activity)
    drawn = np.asarray(own.prior(params, DRAWS).sample(keys.root(0)), np.float64).reshape(DRAWS, -1)
    return Dimensions(drawn.mean(axis=0), drawn.std(axis=0), activity)


def _codes(model: LatentModel, params: Params, x: Array, key: Array) -> dict[str, Array]:
    return {"codes": model.encode(params, x).mean()}


def place(dimension: int, shape: tuple[int, ...]) -> str:
    """Return the name of a dimension of codes of a shape: its number, or in a map its place."""
    return ", ".join(map(str, np.unravel_index(dimension, shape)))


def codes(z: Any, dimensions: np.ndarray, found: Dimensions, values: np.ndarray) -> np.ndarray:
    """Return codes `[D, V, L]`: z `[L]` with one of its dimensions at `loc + value * scale`, for each of `values`."""
    moved = np.broadcast_to(np.asarray(z, np.float32), (len(dimensions), len(values), len(z))).copy()
    for row, dimension in zip(moved, dimensions, strict=True):
        row[:, dimension] = found.loc[dimension] + values * found.scale[dimension]
    return moved
