"""Autoencoders with discrete codes as a value: each vector of a code is one of finitely many."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aevae_jax.models import likelihoods, parts
from aevae_jax.models.architectures import MLP, Architecture
from aevae_jax.models.code_priors import CodePrior, UniformCodes
from aevae_jax.models.likelihoods import Likelihood
from aevae_jax.models.parts import LatentShape
from aevae_jax.models.quantizers import Codebook, Quantizer
from aevae_jax.objectives.quantization import VQ
from aevae_jax.types import Distribution, Params

if TYPE_CHECKING:
    from jax import Array


@dataclass(frozen=True)
class VQVAE:
    """q(z|x) is all at one code, that of the vectors nearest to what the encoder gives.

    van den Oord, Vinyals & Kavukcuoglu 2017. As q has no entropy, the rate is -log p(z), and so the negative ELBO is
    what it costs to send the indices of the code, and then the example given the code.

    Args:
      latent: shape of a code, the last axis that of its vectors: `(7, 7, 16)` is a map of 7x7 vectors of 16 numbers, as
        strides of convolutions make it, `(16, 4)` are 16 vectors of 4, and a number is the size of a single one. Of a
        codebook of several levels, vectors have the entries of all of them.
      network: the architecture of encoder and decoder.
      likelihood: p(x|z); left out, `fit` takes what suits the data.
      quantizer: which vectors there are: a `Codebook`, or several, or `FSQ()`.
      latent_prior: p(z), a distribution over codes.
      event_shape: shape of one example, `(H, W, C)` or `(D,)`; `fit` takes it from the data where it is left empty.
    """

    latent: LatentShape = (16, 4)
    network: Architecture = MLP()
    likelihood: Likelihood = likelihoods.FromData()
    quantizer: Quantizer = Codebook()
    latent_prior: CodePrior = UniformCodes()
    event_shape: tuple[int, ...] = ()

    log_scale_range = (-7.0, 3.0)  # of no use here

    def __post_init__(self) -> None:
        parts.check(self)
        self.quantizer.check(self.latent)

    @property
    def symbols(self) -> tuple[int, int, int]:
        """How many places a code has, and at each how many indices of how many choices."""
        return (math.prod(parts.code_shape(self.latent)[:-1]), *self.quantizer.symbols)

    def init(self, key: Array) -> Params:
        """Return fresh parameters; with a codebook also `statistics`, which no gradient trains."""
        seen = self.quantizer.outputs(self.latent)
        return {**parts.init(self, key, codes=seen, latent=seen), **self.quantizer.init(self.latent)}

    def encode(self, params: Params, x: Array) -> Distribution:
        """Return q(z|x) of x `[B, *event]`, at one code `[B, *latent]`."""
        raw = parts.encoder_outputs(self, params, x, codes=self.quantizer.outputs(self.latent))
        return self.quantizer(params, raw)

    def decode(self, params: Params, z: Array) -> Distribution:
        """Return p(x|z) of z `[B, *latent]`."""
        parts.check_codes(self, z)
        return parts.decode(self, params, self.quantizer.merged(z), latent=self.quantizer.outputs(self.latent))

    def prior(self, params: Params, n: int) -> Distribution:
        """Return p(z), for a batch of `n`."""
        return self.latent_prior(self, params, n)

    def book(self, params: Params) -> Any:
        """Return the vectors by their indices."""
        return self.quantizer.book(params)

    def nearest(self, params: Params, z: Array) -> Array:
        """Return the code nearest to each of z `[B, *latent]`."""
        book = self.book(params)
        vectors: Array = book.vectors(book.indices(z.reshape(z.shape[0], -1, parts.code_shape(self.latent)[-1])))
        return vectors.reshape(z.shape)

    def adapted(self, params: Params, posterior: Distribution, key: Array) -> Params:
        """Return what is put in place of `params["statistics"]` after a batch; `None` where there are none."""
        return self.quantizer.adapted(params, posterior, key)

    def usual_objective(self) -> VQ:
        """Return `VQ()`."""
        return VQ()

    def check_examples(self, count: int) -> None:
        """Refuse a codebook that is larger than so many training examples could fill."""
        self.quantizer.check_examples(count, self.symbols[0])
