"""A loss that keeps codes from changing with the data: the contractive autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aevae_jax import limits
from aevae_jax.lazy import jax, jnp
from aevae_jax.objectives.losses import ReconstructionError, Weight, check_weight, weight_at
from aevae_jax.objectives.wrapping import Inner, Wrapping
from aevae_jax.types import LatentModel, Metrics, Params

if TYPE_CHECKING:
    from jax import Array


@dataclass(frozen=True)
class Contractive(Wrapping):
    """A loss plus `weight` times the squared norm of how the mean of q(z|x) changes with x.

    Rifai, Vincent, Muller, Glorot & Bengio 2011, equation 3.

    Args:
      weight: of the penalty, a number from 0 on or a schedule of the step.
      objective: the loss; `Contractive(objective=ELBO())` for a VAE.
      samples: random directions of Hutchinson's estimate, each at the cost of one gradient; 0 for the norm itself, at
        that of one for each latent dimension.
    """

    weight: Weight = 0.1
    objective: Inner = ReconstructionError()
    samples: int = 0

    def __post_init__(self) -> None:
        check_weight("Contractive weight", self.weight)
        limits.check("Contractive samples", self.samples, 0)

    def __call__(self, model: LatentModel, params: Params, x: Array, key: Array, step: Array) -> tuple[Array, Metrics]:
        key_loss, key_penalty = jax.random.split(key)
        loss, metrics = self.objective(model, params, x, key_loss, step)
        if self.samples:
            norms = estimated_norm(model, params, x, key_penalty, self.samples)
        else:
            norms = jacobian_norm(model, params, x)
        total = loss + weight_at(self.weight, step) * norms.mean()
        return total, {**metrics, "loss": total, "squared_jacobian_norm": norms.mean()}


def jacobian_norm(model: LatentModel, params: Params, x: Array) -> Array:
    """Return the squared Frobenius norm of d E[z|x] / dx of each example of x `[B, *event]`: `[B]`."""
    mean, pull = jax.vjp(lambda x: _means(model, params, x), x)
    units = jnp.eye(mean.shape[1], dtype=mean.dtype)

    def row(unit: Array) -> Array:  # each example depends on itself alone: all of them at once
        return _squares(pull(jnp.broadcast_to(unit, mean.shape))[0])

    return jax.vmap(row)(units).sum(axis=0)


def estimated_norm(model: LatentModel, params: Params, x: Array, key: Array, samples: int) -> Array:
    """Return an unbiased estimate of `jacobian_norm`, `[B]`: the mean of |v^T J|^2 over random signs v.

    Hutchinson 1990: E v v^T = I, so that E |v^T J|^2 = tr(J J^T).

    Args:
      model: any latent model.
      params: its parameters.
      x: data `[B, *event]`.
      key: of the signs.
      samples: how many v for each example.
    """
    mean, pull = jax.vjp(lambda x: _means(model, params, x), x)

    def one(key: Array) -> Array:
        return _squares(pull(jax.random.rademacher(key, mean.shape, mean.dtype))[0])

    return jax.vmap(one)(jax.random.split(key, samples)).mean(axis=0)


def _means(model: LatentModel, params: Params, x: Array) -> Array:
    """Return the means of q(z|x) as vectors, `[B, L]`."""
    leaves = jax.tree.leaves(model.encode(params, x).mean())
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], axis=1)


def _squares(a: Array) -> Array:
    return (a**2).reshape(a.shape[0], -1).sum(axis=1)
