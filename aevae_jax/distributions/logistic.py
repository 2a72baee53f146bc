"""Logistic distributions rounded to levels, and mixtures of these: frozen pytrees, as those of `elementary`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import log_sigmoid, sigmoid

from aevae_jax.distributions.elementary import sum_event
from aevae_jax.types import Distribution, Measure


def logistic_log_mass(value: Array, loc: Array, log_scale: Array, step: Any, *, lowest: Array, highest: Array) -> Array:
    """Log mass of a bin of width `step` around `value` under a logistic; the lowest and highest bins are open.

    sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - e^(b-a)): three factors whose logs are exact, and no difference of
    nearly equal numbers. At an open end the factors of that end are 1.
    """
    inverse = jnp.exp(-log_scale)
    log_below_top = log_sigmoid((value + step / 2 - loc) * inverse)
    log_above_bottom = log_sigmoid(-(value - step / 2 - loc) * inverse)
    log_width = jnp.log(-jnp.expm1(-step * inverse))
    return (
        jnp.where(highest, 0.0, log_below_top)
        + jnp.where(lowest, 0.0, log_above_bottom)
        + jnp.where(lowest | highest, 0.0, log_width)
    )


def _level_log_mass(value: Array, loc: Array, log_scale: Array, levels: int) -> Array:
    """Log mass of the grid point `value` under a logistic rounded to `levels` points of [0, 1]."""
    step = 1 / (levels - 1)
    return logistic_log_mass(value, loc, log_scale, step, lowest=value < step / 2, highest=value > 1 - step / 2)


def _mean(loc: Array, log_scale: Array, levels: int) -> Array:
    """Return the mean of the rounded logistic: the sum over thresholds t of P(value > t), times the step."""
    step = 1 / (levels - 1)
    thresholds = (jnp.arange(levels - 1) + 0.5) * step
    rate = jnp.exp(-log_scale)

    def add(total: Array, t: Array) -> tuple[Array, None]:
        return total + sigmoid((loc - t) * rate), None

    # one threshold after the other: all at once are an array that many times larger, and take 20 times as long
    nothing = jnp.zeros(loc.shape, jnp.result_type(loc, rate, thresholds))
    return jax.lax.scan(add, nothing, thresholds)[0] * step


def _sample(key: Array, loc: Array, log_scale: Array, levels: int) -> Array:
    draw = loc + jnp.exp(log_scale) * jax.random.logistic(key, loc.shape, loc.dtype)
    return jnp.round(jnp.clip(draw, 0.0, 1.0) * (levels - 1)) / (levels - 1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class DiscretizedLogistic:
    """A logistic with `loc`, `log_scale` `[B, *event]` in units of the data, rounded to `levels` points of [0, 1].

    Salimans, Karpathy, Chen & Kingma 2017 (PixelCNN++), section 2.1, without its small constants.
    """

    loc: Array
    log_scale: Array
    levels: int = field(default=256, metadata={"static": True})

    measure: ClassVar[Measure] = "mass"

    def logistics(self) -> tuple[Array, Array, Array]:
        """Return those of a mixture of one, `[B, *event, 1]`."""
        loc, log_scale = self.loc[..., None], self.log_scale[..., None]
        return jnp.zeros_like(loc), loc, log_scale

    def sample(self, key: Array) -> Array:
        return _sample(key, self.loc, self.log_scale, self.levels)

    def log_prob(self, value: Array) -> Array:
        return sum_event(_level_log_mass(value, self.loc, self.log_scale, self.levels))

    def mean(self) -> Array:
        return _mean(self.loc, self.log_scale, self.levels)

    def kl(self, other: Distribution) -> Any:
        return NotImplemented


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class DiscretizedLogisticMixture:
    """For every element a mixture of K rounded logistics; `logits`, `loc`, `log_scale` are `[B, *event, K]`."""

    logits: Array
    loc: Array
    log_scale: Array
    levels: int = field(default=256, metadata={"static": True})

    measure: ClassVar[Measure] = "mass"

    def logistics(self) -> tuple[Array, Array, Array]:
        """Return `logits`, `loc` and `log_scale`."""
        return self.logits, self.loc, self.log_scale

    def sample(self, key: Array) -> Array:
        key_component, key_value = jax.random.split(key)
        chosen = jax.random.categorical(key_component, self.logits)[..., None]
        loc, log_scale = (jnp.take_along_axis(a, chosen, axis=-1)[..., 0] for a in (self.loc, self.log_scale))
        return _sample(key_value, loc, log_scale, self.levels)

    def log_prob(self, value: Array) -> Array:
        value = jnp.broadcast_to(value[..., None], self.loc.shape)
        log_mass = _level_log_mass(value, self.loc, self.log_scale, self.levels)
        return sum_event(jax.nn.logsumexp(jax.nn.log_softmax(self.logits) + log_mass, axis=-1))

    def mean(self) -> Array:
        means = _mean(self.loc, self.log_scale, self.levels)
        return (jax.nn.softmax(self.logits) * means).sum(axis=-1)

    def kl(self, other: Distribution) -> Any:
        return NotImplemented
