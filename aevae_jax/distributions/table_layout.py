"""Where the columns of a table stand among the features `[B, F]` that a model sees. For NumPy and JAX arrays alike.

    a column             number of categories    features
    a number             0                       value or 0; observed 1 or 0
    a count              COUNT                   value or 0; observed 1 or 0
    a binary column      2                       code 0 or 1, or 0; observed 1 or 0
    C >= 3 categories    C                       one of C is 1; all are 0 where the entry is missing

So no feature is ever NaN, and whether an entry is there can be read off its features.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from aevae_jax.lazy import np

COUNT = -1
"""What stands for a column of counts in place of its number of categories."""


class Group(NamedTuple):
    """The K columns of a table that have the same number of categories, which are computed with at once."""

    categories: int
    """0 for numbers, `COUNT`, 2 for binary columns, C >= 3."""
    columns: np.ndarray
    """Their places in the table, `[K]`."""
    slots: np.ndarray
    """Their features, `[K, W]`, W = 2 or C: `x[:, slots]` is `[B, K, W]`."""


def feature_count(columns: tuple[int, ...]) -> int:
    """Return F, from the number of categories of each column."""
    return sum(max(categories, 2) for categories in columns)


@lru_cache(maxsize=64)
def groups(columns: tuple[int, ...]) -> tuple[Group, ...]:
    """Return the columns, given by their numbers of categories, with those of one number together."""
    width = np.maximum(columns, 2)
    start = np.cumsum(width) - width
    found = []
    for categories in sorted(set(columns)):
        places = np.flatnonzero(np.equal(columns, categories))
        found.append(Group(categories, places, start[places][:, None] + np.arange(max(categories, 2))))
    return tuple(found)


def log_scales(columns: tuple[int, ...]) -> np.ndarray:
    """Return in which places the log scale of a number or count stands, if outputs take the places of features:
    `[F]`.
    """
    mask = np.zeros(feature_count(columns), bool)
    mask[[slot for group in groups(columns) if group.categories <= 0 for slot in group.slots[:, 1]]] = True
    return mask


def observed(categories: int, x: Any) -> Any:
    """Return whether an entry is there, from its features: `[B, K, W] -> [B, K]`."""
    return (x.sum(axis=-1) if categories > 2 else x[..., 1]) > 0.5


def joined(columns: tuple[int, ...], parts: Sequence[Any]) -> Any:
    """Return one part `[B, K, W]` for each group of columns, put in the order of the features: `[B, F]`."""
    order = np.argsort(np.concatenate([group.slots.reshape(-1) for group in groups(columns)]))
    flat = [part.reshape(part.shape[0], -1) for part in parts]
    return flat[0].__array_namespace__().concatenate(flat, axis=1)[:, order]
