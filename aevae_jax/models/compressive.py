"""The autoencoder that is trained for rate and distortion: noise in training stands for the rounding of codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aevae_jax import distributions, limits
from aevae_jax.lazy import jax, jnp, np
from aevae_jax.models import likelihoods, parts
from aevae_jax.models.architectures import MLP, Mixer
from aevae_jax.models.likelihoods import Likelihood
from aevae_jax.types import Distribution, InputError, Params

if TYPE_CHECKING:
    from jax import Array


LOG_SCALE_RANGE = (-5.0, 8.0)
"""Bounds of the log scale of the logistics, in units of codes: e^-5 is a distribution of one integer alone."""


@dataclass(frozen=True)
class CompressiveAutoencoder:
    """q(z|x) is uniform noise of width 1 around the code, so the rate is the length of the rounded code.

    Balle, Laparra & Simoncelli 2017; Balle, Minnen, Singh, Hwang & Johnston 2018; Minnen, Balle & Toderici 2018; Minnen
    & Singh 2020. Under `likelihoods.Normal(scale)` the negative ELBO is rate + squared error / (2 scale^2) and a
    constant: the smaller the scale, the more is spent on the picture. At high rates the mean squared error comes to
    scale^2.

    p(z) has levels. That of the first is a learned density of each element on its own; that of each further one is a
    logistic whose centre and scale a network predicts from the codes of the levels before it. Two levels are a scale
    and mean hyperprior, more of them an autoregression over channels. As in `TwoLevelVAE`, the last level stands first.

    Args:
      latent: number of codes, of all levels together.
      network: the architecture of encoder, decoder and the networks between levels.
      likelihood: p(x|z).
      levels: how many codes each level has but the last, which has all others.
      step: the width of a bin in units of the encoder's outputs, which are divided by it: the smaller, the finer are
        codes at the start of a training.
      components: logistics in the density of each element of the first level.
      event_shape: shape of one example, `(H, W, C)` or `(D,)`; `fit` takes it from the data where it is left empty.
    """

    latent: int = 64
    network: MLP | Mixer = MLP()
    likelihood: Likelihood = likelihoods.Normal(0.1)
    levels: tuple[int, ...] = ()
    step: float = 0.25
    components: int = 3
    event_shape: tuple[int, ...] = ()

    log_scale_range = LOG_SCALE_RANGE

    def __post_init__(self) -> None:
        parts.check(self)
        limits.check_sizes("levels", self.levels, where="CompressiveAutoencoder")
        limits.check("step", self.step, 2.0**-20, 2.0**20, where="CompressiveAutoencoder")
        limits.check("components", self.components, 1, where="CompressiveAutoencoder")
        if sum(self.levels) >= self.latent:
            raise InputError(
                "levels",
                got=f"{self.levels}, {sum(self.levels)} codes",
                expected=f"fewer than latent={self.latent}: the last level has the others",
                where="CompressiveAutoencoder",
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of codes of each level, the first level first."""
        return (*self.levels, self.latent - sum(self.levels))

    def init(self, key: Array) -> Params:
        """Return fresh parameters."""
        parts.check_built(self)
        key_encoder, key_decoder, key_first, *key_levels = jax.random.split(key, 3 + len(self.levels))
        encoder = self.network.encoder(self.event_shape, self.latent)
        decoder = self.network.decoder(self.event_shape, self.likelihood.outputs)
        shape = (self.sizes[0], self.components)
        first = {"logits": jnp.zeros(shape), "loc": jax.random.normal(key_first, shape), "log_scale": jnp.zeros(shape)}
        between = [
            self._between(level).init(k, jnp.zeros((1, sum(self.sizes[:level]))))["params"]
            for level, k in enumerate(key_levels, 1)
        ]
        return {
            "encoder": encoder.init(key_encoder, jnp.zeros((1, *self.event_shape)))["params"],
            "decoder": decoder.init(key_decoder, jnp.zeros((1, self.latent)))["params"],
            "likelihood": self.likelihood.init(),
            "prior": {"first": first, **{f"level_{level}": own for level, own in enumerate(between, 1)}},
        }

    def encode(self, params: Params, x: Array) -> Distribution:
        """Return q(z|x) of x `[B, *event]`, a `Uniform` over `[B, latent]`; its mean is what is rounded."""
        return distributions.Uniform(parts.encoder_outputs(self, params, x, codes=self.latent) / self.step)

    def decode(self, params: Params, z: Array) -> Distribution:
        """Return p(x|z) of z `[B, latent]`."""
        return parts.decode(self, params, z * self.step)

    def prior(self, params: Params, n: int) -> Distribution:
        """Return p(z), for a batch of `n`: a `SmoothedLogisticMixture`, or `Chained` ones."""
        own = {
            name: jnp.broadcast_to(value[None], (n, *value.shape)) for name, value in params["prior"]["first"].items()
        }
        prior: Distribution = self._smoothed(own["logits"], own["loc"], own["log_scale"])
        for level, size in enumerate(self.sizes[1:], 1):
            below = jax.tree_util.Partial(self.level_given, params["prior"][f"level_{level}"])
            prior = distributions.Chained(prior, below, size)
        return prior

    def level_given(self, params: Params, above: Array) -> Distribution:
        """Return p of the codes of one level, given those of all levels before it.

        Args:
          params: of the network between them, `params["prior"]["level_1"]` for the second level.
          above: the codes of the levels before, `[B, codes]`, the first level last.
        """
        level = next(n for n in range(1, len(self.sizes)) if sum(self.sizes[:n]) == above.shape[1])
        loc, raw = jnp.split(self._between(level).apply({"params": params}, above * self.step), 2, axis=-1)
        return self._smoothed(jnp.zeros_like(loc)[..., None], loc[..., None], raw[..., None])

    def _smoothed(self, logits: Array, loc: Array, raw: Array) -> Distribution:
        """Return the distribution of parameters in units of the encoder's outputs, which are of order 1."""
        log_scale = distributions.bounded(raw - np.log(self.step) - 1.0, *LOG_SCALE_RANGE)
        return distributions.SmoothedLogisticMixture(logits, loc / self.step, log_scale)

    def _between(self, level: int) -> Any:
        return self.network.between(self.event_shape, 2 * self.sizes[level])
