"""A hierarchical VAE of two levels as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aevae_jax import distributions
from aevae_jax.lazy import jax, jnp
from aevae_jax.models import likelihoods, parts, priors
from aevae_jax.models.architectures import MLP
from aevae_jax.models.likelihoods import Likelihood
from aevae_jax.models.priors import Prior
from aevae_jax.models.vae import VAE
from aevae_jax.types import Distribution, InputError, Params

if TYPE_CHECKING:
    from jax import Array


@dataclass(frozen=True)
class TwoLevelVAE:
    """p(z2) p(z1|z2) p(x|z1, z2) with q(z2|x) q(z1|x, z2): the HVAE of Tomczak & Welling 2018, section 4.

    A code is z1 and z2 side by side, so all that takes codes takes these. The prior given is that of z2; a `VampPrior`
    is made of q(z2|x). The rate has no closed form and is estimated at the sample.

    Args:
      latent: number of latent dimensions of both levels together; z2 has half of them, rounded down.
      network: sizes of the hidden layers of all four networks, at least one.
      likelihood: p(x|z1, z2); left out, `fit` takes what suits the data.
      latent_prior: p(z2); left out, `fit` takes what suits the data.
      log_scale_range: log standard deviations are held smoothly inside these bounds.
      event_shape: shape of one example, `(H, W, C)` or `(D,)`; `fit` takes it from the data where it is left empty.
    """

    latent: int = 16
    network: MLP = MLP()
    likelihood: Likelihood = likelihoods.FromData()
    latent_prior: Prior = priors.FromData()
    log_scale_range: tuple[float, float] = (-7.0, 3.0)
    event_shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        parts.check(self)
        if self.latent < 2:
            raise InputError("latent size", got=self.latent, expected="at least 2, for two levels", where="TwoLevelVAE")
        if not self.network.hidden:
            raise InputError("MLP hidden", got="()", expected="at least one hidden layer", where="TwoLevelVAE")

    def init(self, key: Array) -> Params:
        """Return fresh parameters; those of encoder and decoder by what they predict."""
        parts.check_built(self)
        key_q2, key_q1, key_p1, key_x, key_prior = jax.random.split(key, 5)
        x, z1, z2 = jnp.zeros((1, *self.event_shape)), jnp.zeros((1, self._size1)), jnp.zeros((1, self._size2))
        return {
            "encoder": {
                "z2": self.network.encoder(self.event_shape, 2 * self._size2).init(key_q2, x)["params"],
                "z1": self.network.joint(2 * self._size1).init(key_q1, x, z2)["params"],
            },
            "decoder": {
                "z1": self.network.encoder((self._size2,), 2 * self._size1).init(key_p1, z2)["params"],
                "x": self.network.joint(*self._out_shape).init(key_x, z1, z2)["params"],
            },
            "likelihood": self.likelihood.init(),
            "prior": self.latent_prior.init(key_prior, self._upper),
        }

    def encode(self, params: Params, x: Array) -> Distribution:
        """Return q(z1, z2|x) of x `[B, *event]`, a `Chained` over `[B, latent]`."""
        parts.check_built(self)
        above = self._upper.encode({"encoder": params["encoder"]["z2"]}, x)
        below = jax.tree_util.Partial(self._posterior, params["encoder"]["z1"], x)
        return distributions.Chained(above, below, self._size1)

    def decode(self, params: Params, z: Array) -> Distribution:
        """Return p(x|z1, z2) of z `[B, latent]`."""
        parts.check_built(self)
        parts.check_codes(self, z)
        z1, z2 = z[:, : self._size1], z[:, self._size1 :]
        raw = self.network.joint(*self._out_shape).apply({"params": params["decoder"]["x"]}, z1, z2)
        return self.likelihood(params["likelihood"], raw)

    def prior(self, params: Params, n: int) -> Distribution:
        """Return p(z1, z2), a `Chained` for a batch of `n`."""
        above = self.latent_prior(self._upper, {**params, "encoder": params["encoder"]["z2"]}, n)
        below = jax.tree_util.Partial(self._below, params["decoder"]["z1"])
        return distributions.Chained(above, below, self._size1)

    @property
    def _upper(self) -> VAE:
        """z2 alone, with q(z2|x): what the prior sees."""
        return VAE(
            self._size2, self.network, self.likelihood, self.latent_prior, self.log_scale_range, self.event_shape
        )

    @property
    def _size1(self) -> int:
        return self.latent - self.latent // 2

    @property
    def _size2(self) -> int:
        return self.latent // 2

    @property
    def _out_shape(self) -> tuple[int, ...]:
        return (*self.event_shape, self.likelihood.outputs)

    def _posterior(self, params: Params, x: Array, z2: Array) -> Distribution:
        """Return q(z1|x, z2)."""
        return parts.normal(self, self.network.joint(2 * self._size1).apply({"params": params}, x, z2))

    def _below(self, params: Params, z2: Array) -> Distribution:
        """Return p(z1|z2)."""
        network = self.network.encoder((self._size2,), 2 * self._size1)
        return parts.normal(self, network.apply({"params": params}, z2))
