"""The only rule that derives random keys.

One constant root key per run; every use is `fold_in(root, stream)`, then `fold_in(.., step)`, then a split. Nothing has
to be stored to resume but the seed and the step, and no two uses can meet.
"""

from __future__ import annotations

from enum import IntEnum

import jax
import jax.numpy as jnp
from jax import Array


class Stream(IntEnum):
    """What a key is used for. Append only: the numbers are part of what makes old runs reproducible."""

    INIT = 0
    ORDER = 1
    NOISE = 2
    PREPARE = 3
    EVALUATE = 4
    SAMPLE = 5


def root(seed: int | Array) -> Array:
    """Return the root key of a run."""
    return jax.random.key(seed)


def stream(key: Array, use: Stream, step: int | Array | None = None) -> Array:
    """Return the key for one use, and for one step of it where a step is given."""
    key = jax.random.fold_in(key, int(use))
    return key if step is None else jax.random.fold_in(key, step)


def each(key: Array, indices: Array) -> Array:
    """Return one key per index `[N]`: the same for an index whatever batch or chunk it is met in."""
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)


def many(key: Array, num: int) -> Array:
    """Return keys `[num]`; the first K of them do not depend on `num`."""
    return each(key, jnp.arange(num))
