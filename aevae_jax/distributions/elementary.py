"""Distributions: frozen pytrees, `B` of them over one event each. Densities in nats, summed over event axes.

Every leaf has the leading axis `B`, so that a batch can be indexed, vmapped and concatenated like an array. Values of
image distributions lie in [0, 1]; those with `levels` live on the grid `k / (levels - 1)`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import sigmoid, softplus

from aevae_jax.types import Distribution, Measure

_LOG_2PI = 1.8378770664093453


def sum_event(x: Array) -> Array:
    """Sum over event axes: `[B, *event] -> [B]`."""
    return x.reshape(x.shape[0], -1).sum(axis=-1)


def bounded(raw: Array, low: float, high: float) -> Array:
    """Return a smooth, strictly increasing map of the real line into (low, high), with slope 1 in the middle.

    Unlike clipping it has a gradient everywhere, and unlike tanh one that does not underflow in float32: it falls like
    the cube of the distance, not exponentially.
    """
    middle, half = (low + high) / 2, (high - low) / 2
    u = (raw - middle) / half
    # dividing by the larger of the two keeps u * u from overflowing
    large = jnp.maximum(jnp.abs(u), 1.0)
    v = u / large
    return middle + half * v / jnp.sqrt(1 / (large * large) + v * v)


def unbounded(value: Array, low: float, high: float) -> Array:
    """Return the inverse of `bounded`: the raw number that it takes to `value`, strictly between `low` and `high`."""
    t = (2 * value - low - high) / (high - low)
    return (low + high) / 2 + (high - low) / 2 * t / jnp.sqrt(1 - t * t)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Delta:
    """All mass at `loc` `[B, *event]`: the posterior of an autoencoder. `log_prob` is 0 there and -inf elsewhere."""

    loc: Array

    measure: ClassVar[Measure] = "point"

    def sample(self, key: Array) -> Array:
        del key
        return self.loc

    def log_prob(self, value: Array) -> Array:
        return jnp.where((value == self.loc).reshape(value.shape[0], -1).all(axis=-1), 0.0, -jnp.inf)

    def mean(self) -> Array:
        return self.loc

    def kl(self, other: Distribution) -> Any:
        return NotImplemented


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Normal:
    """Independent normals with mean `loc` and standard deviation `exp(log_scale)`, both `[B, *event]`."""

    loc: Array
    log_scale: Array

    measure: ClassVar[Measure] = "density"

    @property
    def scale(self) -> Array:
        """Standard deviation, `[B, *event]`."""
        return jnp.exp(self.log_scale)

    def gaussian(self) -> tuple[Array, Array]:
        """Return means and log standard deviations, `[B, *event]`."""
        return self.loc, self.log_scale

    def sample(self, key: Array) -> Array:
        return self.loc + self.scale * jax.random.normal(key, self.loc.shape, self.loc.dtype)

    def log_prob_terms(self, value: Array) -> Array:
        """Log density per element, `[B, *event]`."""
        residual = (value - self.loc) * jnp.exp(-self.log_scale)
        return -0.5 * (residual**2 + _LOG_2PI) - self.log_scale

    def log_prob(self, value: Array) -> Array:
        return sum_event(self.log_prob_terms(value))

    def mean(self) -> Array:
        return self.loc

    def kl_terms(self, other: Distribution) -> Any:
        """Return KL(self || other) per element, `[B, *event]`; `NotImplemented` unless `other` is a `Normal`.

        `expm1` keeps the digits that `exp(v) - v - 1` would lose near zero. Kingma & Welling 2013, appendix B.
        """
        if not isinstance(other, Normal):
            return NotImplemented
        log_ratio = 2 * (self.log_scale - other.log_scale)
        shift = (self.loc - other.loc) * jnp.exp(-other.log_scale)
        return 0.5 * (shift**2 + jnp.expm1(log_ratio) - log_ratio)

    def kl(self, other: Distribution) -> Any:
        terms = self.kl_terms(other)
        return terms if terms is NotImplemented else sum_event(terms)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class MultivariateNormal:
    """Normals over vectors, mean `loc` `[B, D]`, covariance L L^T, L the lower triangle of `scale_tril` `[B, D, D]`."""

    loc: Array
    scale_tril: Array

    measure: ClassVar[Measure] = "density"

    @property
    def scale(self) -> Array:
        """Standard deviation of each element, `[B, D]`."""
        return jnp.sqrt((jnp.tril(self.scale_tril) ** 2).sum(axis=2))

    def sample(self, key: Array) -> Array:
        noise = jax.random.normal(key, self.loc.shape, self.loc.dtype)
        return self.loc + jnp.einsum("bij,bj->bi", jnp.tril(self.scale_tril), noise)

    def log_prob(self, value: Array) -> Array:
        white = jax.lax.linalg.triangular_solve(
            self.scale_tril, (value - self.loc)[..., None], left_side=True, lower=True
        )[..., 0]
        return sum_event(-0.5 * (white**2 + _LOG_2PI) - self._log_diagonal())

    def mean(self) -> Array:
        return self.loc

    def kl(self, other: Distribution) -> Any:
        """Return KL(self || other), `[B]`; `NotImplemented` unless `other` is a `Normal`.

        It is that of the diagonal of L, and half the squares of what stands below it, in units of `other.scale`.
        """
        if not isinstance(other, Normal):
            return NotImplemented
        below = jnp.tril(self.scale_tril, -1) * jnp.exp(-other.log_scale)[:, :, None]
        return sum_event(Normal(self.loc, self._log_diagonal()).kl_terms(other)) + 0.5 * sum_event(below**2)

    def _log_diagonal(self) -> Array:
        return jnp.log(jnp.abs(jnp.diagonal(self.scale_tril, axis1=1, axis2=2)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class NormalOptimalScale:
    """A normal around `loc` `[B, *event]` whose one scale per example is the best for the value that is scored.

    With s*^2 = mean((value - loc)^2) the log likelihood is -D/2 (ln 2 pi s*^2 + 1): Rybkin, Daniilidis & Levine 2021,
    "Simple and effective VAE training with calibrated decoders". The scale sees the value, so this is a *profile*
    likelihood: good for training, for errors well above `min_scale` the largest density of any fixed scale, and no
    density of its own.
    `min_scale` keeps it finite for a perfect reconstruction. `sample` has no value to fit and uses `min_scale`.
    """

    loc: Array
    min_scale: float = field(default=1e-3, metadata={"static": True})

    measure: ClassVar[Measure] = "profile"

    def log_prob(self, value: Array) -> Array:
        size = value[0].size
        squares = sum_event((value - self.loc) ** 2)
        variance = squares / size + self.min_scale**2
        return -0.5 * (size * (jnp.log(variance) + _LOG_2PI) + squares / variance)

    def sample(self, key: Array) -> Array:
        return self.loc + self.min_scale * jax.random.normal(key, self.loc.shape, self.loc.dtype)

    def mean(self) -> Array:
        return self.loc

    def kl(self, other: Distribution) -> Any:
        return NotImplemented


@jax.custom_jvp
def _softplus(x: Array) -> Array:
    """Return log(1 + e^x) without the care for NaN of `jax.nn.softplus`, which makes likelihoods slower on CPUs."""
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


_softplus.defjvps(lambda tangent, out, x: tangent * sigmoid(x))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Bernoulli:
    """Independent bits with log-odds `logits` `[B, *event]`. Values are 0 or 1, as floats."""

    logits: Array

    measure: ClassVar[Measure] = "mass"

    def log_masses(self) -> Array:
        """Return log probabilities of 0 and 1, up to a constant, `[B, *event, 2]`."""
        return jnp.stack([jnp.zeros_like(self.logits), self.logits], axis=-1)

    def sample(self, key: Array) -> Array:
        return jax.random.bernoulli(key, sigmoid(self.logits)).astype(self.logits.dtype)

    def log_prob(self, value: Array) -> Array:
        # log sigma(l) = -softplus(-l): no probability is ever formed, so no logit can make it infinite. One row per
        # example before anything else: XLA vectorises a sum over one axis on CPUs, and over several at half the speed.
        logits, value = (a.reshape(a.shape[0], -1) for a in (self.logits, value))
        return (value * logits - _softplus(logits)).sum(axis=-1)

    def mean(self) -> Array:
        return sigmoid(self.logits)

    def kl(self, other: Distribution) -> Any:
        if not isinstance(other, Bernoulli):
            return NotImplemented
        p = sigmoid(self.logits)
        return sum_event(p * (self.logits - other.logits) - softplus(self.logits) + softplus(other.logits))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class ContinuousBernoulli:
    """Density exp(l x) l / (e^l - 1) on [0, 1], with `logits` l `[B, *event]`. Loaiza-Ganem & Cunningham 2019.

    Everything is written in h = l/2, around which the density is symmetric: log p = (2x - 1) h - log(sinh(h)/h).
    """

    logits: Array

    measure: ClassVar[Measure] = "density"

    def sample(self, key: Array) -> Array:
        # the inverse of the distribution function; u > 0 keeps the logarithm and its gradient finite
        u = jax.random.uniform(key, self.logits.shape, self.logits.dtype, jnp.finfo(self.logits.dtype).tiny)
        size = jnp.abs(self.logits)
        safe = jnp.maximum(size, 0.03)
        v = jnp.where(self.logits < 0, 1 - u, u)  # a negative logit is the mirror image of a positive one
        x = 1 + jnp.log(v + (1 - v) * jnp.exp(-safe)) / safe
        series = u + u * (1 - u) * (self.logits / 2 + (1 - 2 * u) * self.logits**2 / 6)
        return jnp.clip(jnp.where(size < 0.03, series, jnp.where(self.logits < 0, 1 - x, x)), 0.0, 1.0)

    def log_prob(self, value: Array) -> Array:
        h = self.logits / 2
        size = jnp.abs(h)
        safe = jnp.maximum(size, 0.1)
        series = h**2 / 6 - h**4 / 180
        log_sinhc = jnp.where(size < 0.1, series, safe + jnp.log1p(-jnp.exp(-2 * safe)) - jnp.log(2 * safe))
        return sum_event((2 * value - 1) * h - log_sinhc)

    def mean(self) -> Array:
        h = self.logits / 2
        size = jnp.abs(h)
        safe = jnp.maximum(size, 0.1)
        series = h / 3 - h**3 / 45
        return 0.5 + 0.5 * jnp.where(size < 0.1, series, jnp.sign(h) * (1 / jnp.tanh(safe) - 1 / safe))

    def kl(self, other: Distribution) -> Any:
        return NotImplemented


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Categorical:
    """One of L levels per element, `logits` `[B, *event, L]`. Values are `k / (L - 1)`, k = 0 .. L-1."""

    logits: Array

    measure: ClassVar[Measure] = "mass"

    @property
    def levels(self) -> int:
        """L, the number of values an element can take."""
        return self.logits.shape[-1]

    def log_masses(self) -> Array:
        """Return `logits`."""
        return self.logits

    def sample(self, key: Array) -> Array:
        return jax.random.categorical(key, self.logits) / (self.levels - 1)

    def log_prob(self, value: Array) -> Array:
        index = jnp.round(value * (self.levels - 1)).astype(jnp.int32)
        log_p = jax.nn.log_softmax(self.logits)
        return sum_event(jnp.take_along_axis(log_p, index[..., None], axis=-1))

    def mean(self) -> Array:
        return jax.nn.softmax(self.logits) @ jnp.linspace(0.0, 1.0, self.levels)

    def kl(self, other: Distribution) -> Any:
        if not isinstance(other, Categorical):
            return NotImplemented
        log_p, log_q = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(other.logits)
        return sum_event(jnp.exp(log_p) * (log_p - log_q))
