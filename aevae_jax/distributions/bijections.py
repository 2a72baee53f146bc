"""Invertible maps of vectors whose Jacobian has a determinant that is cheap: what flows are made of. Frozen pytrees.

    forward(z) -> (y, log |det dy/dz|)        inverse(y) -> (z, log |det dy/dz| at that z)

Codes are `[B, D]`, determinants `[B]`. Leaves that belong to examples have the leading axis `B`; those of networks and
of priors, which all examples share, have not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from aevae_jax.distributions.elementary import sum_event


@runtime_checkable
class Bijection(Protocol):
    """An invertible map of vectors."""

    def forward(self, z: Array) -> tuple[Array, Array]:
        """Return y `[B, D]` of z `[B, D]`, and log |det dy/dz| `[B]`."""
        ...

    def inverse(self, y: Array) -> tuple[Array, Array]:
        """Return z `[B, D]` of y `[B, D]`, and log |det dy/dz| at that z, `[B]`."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Affine:
    """y = loc + exp(log_scale) z, element by element; both broadcast against `[B, D]`."""

    loc: Array
    log_scale: Array

    def forward(self, z: Array) -> tuple[Array, Array]:
        return self.loc + jnp.exp(self.log_scale) * z, self._log_det(z)

    def inverse(self, y: Array) -> tuple[Array, Array]:
        return (y - self.loc) * jnp.exp(-self.log_scale), self._log_det(y)

    def _log_det(self, like: Array) -> Array:
        return sum_event(jnp.broadcast_to(self.log_scale, like.shape))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Reverse:
    """The elements in reverse order, so that the next layer conditions the first ones on the last."""

    def forward(self, z: Array) -> tuple[Array, Array]:
        return z[:, ::-1], jnp.zeros(z.shape[0], z.dtype)

    def inverse(self, y: Array) -> tuple[Array, Array]:
        return self.forward(y)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Inverse:
    """Another bijection, the other way round."""

    of: Any

    def forward(self, z: Array) -> tuple[Array, Array]:
        y, log_det = self.of.inverse(z)
        return y, -log_det

    def inverse(self, y: Array) -> tuple[Array, Array]:
        z, log_det = self.of.forward(y)
        return z, -log_det


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Autoregressive:
    """y_d = shift_d + exp(log_scale_d) z_d, both functions of z_1, ..., z_(d-1). Kingma et al. 2016.

    Forward takes one pass of the network, inverse one for each dimension, as each needs those before it.

    Args:
      network: a pytree that is called with z `[B, D]` and gives (shift, log_scale), `[B, D]` each.
    """

    network: Any

    def forward(self, z: Array) -> tuple[Array, Array]:
        shift, log_scale = self.network(z)
        return shift + jnp.exp(log_scale) * z, sum_event(log_scale)

    def inverse(self, y: Array) -> tuple[Array, Array]:
        places = jnp.arange(y.shape[1])

        def solve(z: Array, place: Array) -> tuple[Array, None]:
            shift, log_scale = self.network(z)
            # one element at a time: those that are not known yet stay 0, so none can overflow
            return jnp.where(places[None] == place, (y - shift) * jnp.exp(-log_scale), z), None

        z, _ = jax.lax.scan(solve, jnp.zeros_like(y), places)
        return z, sum_event(self.network(z)[1])


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Coupling:
    """The first `kept` elements a stay, the others become shift(a) + exp(log_scale(a)) b. Dinh et al. 2017.

    Args:
      network: a pytree that is called with a `[B, kept]` and gives (shift, log_scale), `[B, D - kept]` each.
      kept: how many elements stay.
    """

    network: Any
    kept: int = field(metadata={"static": True})

    def forward(self, z: Array) -> tuple[Array, Array]:
        a, b = z[:, : self.kept], z[:, self.kept :]
        shift, log_scale = self.network(a)
        return jnp.concatenate([a, shift + jnp.exp(log_scale) * b], axis=1), sum_event(log_scale)

    def inverse(self, y: Array) -> tuple[Array, Array]:
        a, b = y[:, : self.kept], y[:, self.kept :]
        shift, log_scale = self.network(a)
        return jnp.concatenate([a, (b - shift) * jnp.exp(-log_scale)], axis=1), sum_event(log_scale)


LEAST_SLOPE = 0.01
"""The least that 1 + w . u of a planar map can be: its logarithm stays finite, and its inverse well conditioned."""

_BISECTIONS, _NEWTON = 32, 2


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class PlanarMap:
    """y = z + u tanh(w . z + b), all of each example: u, w `[B, D]`, b `[B]`. Rezende & Mohamed 2015, section 4.1.

    It is invertible where w . u > -1. Their appendix A.1 replaces w . u by m(w . u), and u along w accordingly; here
    m(x) = LEAST_SLOPE - 1 + softplus(x + c) with c such that m(0) = 0, without which u would grow beyond all bounds as
    w goes to 0. The inverse is found on a line: w . z is the root of an increasing function.
    """

    raw_u: Array
    w: Array
    b: Array

    def forward(self, z: Array) -> tuple[Array, Array]:
        u, slope = self._direction()
        inner = (self.w * z).sum(axis=1) + self.b
        return z + u * jnp.tanh(inner)[:, None], _log_slope(slope, inner)

    def inverse(self, y: Array) -> tuple[Array, Array]:
        u, slope = self._direction()
        inner = _root(slope, (self.w * y).sum(axis=1) + self.b)
        return y - u * jnp.tanh(inner)[:, None], _log_slope(slope, inner)

    def _direction(self) -> tuple[Array, Array]:
        """Return u `[B, D]`, and w . u `[B]`, at least `LEAST_SLOPE` - 1."""
        inner, square = (self.w * self.raw_u).sum(axis=1), (self.w**2).sum(axis=1) + 1e-12
        wanted = LEAST_SLOPE - 1 + jax.nn.softplus(inner + jnp.log(jnp.expm1(1 - LEAST_SLOPE)))
        u = self.raw_u + ((wanted - inner) / square)[:, None] * self.w
        return u, jnp.maximum((self.w * u).sum(axis=1), LEAST_SLOPE - 1)


def _log_slope(slope: Array, inner: Array) -> Array:
    """Return log (1 + slope tanh'(inner)), `[B]`."""
    return jnp.log1p(slope / jnp.cosh(jnp.clip(inner, -40.0, 40.0)) ** 2)


def _root(slope: Array, y: Array) -> Array:
    """Return a with a + slope tanh(a) = y, `[B]`; slope > -1, so the left side increases.

    Bisection finds it. Newton's steps from there polish it, and have its derivatives: those of the first one are exact
    to first order, each further one doubles the order.
    """
    s, target = jax.lax.stop_gradient((slope, y))

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        below = middle + s * jnp.tanh(middle) < target
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (target - jnp.abs(s), target + jnp.abs(s)))
    a = 0.5 * (low + high)
    for _ in range(_NEWTON):
        t = jnp.tanh(a)
        a = a - (a + slope * t - y) / (1 + slope * (1 - t**2))
    return a
