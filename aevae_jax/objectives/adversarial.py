"""Losses with a discriminator, which tells two kinds of codes apart, and whose logit is then their log density ratio.

The discriminator lives in `params["objective"]`, with an optimizer of its own. One scalar trains both: in the term that
the model follows the discriminator is fixed, and in the discriminator's own term the codes are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from aevae_jax import limits
from aevae_jax.lazy import jax, jnp, modules, optax
from aevae_jax.objectives.losses import ELBO, ReconstructionError, Weight, check_weight, weight_at
from aevae_jax.types import InputError, LatentModel, Metrics, Params, Validation

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax import conditions
    from aevae_jax.objectives import bounds
else:
    conditions = modules("aevae_jax", "conditions")
    bounds = modules("aevae_jax.objectives", "bounds")


@dataclass(frozen=True)
class Discriminator:
    """A multilayer perceptron from a code to one logit, and the Adam that trains it (Kim & Mnih 2018, appendix A).

    Args:
      hidden: widths of its layers, each followed by a leaky ReLU of slope 0.2.
      learning_rate: of its optimizer, whose decay rates are 0.5 and 0.9.
    """

    hidden: tuple[int, ...] = (256, 256, 256)
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        limits.check_sizes("Discriminator hidden", self.hidden)
        limits.check("Discriminator learning_rate", self.learning_rate, limits.SMALLEST, limits.LARGEST)

    def init(self, key: Array, inputs: int) -> Params:
        """Return fresh parameters for codes of so many numbers. He et al. 2015."""
        sizes = (inputs, *self.hidden, 1)
        keys = jax.random.split(key, len(sizes) - 1)
        return {
            f"layer_{number}": {
                "kernel": jax.random.normal(k, (before, after)) * math.sqrt(2 / before),
                "bias": jnp.zeros(after),
            }
            for number, (k, before, after) in enumerate(zip(keys, sizes[:-1], sizes[1:], strict=True))
        }

    def __call__(self, params: Params, z: Array) -> Array:
        """Return the logit of each code of `[B, ...]`, `[B]`."""
        found = z.reshape(z.shape[0], -1)
        for number in range(len(self.hidden) + 1):
            layer = params[f"layer_{number}"]
            found = found @ layer["kernel"] + layer["bias"][None]
            found = found if number == len(self.hidden) else jax.nn.leaky_relu(found, 0.2)
        return found[:, 0]

    def optimizer(self) -> Any:
        """Return its optax transformation."""
        return optax.adam(self.learning_rate, b1=0.5, b2=0.9)


def told_apart(discriminator: Discriminator, params: Params, ones: Array, zeros: Array) -> Array:
    """Return the cross-entropy of a discriminator that is to say 1 of the one codes and 0 of the others, in nats.

    It is log 2 where nothing tells them apart. The codes are fixed: what made them gets no gradient.
    """
    fixed_ones, fixed_zeros = jax.lax.stop_gradient((ones, zeros))
    of_ones, of_zeros = discriminator(params, fixed_ones), discriminator(params, fixed_zeros)
    found: Array = (jax.nn.softplus(-of_ones).mean() + jax.nn.softplus(of_zeros).mean()) / 2
    return found


def permuted(key: Array, z: Array) -> Array:
    """Return codes `[B, ...]` whose dimensions are each permuted over the batch by themselves: about draws of the
    product of their marginals. Kim & Mnih 2018, algorithm 1.
    """
    flat = z.reshape(z.shape[0], -1)
    mixed: Array = jax.random.permutation(key, flat, axis=0, independent=True)
    return mixed.reshape(z.shape)


def _init(discriminator: Discriminator, key: Array, model: LatentModel) -> Params:
    """Return a discriminator of the codes of a model, of which nothing is computed."""

    def code(key: Array) -> Any:
        key_init, key_draw = jax.random.split(key)
        own = conditions.at_any(model, 1)
        return own.prior(own.init(key_init), 1).sample(key_draw)

    return discriminator.init(key, math.prod(jax.eval_shape(code, key).shape))


def _check(size: int) -> None:
    if size < 2:
        raise InputError("batch size", got=size, expected="at least 2: a discriminator compares codes of examples")


class _Adversarial:
    """A loss with a discriminator, whose parameters are its own."""

    discriminator: Discriminator

    def init(self, key: Array, model: LatentModel) -> Params:
        """Return fresh parameters of the discriminator."""
        return _init(self.discriminator, key, model)

    def optimizer(self) -> Any:
        """Return the optax transformation of the discriminator."""
        return self.discriminator.optimizer()


@dataclass(frozen=True)
class FactorVAE(_Adversarial):
    """The negative ELBO plus `total_correlation` times an estimate of TC(z). Kim & Mnih 2018, equation 2.

    The discriminator tells codes from codes whose dimensions were permuted, and the mean of its logit is the estimate.

    Args:
      total_correlation: weight of the estimate, a number from 0 on, or a schedule of the step.
      discriminator: its size and learning rate.
    """

    total_correlation: Weight = 10.0
    discriminator: Discriminator = Discriminator()

    needs_rate: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_weight("FactorVAE total_correlation", self.total_correlation)

    def __call__(self, model: LatentModel, params: Params, x: Array, key: Array, step: Array) -> tuple[Array, Metrics]:
        _check(x.shape[0])
        key_bound, key_other, key_order = jax.random.split(key, 3)
        bound = bounds.elbo(model, params, x, key_bound)
        own = params["objective"]
        correlated = self.discriminator(jax.lax.stop_gradient(own), bound.z).mean()
        mixed = permuted(key_order, bound.posterior.sample(key_other))
        cross_entropy = told_apart(self.discriminator, own, bound.z, mixed)
        trained = (bound.distortion + bound.rate).mean() + weight_at(self.total_correlation, step) * correlated
        metrics = {name: term.mean() for name, term in bound.terms.items()}
        told = {"total_correlation": correlated, "discriminator_loss": cross_entropy}
        return trained + cross_entropy, {"loss": trained + cross_entropy, **metrics, **told}

    def validation(self) -> Validation:
        """Return that parameters are selected by the ELBO, whatever the weight."""
        return ELBO().validation()


@dataclass(frozen=True)
class AAE(_Adversarial):
    """The distortion plus `weight` times how well codes pass for draws of the prior. Makhzani et al. 2016.

    The discriminator tells draws of p(z) from codes. What the encoder makes small is minus the log of the probability
    that it gives to codes of being draws of p(z). It serves an `Autoencoder`, and a VAE without its rate.

    Args:
      weight: a number from 0 on, or a schedule of the step.
      discriminator: its size and learning rate.
    """

    weight: Weight = 1.0
    discriminator: Discriminator = Discriminator()

    def __post_init__(self) -> None:
        check_weight("AAE weight", self.weight)

    @property
    def matches_prior(self) -> bool:
        """Whether the discriminator has a weight."""
        return not limits.is_zero(self.weight)

    def __call__(self, model: LatentModel, params: Params, x: Array, key: Array, step: Array) -> tuple[Array, Metrics]:
        _check(x.shape[0])
        key_bound, key_prior = jax.random.split(key)
        bound = bounds.elbo(model, params, x, key_bound)
        own = params["objective"]
        passing = jax.nn.softplus(-self.discriminator(jax.lax.stop_gradient(own), bound.z)).mean()
        cross_entropy = told_apart(self.discriminator, own, bound.prior.sample(key_prior), bound.z)
        trained = bound.distortion.mean() + weight_at(self.weight, step) * passing
        metrics = {name: term.mean() for name, term in bound.terms.items()}
        told = {"matching_loss": passing, "discriminator_loss": cross_entropy}
        return trained + cross_entropy, {"loss": trained + cross_entropy, **metrics, **told}

    def validation(self) -> Validation:
        """Return that parameters are selected by the distortion: the rate has no weight."""
        return ReconstructionError().validation()
