"""Codes that are rounded to integers when they are coded: what stands for rounding in training. Frozen pytrees.

`Uniform` is q(z|x), the code with noise as large as the error of rounding; `SmoothedLogisticMixture` is a p(z) whose
density at such codes is the mass of the integers near them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from aevae_jax.distributions.elementary import sum_event
from aevae_jax.distributions.logistic import logistic_log_mass
from aevae_jax.types import Distribution, Measure


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Uniform:
    """Independent uniforms on intervals of length 1 around `loc` `[B, *event]`: codes with the noise of rounding.

    Balle, Laparra & Simoncelli 2017, "End-to-end optimized image compression", section 2: log q(z|x) is 0 wherever z
    can be, so that the rate is -log p(z), the length of the rounded code where p is that of `SmoothedLogisticMixture`.
    """

    loc: Array

    measure: ClassVar[Measure] = "density"

    def sample(self, key: Array) -> Array:
        return self.loc + jax.random.uniform(key, self.loc.shape, self.loc.dtype, -0.5, 0.5)

    def log_prob(self, value: Array) -> Array:
        # the sum loc + noise is rounded, by more than the noise where loc is large
        allowed = 0.5 + 2 * jnp.finfo(self.loc.dtype).eps * (1 + jnp.abs(self.loc))
        inside = (jnp.abs(value - self.loc) <= allowed).reshape(value.shape[0], -1).all(axis=-1)
        return jnp.where(inside, 0.0, -jnp.inf)

    def mean(self) -> Array:
        return self.loc

    def kl(self, other: Distribution) -> Any:
        return NotImplemented


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class SmoothedLogisticMixture:
    """For every element a mixture of K logistics, plus uniform noise on [-1/2, 1/2]; each field is `[B, *event, K]`.

    The density at z is the mixture's mass between z - 1/2 and z + 1/2. So it is the density of codes with noise, and,
    at integers, the mass of codes that are rounded: Balle, Minnen, Singh, Hwang & Johnston 2018, appendix 6.2, with
    logistics in place of their monotone network.
    """

    logits: Array
    loc: Array
    log_scale: Array

    measure: ClassVar[Measure] = "density"

    def smooth(self) -> tuple[Array, Array, Array]:
        """Return log weights, places and log scales of the logistics, `[B, *event, K]`."""
        return jax.nn.log_softmax(self.logits), self.loc, self.log_scale

    def sample(self, key: Array) -> Array:
        key_component, key_value, key_noise = jax.random.split(key, 3)
        chosen = jax.random.categorical(key_component, self.logits)[..., None]
        loc, log_scale = (jnp.take_along_axis(a, chosen, axis=-1)[..., 0] for a in (self.loc, self.log_scale))
        smooth = loc + jnp.exp(log_scale) * jax.random.logistic(key_value, loc.shape, loc.dtype)
        return smooth + jax.random.uniform(key_noise, loc.shape, loc.dtype, -0.5, 0.5)

    def log_prob(self, value: Array) -> Array:
        never = jnp.zeros(self.loc.shape, bool)
        log_mass = logistic_log_mass(value[..., None], self.loc, self.log_scale, 1.0, lowest=never, highest=never)
        if self.loc.shape[-1] == 1:
            return sum_event(log_mass)
        return sum_event(jax.nn.logsumexp(jax.nn.log_softmax(self.logits) + log_mass, axis=-1))

    def mean(self) -> Array:
        return (jax.nn.softmax(self.logits) * self.loc).sum(axis=-1)

    def kl(self, other: Distribution) -> Any:
        return NotImplemented
