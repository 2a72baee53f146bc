"""The VAE with categorical codes as a value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aevae_jax import distributions
from aevae_jax.lazy import modules
from aevae_jax.models import likelihoods, parts
from aevae_jax.models.architectures import MLP, Architecture
from aevae_jax.models.code_priors import CodePrior, UniformCodes
from aevae_jax.models.likelihoods import Likelihood
from aevae_jax.models.parts import LatentShape
from aevae_jax.objectives.quantization import GumbelSoftmax
from aevae_jax.types import Distribution, Params

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax.distributions import books
else:
    books = modules("aevae_jax.distributions", "books")


@dataclass(frozen=True)
class CategoricalVAE:
    """Codes are one-hot vectors, whose class probabilities the encoder predicts. Jang, Gu & Poole 2017.

    The rate has a closed form under independent classes. Draws are one-hot vectors whose gradient is that of soft
    ones; `objectives.GumbelSoftmax` trains with soft ones.

    Args:
      latent: shape of a code, the last axis that of the classes: `(16, 8)` are 16 variables of 8 classes, `(7, 7, 8)`
        a map of them, and a number is that of the classes of a single one.
      network: the architecture of encoder and decoder.
      likelihood: p(x|z); left out, `fit` takes what suits the data.
      latent_prior: p(z), a distribution over classes.
      event_shape: shape of one example, `(H, W, C)` or `(D,)`; `fit` takes it from the data where it is left empty.
    """

    latent: LatentShape = (16, 8)
    network: Architecture = MLP()
    likelihood: Likelihood = likelihoods.FromData()
    latent_prior: CodePrior = UniformCodes()
    event_shape: tuple[int, ...] = ()

    log_scale_range = (-7.0, 3.0)  # of no use here

    def __post_init__(self) -> None:
        parts.check(self)

    @property
    def symbols(self) -> tuple[int, int, int]:
        """How many places a code has, and at each how many indices of how many choices."""
        *places, classes = parts.code_shape(self.latent)
        return math.prod(places), 1, classes

    def init(self, key: Array) -> Params:
        """Return fresh parameters."""
        return parts.init(self, key, codes=self.latent)

    def encode(self, params: Params, x: Array) -> Distribution:
        """Return q(z|x) of x `[B, *event]`, a `OneHot` over `[B, *latent]`."""
        return distributions.OneHot(parts.encoder_outputs(self, params, x, codes=self.latent))

    def decode(self, params: Params, z: Array) -> Distribution:
        """Return p(x|z) of z `[B, *latent]`."""
        return parts.decode(self, params, z)

    def prior(self, params: Params, n: int) -> Distribution:
        """Return p(z), for a batch of `n`."""
        return self.latent_prior(self, params, n)

    def book(self, params: Params) -> books.OneHots:
        """Return the one-hot vectors by their classes."""
        return books.OneHots(self.symbols[-1])

    def nearest(self, params: Params, z: Array) -> Array:
        """Return the one-hot vectors nearest to each of z `[B, *latent]`."""
        book = self.book(params)
        return book.vectors(book.indices(z))

    def usual_objective(self) -> GumbelSoftmax:
        """Return `GumbelSoftmax()`."""
        return GumbelSoftmax()
