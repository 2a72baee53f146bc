"""Finite sets of vectors by their indices, as pytrees: what discrete codes are made of.

A book has `levels` and `choices`: a vector is known by one index from 0 to `choices` - 1 for each level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array


class Book(Protocol):
    """A finite set of vectors, of D numbers for each level, side by side."""

    @property
    def levels(self) -> int:
        """L, how many indices a vector has."""
        ...

    @property
    def choices(self) -> int:
        """K, how many values each index has."""
        ...

    def entries(self) -> Array:
        """Return what each index stands for, `[L, K, D]`."""
        ...

    def vectors(self, index: Array) -> Array:
        """Return those of indices, `[..., L]` -> `[..., L * D]`."""
        ...

    def indices(self, vectors: Array) -> Array:
        """Return those of the nearest vectors, `[..., L * D]` -> `[..., L]`, int32."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Codebooks:
    """L codebooks, of which each one says what is left by those before it. `table` is `[L, K, D]`.

    One level is the codebook of van den Oord, Vinyals & Kavukcuoglu 2017; several are the residual vector quantisation
    of Zeghidour, Luebs, Omran, Skoglund & Tagliasacchi 2021. What stands for an output is the sum of the levels; the
    vector has them side by side, as their sum alone does not tell the indices.
    """

    table: Array

    @property
    def levels(self) -> int:
        return self.table.shape[0]

    @property
    def choices(self) -> int:
        return self.table.shape[1]

    def entries(self) -> Array:
        return self.table

    def vectors(self, index: Array) -> Array:
        return jnp.concatenate([self.table[level][index[..., level]] for level in range(self.levels)], axis=-1)

    def indices(self, vectors: Array) -> Array:
        parts = jnp.split(vectors, self.levels, axis=-1)
        return jnp.stack([nearest(part, self.table[level]) for level, part in enumerate(parts)], axis=-1)

    def quantised(self, outputs: Array) -> tuple[Array, Array, Array]:
        """Return indices `[..., L]` of outputs `[..., D]`, and what is left of these for each level and the entry that
        is nearest to it, `[..., L, D]` both.

        Gradients reach what is left through the outputs alone, and entries through the table.
        """
        left = outputs
        indices, lefts, entries = [], [], []
        for level in range(self.levels):
            table = self.table[level]
            indices.append(nearest(left, table))
            lefts.append(left)
            entries.append(table[indices[-1]])
            left = left - jax.lax.stop_gradient(entries[-1])
        return jnp.stack(indices, axis=-1), jnp.stack(lefts, axis=-2), jnp.stack(entries, axis=-2)


def nearest(vectors: Array, table: Array) -> Array:
    """Return which rows of a table `[K, D]` are nearest to vectors `[..., D]`; of equal ones the first, int32."""
    products = jnp.matmul(vectors, table.T, precision="highest")
    squares = (table**2).sum(axis=1)
    return jnp.argmin(squares.reshape(*[1] * (products.ndim - 1), -1) - 2 * products, axis=-1).astype(jnp.int32)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Grid:
    """Vectors whose number d is one of `sizes[d]` equidistant ones in [-1, 1]. One level; nothing is learned.

    The finite scalar quantisation of Mentzer, Minnen, Agustsson & Tschannen 2023. Of an odd size the numbers are
    -1, ..., 0, ..., 1, of an even one the last is missing.
    """

    sizes: tuple[int, ...] = field(metadata={"static": True})

    @property
    def levels(self) -> int:
        return 1

    @property
    def choices(self) -> int:
        return math.prod(self.sizes)

    def entries(self) -> Array:
        return self.vectors(jnp.arange(self.choices)[:, None])[None]

    def vectors(self, index: Array) -> Array:
        sizes, strides = (_row(numbers, index.ndim) for numbers in (self.sizes, self._strides))
        half = sizes // 2
        return ((index // strides) % sizes - half).astype(float) / half.astype(float)  # float64 where that is enabled

    def indices(self, vectors: Array) -> Array:
        sizes, strides = (_row(numbers, vectors.ndim) for numbers in (self.sizes, self._strides))
        digits = jnp.round(vectors * (sizes // 2)).astype(jnp.int32) + sizes // 2
        return (jnp.clip(digits, 0, sizes - 1) * strides).sum(axis=-1, keepdims=True, dtype=jnp.int32)

    @property
    def _strides(self) -> tuple[int, ...]:
        return tuple(math.prod(self.sizes[:place]) for place in range(len(self.sizes)))


def _row(numbers: tuple[int, ...], rank: int) -> Array:
    return jnp.asarray(numbers, jnp.int32).reshape(*[1] * (rank - 1), -1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class OneHots:
    """The `choices` vectors of which one number is 1 and all others are 0. One level."""

    choices: int = field(metadata={"static": True})

    @property
    def levels(self) -> int:
        return 1

    def entries(self) -> Array:
        return jnp.eye(self.choices)[None]

    def vectors(self, index: Array) -> Array:
        return jax.nn.one_hot(index[..., 0], self.choices)

    def indices(self, vectors: Array) -> Array:
        return jnp.argmax(vectors, axis=-1, keepdims=True).astype(jnp.int32)
