"""The only rule that derives random keys, and the uniform numbers of which every step of a training draws many.

One constant root key per run; every use is `fold_in(root, stream)`, then `fold_in(.., step)`, then a split. Nothing has
to be stored to resume but the seed and the step, and no two uses can meet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum
from functools import partial

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
    OBJECTIVE = 6
    CONDITION = 7


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


def uniform(key: Array, shape: Sequence[int]) -> Array:
    """Return `jax.random.uniform(key, shape, jnp.float32)`, the same bits, in [0, 1).

    On CPUs, JAX has the rounds of threefry in a loop, which XLA neither fuses nor vectorises: written out they take
    a fifth of its time. Salmon et al. 2011.
    """
    if jax.default_backend() != "cpu" or not _counts_elements(key) or math.prod(shape) >= 2**32:
        return jax.random.uniform(key, shape, jnp.float32)
    return _written_out(key, tuple(shape))


@partial(jax.jit, static_argnums=1, inline=True)  # so many operations are traced once per shape
def _written_out(key: Array, shape: tuple[int, ...]) -> Array:
    """Return what `uniform` does."""
    data = jax.random.key_data(key)
    counts = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    high, low = _threefry(data[0], data[1], jnp.zeros_like(counts), counts)
    mantissa = (high ^ low) >> jnp.uint32(9)  # of a number in [1, 2)
    return jax.lax.bitcast_convert_type(mantissa | jnp.uint32(0x3F800000), jnp.float32) - 1.0


def _counts_elements(key: Array) -> bool:
    """Return whether random bits are those of threefry at the number of each element: JAX's default."""
    return jax.random.key_impl(key) == "threefry2x32" and bool(jax.threefry_partitionable.value)


def _threefry(key_high: Array, key_low: Array, high: Array, low: Array) -> tuple[Array, Array]:
    """Return the 20 rounds of threefry2x32 at a counter in two words."""
    words = (key_high, key_low, key_high ^ key_low ^ jnp.uint32(0x1BD11BDA))
    high, low = high + words[0], low + words[1]
    for group in range(5):
        for rotation in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            high = high + low
            low = high ^ ((low << jnp.uint32(rotation)) | (low >> jnp.uint32(32 - rotation)))
        high = high + words[(group + 1) % 3]
        low = low + words[(group + 2) % 3] + jnp.uint32(group + 1)
    return high, low
