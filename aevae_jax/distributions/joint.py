"""Distributions made of distributions: mixtures, and one after another. Frozen pytrees like those they are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from aevae_jax.distributions.elementary import Normal
from aevae_jax.types import ByLevel, Distribution, measure_of

_LOG_2PI = 1.8378770664093453


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Chained:
    """p(z1, z2) = p(z2) p(z1|z2) over vectors `[B, L1 + L2]`, z1 first: the chain rule.

    Args:
      above: p(z2), over `[B, L2]`.
      below: a pytree that is called with z2 `[B, L2]` and gives p(z1|z2); `jax.tree_util.Partial` makes one.
      size: L1.
    """

    above: Any
    below: Any
    size: int = field(metadata={"static": True})

    @property
    def measure(self) -> Any:
        """That of p(z2), which p(z1|z2) is taken to share."""
        return measure_of(self.above)

    def sample(self, key: Array) -> Array:
        key_above, key_below = jax.random.split(key)
        z2 = self.above.sample(key_above)
        return jnp.concatenate([self.below(z2).sample(key_below), z2], axis=-1)

    def log_prob(self, value: Array) -> Array:
        z1, z2 = value[:, : self.size], value[:, self.size :]
        above = self.above.log_prob(z2)
        log_p: Array = above if above is NotImplemented else above + self.below(z2).log_prob(z1)
        return log_p

    def levels(self, value: Array) -> tuple[tuple[Distribution, Array], ...]:
        """Return p(z2), itself by level where it has some, and p(z1|z2) at the z2 of `value`, each with its part."""
        z1, z2 = value[:, : self.size], value[:, self.size :]
        above = self.above.levels(z2) if isinstance(self.above, ByLevel) else ((self.above, z2),)
        return (*above, (self.below(z2), z1))

    def mean(self) -> Array:
        """Return the mean of z2, and that of z1 given it. The mean of z1 itself has no closed form."""
        z2 = self.above.mean()
        return jnp.concatenate([self.below(z2).mean(), z2], axis=-1)

    def kl(self, other: Distribution) -> Any:
        return NotImplemented


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Marginal:
    """p(z), the integral of p(u) p(z|u) over u: it has draws, and no density in closed form but an estimate of it.

    Args:
      hidden: p(u), over `[B, U]`.
      visible: a pytree that is called with u and gives p(z|u); `jax.tree_util.Partial` makes one.
      recognition: one that is called with z and gives q(u|z), of which draws have a density.
    """

    hidden: Any
    visible: Any
    recognition: Any

    @property
    def measure(self) -> Any:
        """That of p(u), which p(z|u) is taken to share."""
        return measure_of(self.hidden)

    def sample(self, key: Array) -> Array:
        key_hidden, key_visible = jax.random.split(key)
        z: Array = self.visible(self.hidden.sample(key_hidden)).sample(key_visible)
        return z

    def log_prob(self, value: Array) -> Any:
        return NotImplemented

    def log_prob_estimate(self, value: Array, key: Array) -> Array:
        """Return log p(u) p(z|u) / q(u|z) at a draw u ~ q(u|z), `[B]`: the mean of its exponential is p(z)."""
        q = self.recognition(value)
        u = q.sample(key)
        log_p: Array = self.hidden.log_prob(u) + self.visible(u).log_prob(value) - q.log_prob(u)
        return log_p

    def mean(self) -> Array:
        """Return the mean of p(z|u) at the mean of p(u). That of z has no closed form."""
        mean: Array = self.visible(self.hidden.mean()).mean()
        return mean

    def kl(self, other: Distribution) -> Any:
        return NotImplemented


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Reshaped:
    """Distributions over vectors, whose values have another shape: `[B, *shape]`.

    Args:
      base: over `[B, D]`, D the product of `shape`.
      shape: of one event.
    """

    base: Any
    shape: tuple[int, ...] = field(metadata={"static": True})

    @property
    def measure(self) -> Any:
        """That of the vectors."""
        return measure_of(self.base)

    def sample(self, key: Array) -> Array:
        return self._folded(self.base.sample(key))

    def log_prob(self, value: Array) -> Array:
        log_p: Array = self.base.log_prob(value.reshape(value.shape[0], -1))
        return log_p

    def mean(self) -> Array:
        return self._folded(self.base.mean())

    def kl(self, other: Distribution) -> Any:
        return NotImplemented

    def _folded(self, vectors: Array) -> Array:
        return vectors.reshape(vectors.shape[0], *self.shape)


@jax.custom_jvp
def pairwise_normal_log_prob(value: Array, loc: Array, log_scale: Array) -> Array:
    """Log density of each of B values `[B, D]` under each of C diagonal normals `[C, D]`: `[B, C]`.

    Residuals are squared before they are summed, so no digits cancel. Derivatives are matrix products, which CPUs do
    four times as fast as sums over residuals, unless scales are so small that products would cancel.
    """
    inverse = jnp.exp(-log_scale).T
    residual = (value[:, :, None] - loc.T[None]) * inverse[None]  # [B, D, C]: the last axis is the one to vectorise
    constant = log_scale.sum(axis=1) + loc.shape[1] / 2 * _LOG_2PI
    log_p: Array = -0.5 * (residual**2).sum(axis=1) - constant[None]
    return log_p


@pairwise_normal_log_prob.defjvp
def _pairwise_normal_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    """Return d = sum_d v (x - m) (dm - dx) + (v (x - m)^2 - 1) ds, v = exp(-2 s): multiplied out, or as it stands."""
    x, m, s = primals
    largest = jnp.maximum(jnp.square(m), jnp.square(x).max(axis=0)[None])
    safe = (largest * _precision(s)).max() < _CANCELLING
    # one of the two is 0. The products are in no branch, where XLA would order their sums otherwise: bits would change
    by_products = _by_products(primals, tuple(jnp.where(safe, t, 0.0) for t in tangents))
    by_residuals = jax.lax.cond(safe, _nothing, _by_residuals, primals, tangents)
    return pairwise_normal_log_prob(x, m, s), by_products + by_residuals


_CANCELLING = 2.0**14
"""Terms larger than this leave errors above a thousandth in float32, where their sums are of order 1."""


def _precision(log_scale: Array) -> Array:
    """Return exp(-2 s), kept finite: the branch that is not taken must not be, either."""
    return jnp.exp(jnp.minimum(-2 * log_scale, 40.0))


def _nothing(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> Array:
    return jnp.zeros((primals[0].shape[0], primals[1].shape[0]), primals[0].dtype)


def _by_products(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> Array:
    (x, m, s), (dx, dm, ds) = primals, tangents
    v = _precision(s)

    def product(a: Array, b: Array) -> Array:
        return jnp.matmul(a, b.T, precision="highest")

    return (
        product(x, v * dm - 2 * v * m * ds)
        + product(x**2, v * ds)
        - product(x * dx, v)
        + product(dx, v * m)
        + (v * m * (m * ds - dm) - ds).sum(axis=1)[None]
    )


def _by_residuals(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> Array:
    """Return one dimension after the other: `[B, C]` at a time stays in the cache of a CPU."""

    def add(total: Array, column: tuple[Array, ...]) -> tuple[Array, None]:
        x, m, s, dx, dm, ds = column
        inverse = jnp.exp(-s)[None]
        residual = (x[:, None] - m[None]) * inverse
        return total + residual * ((dm[None] - dx[:, None]) * inverse) + (residual**2 - 1) * ds[None], None

    start = jnp.zeros((primals[0].shape[0], primals[1].shape[0]), primals[0].dtype)
    change: Array = jax.lax.scan(add, start, tuple(a.T for a in (*primals, *tangents)))[0]
    return change


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Mixture:
    """`size` copies of one mixture of C distributions, for a batch of `size`.

    Args:
      logits: unnormalised log weights, `[C]`.
      components: a batch of C distributions over one event.
      size: the batch size B; the mixture itself does not depend on it.
    """

    logits: Array
    components: Any
    size: int = field(metadata={"static": True})

    @property
    def measure(self) -> Any:
        """That of the components."""
        return measure_of(self.components)

    def sample(self, key: Array) -> Array:
        key_component, key_value = jax.random.split(key)
        chosen = jax.random.categorical(key_component, self.logits, shape=(self.size,))
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[chosen], self.components).sample(key_value)

    def log_prob(self, value: Array) -> Array:
        count = self.logits.shape[0]
        log_weight = jax.nn.log_softmax(self.logits)
        if isinstance(self.components, Normal):
            flat = (a.reshape(a.shape[0], -1) for a in (value, self.components.loc, self.components.log_scale))
            return jax.nn.logsumexp(log_weight[None] + pairwise_normal_log_prob(*flat), axis=-1)

        def one(event: Array) -> Array:  # [*event] -> []
            repeated = jnp.broadcast_to(event, (count, *event.shape))
            return jax.nn.logsumexp(log_weight + self.components.log_prob(repeated))

        return jax.vmap(one)(value)

    def mean(self) -> Array:
        mean = jnp.tensordot(jax.nn.softmax(self.logits), self.components.mean(), axes=1)
        return jnp.broadcast_to(mean, (self.size, *mean.shape))

    def kl(self, other: Distribution) -> Any:
        return NotImplemented
