"""The autoencoder as a value: a `VAE` but for the distribution that `encode` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from aevae_jax import distributions
from aevae_jax.models import likelihoods, parts, priors
from aevae_jax.models.architectures import MLP, Architecture
from aevae_jax.models.codes import Code, Identity
from aevae_jax.models.likelihoods import Likelihood
from aevae_jax.models.parts import LatentShape
from aevae_jax.models.priors import Prior
from aevae_jax.types import Distribution, Params

if TYPE_CHECKING:
    from jax import Array


@dataclass(frozen=True)
class Autoencoder:
    """Codes are points: q(z|x) is a `Delta`. Trained on reconstruction alone, so p(z) is nominal until one is fitted.

    Args:
      latent: number of latent dimensions; or the shape of a code that is a map, such as `(7, 7, 4)`: see `VAE`.
      network: the architecture of encoder and decoder.
      likelihood: p(x|z).
      latent_prior: p(z). `dataclasses.replace` it, and `params["prior"]`, to put a fitted prior in its place.
      event_shape: shape of one example, `(H, W, C)` or `(D,)`; `fit` takes it from the data where it is left empty.
      code: what becomes of the encoder's outputs: `Sigmoid()` or `TopK(k)` for sparse codes.
    """

    latent: LatentShape = 16
    network: Architecture = MLP()
    likelihood: Likelihood = likelihoods.Normal()
    latent_prior: Prior = priors.StandardNormal()
    event_shape: tuple[int, ...] = ()
    code: Code = Identity()

    log_scale_range = (-7.0, 3.0)  # of the components of a mixture prior
    point_codes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        parts.check(self)

    @property
    def code_range(self) -> tuple[float, float]:
        """Bounds of the numbers of a code."""
        return self.code.range

    def init(self, key: Array) -> Params:
        """Return fresh parameters."""
        return parts.init(self, key, codes=self.latent)

    def encode(self, params: Params, x: Array) -> Distribution:
        """Return the code of each example of x `[B, *event]`, a `Delta` over `[B, *latent]`."""
        return distributions.Delta(self.code(parts.encoder_outputs(self, params, x, codes=self.latent)))

    def decode(self, params: Params, z: Array) -> Distribution:
        """Return p(x|z) of z `[B, *latent]`."""
        return parts.decode(self, params, z)

    def prior(self, params: Params, n: int) -> Distribution:
        """Return p(z), for a batch of `n`."""
        return self.latent_prior(self, params, n)
