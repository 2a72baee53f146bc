"""The distribution of a table's rows: columns of numbers, counts, bits and categories, some entries missing.

Heterogeneous likelihoods with missing entries: Nazabal, Olmos, Ghahramani & Valera 2020, "Handling incomplete
heterogeneous data using VAEs", sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn import log_softmax, one_hot, sigmoid, softmax, softplus

from aevae_jax.distributions import table_layout
from aevae_jax.distributions.elementary import Bernoulli, Normal
from aevae_jax.distributions.logistic import logistic_log_mass
from aevae_jax.types import Distribution, Measure


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Tabular:
    """Independent columns, of features `[B, F]` as `table_layout` says; a missing entry is marginalised out.

    Args:
      outputs: `[B, F]`, in the places of the features: a number's mean and log standard deviation; a count's location
        and log scale; a binary column's log-odds and one that is not used; a categorical column's logits.
      columns: the number of categories of each column, 0 for numbers, `table_layout.COUNT` for counts.
      counts: of each column of counts, where 0 lies among its values and how far apart they are.
    """

    outputs: Array
    columns: tuple[int, ...] = field(metadata={"static": True})
    counts: tuple[tuple[float, float], ...] = field(default=(), metadata={"static": True})

    @property
    def measure(self) -> Measure:
        """A density of the numbers, a mass of the counts and codes."""
        kinds = {bool(categories) for categories in self.columns}
        return "density and mass" if len(kinds) > 1 else "mass" if True in kinds else "density"

    def sample(self, key: Array) -> Array:
        """Return whole rows: every entry is there."""
        draws = iter(jax.random.split(key, len(table_layout.groups(self.columns))))
        return self._joined(lambda categories, outputs: self._sample(categories, outputs, next(draws)))

    def log_prob(self, value: Array) -> Array:
        """Log density of numbers plus log mass of counts and codes, in nats: `[B]`, summed over what is observed.

        The outputs of a missing entry are replaced before anything is computed of them, so that neither the value nor
        the gradient depends on what stands there, be it infinite.
        """
        total = jnp.zeros(value.shape[0], self.outputs.dtype)
        for group in table_layout.groups(self.columns):
            x, outputs = value[:, group.slots], self.outputs[:, group.slots]  # [B, K, W]
            there = table_layout.observed(group.categories, x)
            outputs = jnp.where(there[..., None], outputs, 0.0)
            total += jnp.where(there, self._log_prob(group.categories, outputs, x), 0.0).sum(axis=-1)
        return total

    def mean(self) -> Array:
        """Return the expected features of whole rows: means, the probabilities of categories, and observed = 1."""
        return self._joined(self._mean)

    def kl(self, other: Distribution) -> Any:
        return NotImplemented

    def observed(self, value: Array) -> Array:
        """Return which features of `value` are data, 1 or 0 `[B, F]`: neither missing entries nor the marks of
        observation.
        """

        def weights(group: table_layout.Group) -> Array:
            x = value[:, group.slots]
            there = table_layout.observed(group.categories, x)[..., None]
            data = jnp.arange(x.shape[-1])[None, None] < (group.categories if group.categories > 2 else 1)
            return (there & data).astype(value.dtype)

        return table_layout.joined(self.columns, [weights(group) for group in table_layout.groups(self.columns)])

    def _joined(self, function: Callable[[int, Array], Array]) -> Array:
        """Return `function` of each group of columns, `(categories, outputs [B, K, W]) -> [B, K, W]`, as features
        `[B, F]`.
        """
        groups = table_layout.groups(self.columns)
        return table_layout.joined(self.columns, [function(g.categories, self.outputs[:, g.slots]) for g in groups])

    def _log_prob(self, categories: int, outputs: Array, x: Array) -> Array:
        """Return the log probability of each entry by itself: `[B, K, W], [B, K, W] -> [B, K]`."""
        if categories > 2:
            return (x * log_softmax(outputs)).sum(axis=-1)
        if categories == table_layout.COUNT:
            return self._counts(outputs).log_prob_terms(x[..., 0])
        width = x.shape[-1]
        return (
            _pairs(categories, outputs.reshape(-1, width)).log_prob(x.reshape(-1, width)[:, :1]).reshape(x.shape[:-1])
        )

    def _sample(self, categories: int, outputs: Array, key: Array) -> Array:
        if categories > 2:
            return one_hot(jax.random.categorical(key, outputs), categories, dtype=outputs.dtype)
        return _whole(self._element(categories, outputs).sample(key))

    def _mean(self, categories: int, outputs: Array) -> Array:
        if categories > 2:
            return softmax(outputs)
        return _whole(self._element(categories, outputs).mean())

    def _element(self, categories: int, outputs: Array) -> _Counts | Normal | Bernoulli:
        return self._counts(outputs) if categories == table_layout.COUNT else _pairs(categories, outputs)

    def _counts(self, outputs: Array) -> _Counts:
        zero, step = np.array(self.counts).T
        below = np.rint(-zero / step)
        origin, step, below = (jnp.asarray(a, outputs.dtype)[None] for a in (zero + below * step, step, below))
        return _Counts(outputs[..., 0], outputs[..., 1], origin, step, below)


class _Counts(NamedTuple):
    """Logistics `[B, K]` rounded to the values origin + k step, k = -below, 1 - below, ...; the lowest takes the rest.

    The discretised logistic of Salimans, Karpathy, Chen & Kingma 2017 (PixelCNN++), section 2.1, without an upper end.
    The origin is the value next to 0, so that counts keep their digits however large they are: years, say.
    """

    loc: Array
    log_scale: Array
    origin: Array
    step: Array
    below: Array

    def log_prob_terms(self, value: Array) -> Array:
        lowest = (value - self.origin) / self.step < 0.5 - self.below
        highest = jnp.zeros_like(lowest)
        return logistic_log_mass(value, self.loc, self.log_scale, self.step, lowest=lowest, highest=highest)

    def sample(self, key: Array) -> Array:
        draw = self.loc + jnp.exp(self.log_scale) * jax.random.logistic(key, self.loc.shape, self.loc.dtype)
        k = jnp.maximum(jnp.round((draw - self.origin) / self.step), -self.below)
        return (self.origin + self.step * k)[..., None]

    def mean(self) -> Array:
        """Return the expected value, `[B, K, 1]`: that of a count is the sum of P(count > j) over j = 0, 1, ...

        Where the scale is below 2, terms farther than 40 from the location are 1 or 0 in float32. Above, the sum is its
        integral from 0 on, loc + s softplus(-loc / s), and two terms of the Euler-Maclaurin formula for midpoints.
        """
        loc, scale = (self.loc - self.origin) / self.step, jnp.exp(self.log_scale) / self.step
        first, small = jnp.maximum(jnp.floor(loc) - _REACH, -self.below), jnp.minimum(scale, 2.0)
        near = jax.vmap(lambda j: sigmoid((loc - first - j - 0.5) / small))(jnp.arange(2.0 * _REACH + 1)).sum(axis=0)
        large = jnp.maximum(scale, 2.0)
        u = (loc + self.below) / large
        slope = -sigmoid(u) * sigmoid(-u) / large
        bend = slope * (1 - 6 * sigmoid(u) * sigmoid(-u)) / (large * large)
        smooth = loc + large * softplus(-u) + slope / 24 - 7 * bend / 5760
        return (self.origin + self.step * jnp.where(scale < 2.0, first + near, smooth))[..., None]


_REACH = 40


def _pairs(categories: int, outputs: Array) -> Normal | Bernoulli:
    """Return numbers or bits: `[..., 2] -> one distribution of each, over an event of shape [..., 1]`."""
    return Bernoulli(outputs[..., :1]) if categories else Normal(outputs[..., :1], outputs[..., 1:])


def _whole(value: Array) -> Array:
    """Return values `[..., 1]` with the mark that they are there, `[..., 2]`."""
    return jnp.concatenate([value, jnp.ones_like(value)], axis=-1)
