"""Priors p(z) as values. Each sees the whole params tree and the model, so a prior may be made of the encoder.

`init(key, model)` gives its own parameters (under `params["prior"]`); calling it gives the `Distribution` of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aevae_jax.types import Distribution, InputError, Params

if TYPE_CHECKING:
    from jax import Array


@dataclass(frozen=True)
class StandardNormal:
    """N(0, I), without parameters."""

    def init(self, key: Array, model: Any) -> Params:
        return {}

    def __call__(self, model: Any, params: Params, n: int) -> Distribution:
        import jax.numpy as jnp

        from aevae_jax import distributions

        zeros = jnp.zeros((n, model.latent))
        return distributions.Normal(zeros, zeros)


@dataclass(frozen=True)
class GaussianMixture:
    """A mixture of diagonal Gaussians, learned with the model; its centres start as a draw from N(0, I)."""

    components: int = 10

    def __post_init__(self) -> None:
        if self.components < 1:
            raise InputError("GaussianMixture components", got=self.components, expected="at least 1")

    def init(self, key: Array, model: Any) -> Params:
        import jax
        import jax.numpy as jnp

        shape = (self.components, model.latent)
        return {
            "logits": jnp.zeros(self.components),
            "loc": jax.random.normal(key, shape),
            "log_scale": jnp.zeros(shape),
        }

    def __call__(self, model: Any, params: Params, n: int) -> Distribution:
        from aevae_jax import distributions

        own = params["prior"]
        log_scale = distributions.bounded(own["log_scale"], *model.log_scale_range)
        return distributions.Mixture(own["logits"], distributions.Normal(own["loc"], log_scale), n)


@dataclass(frozen=True)
class VampPrior:
    """The mixture of the posteriors of learned pseudo-inputs, equally weighted. Tomczak & Welling 2018.

    Pseudo-inputs start uniform in [0, 1] and are not constrained.
    """

    components: int = 500

    def __post_init__(self) -> None:
        if self.components < 1:
            raise InputError("VampPrior components", got=self.components, expected="at least 1")

    def init(self, key: Array, model: Any) -> Params:
        import jax

        return {"pseudo_inputs": jax.random.uniform(key, (self.components, *model.event_shape))}

    def __call__(self, model: Any, params: Params, n: int) -> Distribution:
        import jax.numpy as jnp

        from aevae_jax import distributions

        components = model.encode(params, params["prior"]["pseudo_inputs"])
        return distributions.Mixture(jnp.zeros(self.components), components, n)


Prior = StandardNormal | GaussianMixture | VampPrior
"""The priors a saved run may name. One of your own needs `init` and `__call__`."""
