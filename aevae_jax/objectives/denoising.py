"""Losses of models that see corrupted data and must explain the clean ones. Vincent et al. 2008."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from aevae_jax import limits
from aevae_jax.lazy import jax, jnp
from aevae_jax.objectives.losses import ReconstructionError
from aevae_jax.objectives.wrapping import Inner, Wrapping
from aevae_jax.types import Distribution, InputError, Latent, LatentModel, Metric, Metrics, Params, Validation

if TYPE_CHECKING:
    from jax import Array


@dataclass(frozen=True, eq=False)
class Seeing:
    """A model that encodes `corrupted` `[B, *event]`, whatever it is asked to encode; all else is that of `model`."""

    model: LatentModel
    corrupted: Any

    def init(self, key: Array) -> Params:
        """Return fresh parameters of the model."""
        return self.model.init(key)

    def encode(self, params: Params, x: Array) -> Distribution:
        """Return q(z|corrupted), of as many examples as `x` has."""
        del x
        return self.model.encode(params, self.corrupted)

    def decode(self, params: Params, z: Latent) -> Distribution:
        """Return p(x|z)."""
        return self.model.decode(params, z)

    def prior(self, params: Params, n: int) -> Distribution:
        """Return p(z)."""
        return self.model.prior(params, n)


def _check_rate(name: str, rate: float) -> None:
    limits.check(f"{name} rate", rate, 0.0, 1.0)


@dataclass(frozen=True)
class GaussianNoise:
    """Adds noise of standard deviation `scale` to each element, in the units that the model sees."""

    scale: float = 0.3

    def __post_init__(self) -> None:
        limits.check("GaussianNoise scale", self.scale, 0.0, limits.LARGEST)

    def __call__(self, x: Array, key: Array) -> Array:
        """Return x `[B, *event]` with noise."""
        return x + self.scale * jax.random.normal(key, x.shape, x.dtype)


@dataclass(frozen=True)
class Masking:
    """Sets each element to `value` with probability `rate`, independently. Vincent et al. 2008, section 2.3."""

    rate: float = 0.25
    value: float = 0.0

    def __post_init__(self) -> None:
        _check_rate("Masking", self.rate)
        limits.check("Masking value", self.value, -limits.LARGEST, limits.LARGEST)

    def __call__(self, x: Array, key: Array) -> Array:
        """Return x `[B, *event]` with some elements masked."""
        return jnp.where(jax.random.bernoulli(key, self.rate, x.shape), self.value, x)


@dataclass(frozen=True)
class SaltAndPepper:
    """Sets each element to `low` or to `high`, each with probability `rate` / 2. Vincent et al. 2010, section 4.2."""

    rate: float = 0.25
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        _check_rate("SaltAndPepper", self.rate)
        for name in ("low", "high"):
            limits.check(f"SaltAndPepper {name}", getattr(self, name), -limits.LARGEST, limits.LARGEST)
        if not self.low < self.high:
            raise InputError("SaltAndPepper", got=f"low={self.low:g}, high={self.high:g}", expected="low below high")

    def __call__(self, x: Array, key: Array) -> Array:
        """Return x `[B, *event]` with some elements at the ends of their range."""
        u = jax.random.uniform(key, x.shape)
        return jnp.where(u < self.rate / 2, self.low, jnp.where(u < self.rate, self.high, x))


Corruption = GaussianNoise | Masking | SaltAndPepper
"""The corruptions that a run may name; any function `(x, key) -> x` of your own will do in Python."""


@dataclass(frozen=True)
class Denoising(Wrapping):
    """A loss at corrupted inputs: q is that of what the corruption leaves, p(x|z) scores the clean example.

    With `ReconstructionError()` it is the denoising autoencoder; with `ELBO()` its bound is one of the clean data, as
    any q gives one (Im, Ahn, Memisevic & Bengio 2017).

    Args:
      corruption: of the inputs, drawn anew at every step.
      objective: the loss; `Denoising(objective=ELBO())` for a VAE.
    """

    corruption: Corruption | Callable[[Any, Any], Any] = GaussianNoise()
    objective: Inner = ReconstructionError()

    def __call__(self, model: LatentModel, params: Params, x: Array, key: Array, step: Array) -> tuple[Array, Metrics]:
        key_seen, key_loss = jax.random.split(key)
        return self.objective(Seeing(model, self.corruption(x, key_seen)), params, x, key_loss, step)

    def validation(self) -> Validation:
        """Return that parameters are selected by the loss inside at corrupted inputs, which go by `from_corrupted`.

        What the model makes of clean inputs is measured beside it, under the usual names.
        """
        metric, minimised = self.objective.validation()
        return Validation(denoising_terms(self.corruption, metric), tuple(map(from_corrupted, minimised)))


def from_corrupted(name: str) -> str:
    """Return what an entry of a metric is called where the inputs were corrupted."""
    return f"{name}_from_corrupted"


@lru_cache(maxsize=64)
def denoising_terms(corruption: Any, metric: Metric) -> Metric:
    """Return a metric's entries at clean inputs, and again, `from_corrupted`, at corrupted ones.

    One function for equal arguments: its identity decides what is compiled again.
    """

    def terms(model: LatentModel, params: Params, x: Array, key: Array) -> dict[str, Array]:
        key_clean, key_seen, key_noisy = jax.random.split(key, 3)
        seeing = Seeing(model, corruption(x, key_seen))
        noisy = metric(seeing, params, x, key_noisy)
        return {**metric(model, params, x, key_clean), **{from_corrupted(name): v for name, v in noisy.items()}}

    return terms
