"""Codes are to be uncorrelated and of variance 1 over the data. Kumar, Sattigeri & Balakrishnan 2018."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from aevae_jax.lazy import jnp, modules
from aevae_jax.objectives.losses import ELBO, Weight, check_weight, weight_at
from aevae_jax.types import Distribution, InputError, LatentModel, Metrics, Params, Scaled, Validation

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax.objectives import bounds
else:
    bounds = modules("aevae_jax.objectives", "bounds")


def covariance(z: Array) -> Array:
    """Return the covariance of codes `[B, ...]` over the batch, `[L, L]`: the mean of products, less that of means."""
    flat = z.reshape(z.shape[0], -1)
    centred = flat - flat.mean(axis=0, keepdims=True)
    return centred.T @ centred / z.shape[0]


def covariance_of_codes(q: Distribution) -> Array:
    """Return the covariance of z ~ q(z|x) over the batch, `[L, L]`: that of its means, and the mean of its variances.

    Raises:
      InputError: the variances of q are not known.
    """
    if not isinstance(q, Scaled):
        got, expected = f"a q(z|x) of type {type(q).__name__}", "one with a scale in each dimension, as of VAE()"
        raise InputError("DIPVAE of codes", got=got, expected=expected, hint='take DIPVAE("I"), of their means')
    mean = q.mean()
    variance = jnp.broadcast_to(q.scale**2, mean.shape).reshape(mean.shape[0], -1).mean(axis=0)
    return covariance(mean) + jnp.diag(variance)


@dataclass(frozen=True)
class DIPVAE:
    """The negative ELBO plus how far a covariance is from the identity: weighed squares on the diagonal and beside it.

    Kumar, Sattigeri & Balakrishnan 2018, equations 6 and 7. The covariance is that of a batch.

    Args:
      version: "I" for the covariance of the means of q(z|x), "II" for that of codes.
      off_diagonal: weight of the squares beside the diagonal, from 0 on, or a schedule of the step.
      diagonal: weight of the squared differences from 1 on it, likewise.
    """

    version: Literal["I", "II"] = "II"
    off_diagonal: Weight = 10.0
    diagonal: Weight = 10.0

    needs_rate: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_weight("DIPVAE off_diagonal", self.off_diagonal)
        check_weight("DIPVAE diagonal", self.diagonal)

    def __call__(self, model: LatentModel, params: Params, x: Array, key: Array, step: Array) -> tuple[Array, Metrics]:
        bound = bounds.elbo(model, params, x, key)
        if x.shape[0] < 2:
            raise InputError("batch size", got=x.shape[0], expected="at least 2: a covariance compares examples")
        q = bound.posterior
        found = covariance(q.mean()) if self.version == "I" else covariance_of_codes(q)
        own = jnp.diagonal(found)
        squares = {"off_diagonal": (found**2).sum() - (own**2).sum(), "diagonal": ((own - 1) ** 2).sum()}
        loss = (bound.distortion + bound.rate).mean()
        for name, square in squares.items():
            loss = loss + weight_at(getattr(self, name), step) * square
        named = {f"covariance_{name}": square for name, square in squares.items()}
        return loss, {"loss": loss, **{name: term.mean() for name, term in bound.terms.items()}, **named}

    def validation(self) -> Validation:
        """Return that parameters are selected by the ELBO, whatever the weights."""
        return ELBO().validation()
