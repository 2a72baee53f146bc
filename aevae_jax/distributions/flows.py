"""Distributions of which a draw is that of a normal, moved by invertible maps: normalising flows, and reflections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from aevae_jax.distributions.elementary import Normal, sum_event
from aevae_jax.types import Distribution, Measure


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Flow:
    """y = f_K(... f_1(z)), z ~ base: log p(y) = log base(z) - sum_k log |det f_k'|. Rezende & Mohamed 2015.

    `sample_and_log_prob` goes through the maps once. `log_prob` of a given y goes back through their inverses, which is
    one pass of the network for couplings, and one per dimension for autoregressive maps.

    Args:
      base: over vectors, `[B, D]`.
      maps: see `bijections`; the first one acts on the draw of the base.
    """

    base: Any
    maps: tuple[Any, ...]

    measure: ClassVar[Measure] = "density"

    def sample(self, key: Array) -> Array:
        return self._moved(self.base.sample(key))[0]

    def sample_and_log_prob(self, key: Array) -> tuple[Array, Array]:
        """Return a draw `[B, D]` and its log density `[B]`."""
        z = self.base.sample(key)
        y, log_det = self._moved(z)
        return y, self.base.log_prob(z) - log_det

    def log_prob(self, value: Array) -> Array:
        total: Any = 0.0
        for each in reversed(self.maps):
            value, log_det = each.inverse(value)
            total = total + log_det
        log_p: Array = self.base.log_prob(value) - total
        return log_p

    def mean(self) -> Array:
        """Return where the mean of the base goes: the mean itself has no closed form."""
        return self._moved(self.base.mean())[0]

    def kl(self, other: Distribution) -> Any:
        return NotImplemented

    def _moved(self, z: Array) -> tuple[Array, Array]:
        """Return z through all maps, and log |det| of them together."""
        total: Any = jnp.zeros(z.shape[0], z.dtype)
        for each in self.maps:
            z, log_det = each.forward(z)
            total = total + log_det
        return z, total


_SHORTEST = 1e-20
"""Squared length of a vector below which no reflection is made of it; its power of -3/2 is a number in float32."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Householder:
    """loc + H (exp(log_scale) eps), H a product of reflections: a normal whose axes are rotated.

    Tomczak & Welling 2016, "Improving variational auto-encoders using Householder flow". Its covariance is full, its
    determinant that of the diagonal one, and D reflections can make any rotation up to a reflection. There they move
    the mean, too, which is the same family.

    Args:
      loc: means, `[B, D]`.
      log_scale: log standard deviations along the axes, `[B, D]`.
      vectors: normals of the planes of reflection, `[B, K, D]`, of any length; the first one acts first.
    """

    loc: Array
    log_scale: Array
    vectors: Array

    measure: ClassVar[Measure] = "density"

    @property
    def scale(self) -> Array:
        """Standard deviation of each element, `[B, D]`."""
        return jnp.sqrt((self._factor() ** 2).sum(axis=2))

    def sample(self, key: Array) -> Array:
        noise = jax.random.normal(key, self.loc.shape, self.loc.dtype)
        return self.loc + self._reflected((jnp.exp(self.log_scale) * noise)[:, None], self._units())[:, 0]

    def log_prob(self, value: Array) -> Array:
        back = self._reflected((value - self.loc)[:, None], self._units()[:, ::-1])[:, 0]  # each is its own inverse
        return Normal(jnp.zeros_like(self.loc), self.log_scale).log_prob(back)

    def mean(self) -> Array:
        return self.loc

    def kl(self, other: Distribution) -> Any:
        """Return KL(self || other), `[B]`; `NotImplemented` unless `other` is a `Normal`.

        With H of orthonormal columns h_j it is sum_j of the trace terms s_j^2 |h_j / other.scale|^2 and the rest of a
        normal's.
        """
        if not isinstance(other, Normal):
            return NotImplemented
        trace = sum_event((self._factor() * jnp.exp(-other.log_scale)[:, :, None]) ** 2)
        shift = sum_event(((self.loc - other.loc) * jnp.exp(-other.log_scale)) ** 2)
        return 0.5 * (trace + shift - self.loc.shape[1]) - sum_event(self.log_scale - other.log_scale)

    def _units(self) -> Array:
        """Return the vectors at length 1."""
        square = jnp.maximum((self.vectors**2).sum(axis=2, keepdims=True), _SHORTEST)
        return self.vectors * jax.lax.rsqrt(square)

    def _factor(self) -> Array:
        """Return H diag(exp(log_scale)), `[B, D, D]`: row d is what element d is made of."""
        axes = jnp.exp(self.log_scale)[:, :, None] * jnp.eye(self.loc.shape[1], dtype=self.loc.dtype)[None]
        return jnp.swapaxes(self._reflected(axes, self._units()), 1, 2)

    @staticmethod
    def _reflected(rows: Array, units: Array) -> Array:
        """Return each row of `[B, N, D]` after all reflections: x - 2 v (v . x)."""
        for k in range(units.shape[1]):
            v = units[:, None, k]
            rows = rows - 2 * v * (rows * v).sum(axis=2, keepdims=True)
        return rows
