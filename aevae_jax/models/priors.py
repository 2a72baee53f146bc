"""Priors p(z) as values. Each sees the whole params tree and the model, so a prior may be made of the encoder.

`init(key, model)` gives its own parameters (under `params["prior"]`); calling it gives the `Distribution` of a batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from aevae_jax import distributions, limits, threads
from aevae_jax.lazy import jax, jnp, np
from aevae_jax.models import parts
from aevae_jax.models.flow_priors import MAF, RealNVP, TwoStage
from aevae_jax.types import Distribution, DrawnWithDensity, InputError, Params

if TYPE_CHECKING:
    from jax import Array


@dataclass(frozen=True)
class StandardNormal:
    """N(0, I), without parameters."""

    def init(self, key: Array, model: Any) -> Params:
        return {}

    def __call__(self, model: Any, params: Params, n: int) -> Distribution:
        zeros = jnp.zeros((n, *parts.code_shape(model.latent)))
        return distributions.Normal(zeros, zeros)


@dataclass(frozen=True)
class GaussianMixture:
    """A mixture of diagonal Gaussians, learned with the model; its centres start as a draw from N(0, I)."""

    components: int = 10

    def __post_init__(self) -> None:
        limits.check("GaussianMixture components", self.components, 1)

    def init(self, key: Array, model: Any) -> Params:
        shape = (self.components, *parts.code_shape(model.latent))
        return {
            "logits": jnp.zeros(self.components),
            "loc": jax.random.normal(key, shape),
            "log_scale": jnp.zeros(shape),
        }

    def __call__(self, model: Any, params: Params, n: int) -> Distribution:
        own = params["prior"]
        log_scale = distributions.bounded(own["log_scale"], *model.log_scale_range)
        return distributions.Mixture(own["logits"], distributions.Normal(own["loc"], log_scale), n)


@dataclass(frozen=True)
class FullGaussianMixture:
    """A mixture of Gaussians with full covariances, to be fitted to codes after training: see `fit_mixture`.

    Of codes that are maps, it is one of all their numbers.
    """

    components: int = 10

    def __post_init__(self) -> None:
        limits.check("FullGaussianMixture components", self.components, 1)

    def init(self, key: Array, model: Any) -> Params:
        identity = jnp.eye(math.prod(parts.code_shape(model.latent)))
        return {
            "logits": jnp.zeros(self.components),
            "loc": jax.random.normal(key, (self.components, len(identity))),
            "scale_tril": jnp.broadcast_to(identity, (self.components, *identity.shape)),
        }

    def __call__(self, model: Any, params: Params, n: int) -> Distribution:
        own = params["prior"]
        components = distributions.MultivariateNormal(own["loc"], own["scale_tril"])
        mixture, shape = distributions.Mixture(own["logits"], components, n), parts.code_shape(model.latent)
        return mixture if len(shape) == 1 else distributions.Reshaped(mixture, shape)


def fit_mixture(model: Any, params: Params, codes: Any, components: int = 10, *, seed: int = 0) -> tuple[Any, Params]:
    """Return the same model with p(z) replaced by a Gaussian mixture fitted to codes, by scikit-learn's EM.

    Ghosh, Sajjadi, Vergari, Black & Schoelkopf 2020, section 4: a density estimated after training makes a generative
    model of an autoencoder.

    Args:
      model: one that is given its prior as `latent_prior`, as those of `models` are.
      params: its parameters; all but the prior's are kept.
      codes: codes of training data, `[N, *latent]`; of a `TwoLevelVAE`, those of its upper level.
      components: of the mixture.
      seed: of EM's start.

    Returns:
      The model and parameters with the new prior.

    Raises:
      InputError: codes that are not finite, too few, or not what the prior is of; or a model without such a prior.
    """
    from sklearn import mixture

    new = FullGaussianMixture(components)
    try:
        replaced = replace(model, latent_prior=new)
    except TypeError:
        raise InputError(
            "prior to be replaced",
            got=f"{type(model).__name__}, which has none as a value",
            expected="a model with a field latent_prior",
        ) from None
    width = jax.eval_shape(replaced.init, jax.random.key(0))["prior"]["loc"].shape[1]
    codes = np.asarray(codes, np.float64)
    if codes.shape[1:] == parts.code_shape(model.latent):
        codes = codes.reshape(len(codes), -1)
    if codes.ndim != 2 or codes.shape[1] != width or len(codes) < max(components, 2):
        raise InputError(
            "codes",
            got=f"shape {codes.shape}",
            where=f"prior of a {type(model).__name__}",
            expected=f"(N, {width}), N at least {max(components, 2)}",
            hint=f"of two levels, give the upper one: codes[:, -{width}:]",
        )
    if not np.isfinite(codes).all():
        raise InputError("codes", got="NaN or infinity", expected="finite numbers")
    floor = 1e-4 * codes.var()  # keeps a component that shrinks onto few codes from becoming singular
    with threads.one():
        fitted = mixture.GaussianMixture(components, reg_covar=floor, random_state=seed).fit(codes)
    own = {
        "logits": np.log(fitted.weights_),
        "loc": fitted.means_,
        "scale_tril": np.linalg.cholesky(fitted.covariances_),
    }
    prior = {name: jnp.asarray(value.astype(np.float32)) for name, value in own.items()}
    return replaced, {**params, "prior": prior}


@dataclass(frozen=True)
class VampPrior:
    """The mixture of the posteriors of learned pseudo-inputs, equally weighted. Tomczak & Welling 2018.

    Pseudo-inputs start uniform in [0, 1] and are not constrained.
    """

    components: int = 500

    def __post_init__(self) -> None:
        limits.check("VampPrior components", self.components, 1)

    def init(self, key: Array, model: Any) -> Params:
        return {"pseudo_inputs": jax.random.uniform(key, (self.components, *model.event_shape))}

    def __call__(self, model: Any, params: Params, n: int) -> Distribution:
        components = model.encode(params, params["prior"]["pseudo_inputs"])
        if isinstance(components, DrawnWithDensity):  # each code would be sent back through each component
            raise InputError(
                "VampPrior",
                got=f"a posterior of type {type(components).__name__}",
                expected="a normal one",
                hint="type latent_prior=GaussianMixture(100), or posterior=FullNormal()",
            )
        return distributions.Mixture(jnp.zeros(self.components), components, n)


@dataclass(frozen=True)
class FromData:
    """The prior that suits the data, which `fit` puts in its place: see `data.suited`.

    Where a model is used without `fit`, it is `StandardNormal()`.
    """

    without_data: ClassVar[StandardNormal] = StandardNormal()

    def init(self, key: Array, model: Any) -> Params:
        return self.without_data.init(key, model)

    def __call__(self, model: Any, params: Params, n: int) -> Distribution:
        return self.without_data(model, params, n)


Prior = StandardNormal | GaussianMixture | FullGaussianMixture | VampPrior | RealNVP | MAF | TwoStage | FromData
"""The priors a saved run may name. One of your own needs `init` and `__call__`."""
