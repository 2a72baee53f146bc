"""Rows of a table with their missing entries filled in by a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from aevae_jax import keys
from aevae_jax.data import table_files
from aevae_jax.evaluation import metrics
from aevae_jax.models import generation

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax.data import Data, Format
    from aevae_jax.types import LatentModel, Params


class Completed(NamedTuple):
    """Rows `[N, D]`, in the units of the data."""

    rows: np.ndarray
    """All entries: what was given as it was, what was missing as the model decodes it."""
    given: np.ndarray
    """NaN where an entry was missing."""
    texts: list[list[str]] | None
    """The given entries of a file as they stand there, `[D][N]`, empty where one was missing."""


def complete_file(model: LatentModel, params: Params, data: Data, format: Format, path: Path) -> Completed:
    """Complete the rows of a .csv or .parquet file.

    Raises:
      InputError: a file that `table_files.read_rows` refuses.
    """
    reading = data.reading
    raw = table_files.read_rows(path, format.columns, reading)
    texts = table_files.read_texts(path, format.columns, reading)
    there = ~np.isnan(raw.T)
    return Completed(
        _filled(model, params, data, format, raw),
        raw,
        [[text if t else "" for text, t in zip(*of, strict=True)] for of in zip(texts, there, strict=True)],
    )


def complete_rows(model: LatentModel, params: Params, data: Data, format: Format, raw: np.ndarray) -> Completed:
    """Complete raw rows `[N, D]`, NaN where an entry is missing."""
    return Completed(_filled(model, params, data, format, raw), raw, None)


def _filled(model: LatentModel, params: Params, data: Data, format: Format, raw: np.ndarray) -> np.ndarray:
    preparation = data.preparation
    [x] = preparation.evaluation([raw], format)
    decoded = metrics.per_example(_reconstruction, model, params, x, keys.root(0))["rows"]
    return np.where(np.isnan(raw), preparation.inverse(decoded, format), raw)


def _reconstruction(model: LatentModel, params: Params, x: Array, key: Array) -> dict[str, Array]:
    return {"rows": generation.reconstruct(model, params, x)}
