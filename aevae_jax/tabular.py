"""The distribution of a table's rows: columns of numbers, bits and categories side by side, some entries missing.

Heterogeneous likelihoods with missing entries: Nazabal, Olmos, Ghahramani & Valera 2020, "Handling incomplete
heterogeneous data using VAEs", sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import log_softmax, one_hot, softmax

from aevae_jax import layout
from aevae_jax.distributions import Bernoulli, Normal
from aevae_jax.types import Distribution


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Tabular:
    """Independent columns, whose values are features `[B, F]` as `layout` says; a missing entry is marginalised out.

    Args:
      outputs: `[B, F]`, in the places of the features: a number's mean and log standard deviation; a binary column's
        log-odds and one that is not used; a categorical column's logits.
      columns: the number of categories of each column, 0 for numbers.
    """

    outputs: Array
    columns: tuple[int, ...] = field(metadata={"static": True})

    def sample(self, key: Array) -> Array:
        """Whole rows: every entry is there."""
        draws = iter(jax.random.split(key, len(layout.groups(self.columns))))
        return self._joined(lambda categories, outputs: _sample(categories, outputs, next(draws)))

    def log_prob(self, value: Array) -> Array:
        """Log density of numbers plus log mass of codes, in nats: `[B]`, summed over the columns that are observed.

        The outputs of a missing entry are replaced before anything is computed of them, so that neither the value nor
        the gradient depends on what stands there, be it infinite.
        """
        total = jnp.zeros(value.shape[0], self.outputs.dtype)
        for group in layout.groups(self.columns):
            x, outputs = value[:, group.slots], self.outputs[:, group.slots]  # [B, K, W]
            there = layout.observed(group.categories, x)
            outputs = jnp.where(there[..., None], outputs, 0.0)
            total += jnp.where(there, _log_prob(group.categories, outputs, x), 0.0).sum(axis=-1)
        return total

    def mean(self) -> Array:
        """The expected features of whole rows: a number's mean, the probabilities of categories, and observed = 1."""
        return self._joined(_mean)

    def kl(self, other: Distribution) -> Any:
        return NotImplemented

    def observed(self, value: Array) -> Array:
        """Which features of `value` are data, 1 or 0 `[B, F]`: neither missing entries nor the marks of observation."""

        def weights(group: layout.Group) -> Array:
            x = value[:, group.slots]
            there = layout.observed(group.categories, x)[..., None]
            data = jnp.arange(x.shape[-1])[None, None] < (group.categories if group.categories > 2 else 1)
            return (there & data).astype(value.dtype)

        return layout.joined(self.columns, [weights(group) for group in layout.groups(self.columns)])

    def _joined(self, function: Callable[[int, Array], Array]) -> Array:
        """`function` of each group of columns, `(categories, outputs [B, K, W]) -> [B, K, W]`, as features `[B, F]`."""
        groups = layout.groups(self.columns)
        return layout.joined(self.columns, [function(g.categories, self.outputs[:, g.slots]) for g in groups])


def _pairs(categories: int, outputs: Array) -> Normal | Bernoulli:
    """Numbers or bits: `[..., 2] -> one distribution of each, over an event of shape [..., 1]`."""
    return Bernoulli(outputs[..., :1]) if categories else Normal(outputs[..., :1], outputs[..., 1:])


def _log_prob(categories: int, outputs: Array, x: Array) -> Array:
    """Of each entry by itself: `[B, K, W], [B, K, W] -> [B, K]`."""
    if categories > 2:
        return (x * log_softmax(outputs)).sum(axis=-1)
    width = x.shape[-1]
    return _pairs(categories, outputs.reshape(-1, width)).log_prob(x.reshape(-1, width)[:, :1]).reshape(x.shape[:-1])


def _sample(categories: int, outputs: Array, key: Array) -> Array:
    if categories > 2:
        return one_hot(jax.random.categorical(key, outputs), categories, dtype=outputs.dtype)
    return _whole(_pairs(categories, outputs).sample(key))


def _mean(categories: int, outputs: Array) -> Array:
    return softmax(outputs) if categories > 2 else _whole(_pairs(categories, outputs).mean())


def _whole(value: Array) -> Array:
    """Values `[..., 1]` with the mark that they are there, `[..., 2]`."""
    return jnp.concatenate([value, jnp.ones_like(value)], axis=-1)
