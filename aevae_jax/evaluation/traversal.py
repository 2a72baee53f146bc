"""What each dimension of a code does: one at a time is moved over what the prior holds likely, and decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax import Array
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aevae_jax import durable, figures, keys
from aevae_jax.data.datasets import Source
from aevae_jax.evaluation import metrics
from aevae_jax.types import LatentModel, Params, Scaled, has_point_codes

DRAWS = 10_000
"""Codes by which the moments of a prior are estimated that does not tell them."""


class Dimensions(NamedTuple):
    """Statistics of each dimension of a code, `[L]` each."""

    loc: np.ndarray
    """Mean of the prior; of codes that are points, of the codes of the data."""
    scale: np.ndarray
    """Standard deviation of the same."""
    activity: np.ndarray
    """Variance of the posterior means over the data: Burda, Grosse & Salakhutdinov 2016 count those above 0.01."""


def describe(
    model: LatentModel, params: Params, x: Array | Source, *, on_part: Callable[[int, int], None] | None = None
) -> Dimensions:
    """Return statistics of the dimensions of a model over vectors.

    Args:
      model: whose codes are arrays `[B, L]`.
      params: its parameters.
      x: examples as the model sees them, `[N, *event]`.
      on_part: see `metrics.per_example`.
    """
    means = metrics.per_example(_codes, model, params, x, keys.root(0), on_part=on_part)["codes"].astype(np.float64)
    activity = means.var(axis=0)
    if has_point_codes(model):
        return Dimensions(means.mean(axis=0), np.sqrt(activity), activity)
    prior: Any = model.prior(params, 1)
    scale = prior.scale if isinstance(prior, Scaled) else None
    if scale is not None:
        return Dimensions(np.asarray(prior.mean())[0], np.asarray(scale)[0], activity)
    drawn = np.asarray(model.prior(params, DRAWS).sample(keys.root(0)), np.float64)
    return Dimensions(drawn.mean(axis=0), drawn.std(axis=0), activity)


def _codes(model: LatentModel, params: Params, x: Array, key: Array) -> dict[str, Array]:
    return {"codes": model.encode(params, x).mean()}


def codes(z: Any, dimensions: np.ndarray, found: Dimensions, values: np.ndarray) -> np.ndarray:
    """Return codes `[D, V, L]`: z `[L]` with one of its dimensions at `loc + value * scale`, for each of `values`."""
    moved = np.broadcast_to(np.asarray(z, np.float32), (len(dimensions), len(values), len(z))).copy()
    for row, dimension in zip(moved, dimensions, strict=True):
        row[:, dimension] = found.loc[dimension] + values * found.scale[dimension]
    return moved


def draw(
    path: Path,
    images: np.ndarray,
    *,
    values: np.ndarray,
    rows: Sequence[str],
    title: str,
    unit: str,
    span: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Draw decoded images `[D * V, h, w, C]`, a row of `values` for each dimension, with their labels.

    Args:
      path: of the PNG file, which is written whole or not at all.
      images: row after row.
      values: what the columns are labelled with.
      rows: what the rows are labelled with.
      title: above all of it.
      unit: of the values.
      span: the values of pixels that are black and white.
    """
    pixels = figures.image_grid(images, len(values), span=span).pixels
    height, width = pixels.shape[:2]
    figure = Figure(figsize=(8, min(7 * height / width + 1.3, 30)), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel=unit, ylabel="latent dimension")
    axes.imshow(pixels, interpolation="nearest")
    axes.set_xticks(_centres(width, len(values)), [f"{value:+.3g}" if value else "0" for value in values])
    axes.set_yticks(_centres(height, len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=11)
    with durable.replacing(path, what=path.name) as file:
        figure.savefig(file, format="png")


def _centres(pixels: int, count: int) -> np.ndarray:
    """Return the middles of so many tiles, which have a gap of one pixel between them."""
    return (np.arange(count) + 0.5) * (pixels + 1) / count - 1
