"""The variational autoencoder as a value: an architecture, a likelihood, a prior and a posterior.

Parameters are a plain dict with the entries `encoder`, `decoder`, `likelihood` and `prior`, and `posterior` where the
posterior has parameters of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aevae_jax.lazy import jax
from aevae_jax.models import likelihoods, parts, priors
from aevae_jax.models.architectures import MLP, Architecture
from aevae_jax.models.likelihoods import Likelihood
from aevae_jax.models.parts import LatentShape
from aevae_jax.models.posteriors import DiagonalNormal, Posterior
from aevae_jax.models.priors import Prior
from aevae_jax.types import Distribution, Params

if TYPE_CHECKING:
    from jax import Array


@dataclass(frozen=True)
class VAE:
    """Codes are distributions that the encoder predicts: diagonal Gaussians, or others. Kingma & Welling 2013.

    Args:
      latent: number of latent dimensions; or the shape of a code that is a map, such as `(7, 7, 4)`: height and width
        as the strides of convolutions make them, and channels.
      network: the architecture of encoder and decoder.
      likelihood: p(x|z); left out, `fit` takes what suits the data.
      latent_prior: p(z); left out, `fit` takes what suits the data.
      log_scale_range: the posterior's log standard deviation is held smoothly inside these bounds.
      event_shape: shape of one example, `(H, W, C)` or `(D,)`; `fit` takes it from the data where it is left empty.
      posterior: q(z|x).
    """

    latent: LatentShape = 16
    network: Architecture = MLP()
    likelihood: Likelihood = likelihoods.FromData()
    latent_prior: Prior = priors.FromData()
    log_scale_range: tuple[float, float] = (-7.0, 3.0)
    event_shape: tuple[int, ...] = ()
    posterior: Posterior = DiagonalNormal()

    def __post_init__(self) -> None:
        parts.check(self)
        self.posterior.outputs(self.latent)

    def init(self, key: Array) -> Params:
        """Return fresh parameters."""
        own = self.posterior.init(jax.random.fold_in(key, 3), self.latent)  # `parts.init` splits the key in three
        params = parts.init(self, key, codes=self.posterior.outputs(self.latent))
        return {**params, "posterior": own} if own else params

    def encode(self, params: Params, x: Array) -> Distribution:
        """Return q(z|x) of x `[B, *event]`, over `[B, *latent]`."""
        raw = parts.encoder_outputs(self, params, x, codes=self.posterior.outputs(self.latent))
        return self.posterior(params.get("posterior", {}), raw, self.log_scale_range)

    def decode(self, params: Params, z: Array) -> Distribution:
        """Return p(x|z) of z `[B, *latent]`."""
        return parts.decode(self, params, z)

    def prior(self, params: Params, n: int) -> Distribution:
        """Return p(z), for a batch of `n`."""
        return self.latent_prior(self, params, n)
