"""A rate that is held at a number of nats, which grows while training goes on. Burgess et al. 2018."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from aevae_jax import limits
from aevae_jax.lazy import jnp, modules
from aevae_jax.objectives.losses import ELBO, LinearWarmup, Weight, check_weight, weight_at
from aevae_jax.types import LatentModel, Metrics, Params, Validation

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax.objectives import bounds
else:
    bounds = modules("aevae_jax.objectives", "bounds")


@dataclass(frozen=True)
class Capacity:
    """distortion + gamma |rate - capacity|. Burgess et al. 2018, equation 8; the rate is the mean of the batch.

    Args:
      capacity: nats that the rate is held at, a number from 0 on, or a schedule of the step.
      gamma: how steeply the loss rises on both sides.
    """

    capacity: Weight = LinearWarmup(10_000, 0.0, 25.0)
    gamma: float = 100.0

    needs_rate: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_weight("Capacity capacity", self.capacity)
        limits.check("Capacity gamma", self.gamma, 0.0, limits.LARGEST)

    def __call__(self, model: LatentModel, params: Params, x: Array, key: Array, step: Array) -> tuple[Array, Metrics]:
        bound = bounds.elbo(model, params, x, key)
        capacity = jnp.asarray(weight_at(self.capacity, step), jnp.float32)
        loss = bound.distortion.mean() + self.gamma * jnp.abs(bound.rate.mean() - capacity)
        return loss, {"loss": loss, **{name: term.mean() for name, term in bound.terms.items()}, "capacity": capacity}

    def validation(self) -> Validation:
        """Return that parameters are selected by the ELBO, whatever the capacity."""
        return ELBO().validation()
