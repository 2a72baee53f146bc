"""Losses that want most of a code to be near 0. That a code has k numbers at most is `models.codes.TopK`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aevae_jax import limits
from aevae_jax.lazy import jax, jnp
from aevae_jax.objectives.losses import ReconstructionError, Weight, check_weight, weight_at
from aevae_jax.objectives.wrapping import Inner, Wrapping
from aevae_jax.types import InputError, LatentModel, Metrics, Params, Ranged

if TYPE_CHECKING:
    from jax import Array


@dataclass(frozen=True)
class L1:
    """The sum of the absolute values of a code, its mean over the batch: minus the log density of a Laplace prior."""

    def __call__(self, model: LatentModel, z: Array) -> Array:
        """Return the penalty of codes `[B, L]`."""
        del model
        return jnp.abs(z).sum(axis=1).mean()


@dataclass(frozen=True)
class ActivationKL:
    """How far the mean activation of each latent dimension is from `target`: sum_d KL(target || mean_b z_bd) of bits.

    Codes must be between 0 and 1, as with `Autoencoder(code=Sigmoid())`. Ng 2011, "Sparse autoencoder".

    Args:
      target: the share of examples, about, that a dimension is on for.
    """

    target: float = 0.05

    def __post_init__(self) -> None:
        limits.check("ActivationKL target", self.target, 1e-6, 1 - 1e-6)

    def __call__(self, model: LatentModel, z: Array) -> Array:
        """Return the penalty of codes `[B, L]`; `InputError` where the model's codes have no such range."""
        low, high = model.code_range if isinstance(model, Ranged) else (-float("inf"), float("inf"))
        if low < 0 or high > 1:
            raise InputError(
                f"codes of the {type(model).__name__}",
                got=f"numbers from {low:g} to {high:g}",
                expected="numbers from 0 to 1, for ActivationKL()",
                hint="type: --model 'Autoencoder(code=Sigmoid())'",
            )
        tiny = 1e-6  # what float32 rounds to 0 or 1 keeps its gradient
        on = jnp.clip(z.mean(axis=0), tiny, 1 - tiny)
        ratio = self.target * jnp.log(self.target / on) + (1 - self.target) * jnp.log((1 - self.target) / (1 - on))
        return ratio.sum()


Penalty = L1 | ActivationKL


@dataclass(frozen=True)
class Sparse(Wrapping):
    """A loss plus `weight` times a penalty of the means of q(z|x).

    Args:
      penalty: `L1()`, or `ActivationKL()` for codes between 0 and 1.
      weight: of the penalty, a number from 0 on or a schedule of the step.
      objective: the loss.
    """

    penalty: Penalty = L1()
    weight: Weight = 0.1
    objective: Inner = ReconstructionError()

    def __post_init__(self) -> None:
        check_weight("Sparse weight", self.weight)

    def __call__(self, model: LatentModel, params: Params, x: Array, key: Array, step: Array) -> tuple[Array, Metrics]:
        loss, metrics = self.objective(model, params, x, key, step)
        means = model.encode(params, x).mean()
        z = jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(means)], axis=1)
        penalty = self.penalty(model, z)
        total = loss + weight_at(self.weight, step) * penalty
        used = (jnp.abs(z) > 0.01).mean(dtype=z.dtype)
        return total, {**metrics, "loss": total, "sparsity_penalty": penalty, "share_of_code_used": used}
