"""`Autoencoder`, `VAE`, `TwoLevelVAE`: values that satisfy the `LatentModel` contract.

Each is an architecture, a likelihood and a prior. The first two differ in the distribution that `encode` returns, and
in nothing else. Parameters are a plain dict with the entries `encoder`, `decoder`, `likelihood` and `prior`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from aevae_jax import distributions, limits
from aevae_jax.lazy import jax, jnp
from aevae_jax.models import likelihoods, priors
from aevae_jax.models.architectures import MLP, Architecture
from aevae_jax.models.likelihoods import Likelihood
from aevae_jax.models.priors import Prior
from aevae_jax.types import Distribution, InputError, Params

if TYPE_CHECKING:
    from jax import Array


@dataclass(frozen=True)
class Autoencoder:
    """Codes are points: q(z|x) is a `Delta`. Trained on reconstruction alone, so p(z) is nominal until one is fitted.

    Args:
      latent: number of latent dimensions.
      network: the architecture of encoder and decoder.
      likelihood: p(x|z).
      latent_prior: p(z). `dataclasses.replace` it, and `params["prior"]`, to put a fitted prior in its place.
      event_shape: shape of one example, `(H, W, C)` or `(D,)`; `fit` takes it from the data where it is left empty.
    """

    latent: int = 16
    network: Architecture = MLP()
    likelihood: Likelihood = likelihoods.Normal()
    latent_prior: Prior = priors.StandardNormal()
    event_shape: tuple[int, ...] = ()

    log_scale_range = (-7.0, 3.0)  # of the components of a mixture prior
    point_codes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self)

    def init(self, key: Array) -> Params:
        """Return fresh parameters."""
        return _init(self, key, codes=self.latent)

    def encode(self, params: Params, x: Array) -> Distribution:
        """Return the code of each example of x `[B, *event]`, a `Delta` over `[B, latent]`."""
        return distributions.Delta(_encoder_outputs(self, params, x, codes=self.latent))

    def decode(self, params: Params, z: Array) -> Distribution:
        """Return p(x|z) of z `[B, latent]`."""
        return _decode(self, params, z)

    def prior(self, params: Params, n: int) -> Distribution:
        """Return p(z), for a batch of `n`."""
        return self.latent_prior(self, params, n)


@dataclass(frozen=True)
class VAE:
    """Codes are diagonal Gaussians whose mean and scale the encoder predicts. Kingma & Welling 2013.

    Args:
      latent: number of latent dimensions.
      network: the architecture of encoder and decoder.
      likelihood: p(x|z).
      latent_prior: p(z).
      log_scale_range: the posterior's log standard deviation is held smoothly inside these bounds.
      event_shape: shape of one example, `(H, W, C)` or `(D,)`; `fit` takes it from the data where it is left empty.
    """

    latent: int = 16
    network: Architecture = MLP()
    likelihood: Likelihood = likelihoods.NormalSharedScale()
    latent_prior: Prior = priors.StandardNormal()
    log_scale_range: tuple[float, float] = (-7.0, 3.0)
    event_shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check(self)

    def init(self, key: Array) -> Params:
        """Return fresh parameters."""
        return _init(self, key, codes=2 * self.latent)

    def encode(self, params: Params, x: Array) -> Distribution:
        """Return q(z|x) of x `[B, *event]`, a `Normal` over `[B, latent]`."""
        return _normal(self, _encoder_outputs(self, params, x, codes=2 * self.latent))

    def decode(self, params: Params, z: Array) -> Distribution:
        """Return p(x|z) of z `[B, latent]`."""
        return _decode(self, params, z)

    def prior(self, params: Params, n: int) -> Distribution:
        """Return p(z), for a batch of `n`."""
        return self.latent_prior(self, params, n)


@dataclass(frozen=True)
class TwoLevelVAE:
    """p(z2) p(z1|z2) p(x|z1, z2) with q(z2|x) q(z1|x, z2): the HVAE of Tomczak & Welling 2018, section 4.

    A code is z1 and z2 side by side, so all that takes codes takes these. The prior given is that of z2; a `VampPrior`
    is made of q(z2|x). The rate has no closed form and is estimated at the sample.

    Args:
      latent: number of latent dimensions of both levels together; z2 has half of them, rounded down.
      network: sizes of the hidden layers of all four networks, at least one.
      likelihood: p(x|z1, z2).
      latent_prior: p(z2).
      log_scale_range: log standard deviations are held smoothly inside these bounds.
      event_shape: shape of one example, `(H, W, C)` or `(D,)`; `fit` takes it from the data where it is left empty.
    """

    latent: int = 16
    network: MLP = MLP()
    likelihood: Likelihood = likelihoods.NormalSharedScale()
    latent_prior: Prior = priors.StandardNormal()
    log_scale_range: tuple[float, float] = (-7.0, 3.0)
    event_shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check(self)
        if self.latent < 2:
            raise InputError("latent size", got=self.latent, expected="at least 2, for two levels", where="TwoLevelVAE")
        if not self.network.hidden:
            raise InputError("MLP hidden", got="()", expected="at least one hidden layer", where="TwoLevelVAE")

    def init(self, key: Array) -> Params:
        """Return fresh parameters; those of encoder and decoder by what they predict."""
        _check_built(self)
        key_q2, key_q1, key_p1, key_x, key_prior = jax.random.split(key, 5)
        x, z1, z2 = jnp.zeros((1, *self.event_shape)), jnp.zeros((1, self._size1)), jnp.zeros((1, self._upper.latent))
        return {
            "encoder": {
                "z2": self.network.encoder(self.event_shape, 2 * self._upper.latent).init(key_q2, x)["params"],
                "z1": self.network.joint(2 * self._size1).init(key_q1, x, z2)["params"],
            },
            "decoder": {
                "z1": self.network.encoder((self._upper.latent,), 2 * self._size1).init(key_p1, z2)["params"],
                "x": self.network.joint(*self._out_shape).init(key_x, z1, z2)["params"],
            },
            "likelihood": self.likelihood.init(),
            "prior": self.latent_prior.init(key_prior, self._upper),
        }

    def encode(self, params: Params, x: Array) -> Distribution:
        """Return q(z1, z2|x) of x `[B, *event]`, a `Chained` over `[B, latent]`."""
        _check_built(self)
        above = self._upper.encode({"encoder": params["encoder"]["z2"]}, x)
        below = jax.tree_util.Partial(self._posterior, params["encoder"]["z1"], x)
        return distributions.Chained(above, below, self._size1)

    def decode(self, params: Params, z: Array) -> Distribution:
        """Return p(x|z1, z2) of z `[B, latent]`."""
        _check_built(self)
        _check_codes(self, z)
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
            self.latent // 2, self.network, self.likelihood, self.latent_prior, self.log_scale_range, self.event_shape
        )

    @property
    def _size1(self) -> int:
        return self.latent - self.latent // 2

    @property
    def _out_shape(self) -> tuple[int, ...]:
        return (*self.event_shape, self.likelihood.outputs)

    def _posterior(self, params: Params, x: Array, z2: Array) -> Distribution:
        """Return q(z1|x, z2)."""
        return _normal(self, self.network.joint(2 * self._size1).apply({"params": params}, x, z2))

    def _below(self, params: Params, z2: Array) -> Distribution:
        """Return p(z1|z2)."""
        network = self.network.encoder((self._upper.latent,), 2 * self._size1)
        return _normal(self, network.apply({"params": params}, z2))


Model = Autoencoder | VAE | TwoLevelVAE
"""The models a saved run may name."""


def _check(model: Model) -> None:
    limits.check("latent size", model.latent, 1, where=type(model).__name__)
    limits.check_sizes("event_shape", model.event_shape, where=type(model).__name__)
    bounds = model.log_scale_range
    if not isinstance(bounds, tuple) or len(bounds) != 2:
        raise InputError("log_scale_range", got=limits.shown(bounds), expected="(low, high)")
    for bound in bounds:  # exp(bound) is the scale, and is squared
        limits.check("log_scale_range", bound, -1000.0, 1000.0)
    if not bounds[0] < bounds[1]:
        raise InputError("log_scale_range", got=bounds, expected="(low, high) with low < high")


def _check_built(model: Model) -> None:
    if not model.event_shape:
        raise InputError(
            "event_shape",
            got="()",
            expected="the shape of one example, such as (28, 28, 1)",
            where=type(model).__name__,
            hint="write dataclasses.replace(model, event_shape=x.shape[1:])",
        )


def _check_codes(model: Model, z: Array) -> None:
    if z.shape[1:] != (model.latent,):
        where = f"decode, batch of shape {z.shape}"
        raise InputError("shape of one code", got=z.shape[1:], expected=f"({model.latent},)", where=where)


def _normal(model: VAE | TwoLevelVAE, out: Array) -> Distribution:
    """Return a network's output `[B, 2 L]`, means and then raw log scales, as L normals."""
    loc, raw = jnp.split(out, 2, axis=-1)
    return distributions.Normal(loc, distributions.bounded(raw, *model.log_scale_range))


def _init(model: Model, key: Array, codes: int) -> Params:
    _check_built(model)
    key_encoder, key_decoder, key_prior = jax.random.split(key, 3)
    encoder = model.network.encoder(model.event_shape, codes)
    decoder = model.network.decoder(model.event_shape, model.likelihood.outputs)
    return {
        "encoder": encoder.init(key_encoder, jnp.zeros((1, *model.event_shape)))["params"],
        "decoder": decoder.init(key_decoder, jnp.zeros((1, model.latent)))["params"],
        "likelihood": model.likelihood.init(),
        "prior": model.latent_prior.init(key_prior, model),
    }


def _encoder_outputs(model: Model, params: Params, x: Array, codes: int) -> Array:
    """Return `[B, *event] -> [B, codes]`."""
    _check_built(model)
    if x.shape[1:] != model.event_shape:
        where = f"encode, batch of shape {x.shape}"
        raise InputError("shape of one example", got=x.shape[1:], expected=f"{model.event_shape}", where=where)
    network = model.network.encoder(model.event_shape, codes)
    return _as(network.apply({"params": params["encoder"]}, x), (codes,), "the encoder's output")


def _decode(model: Model, params: Params, z: Array) -> Distribution:
    _check_built(model)
    _check_codes(model, z)
    network = model.network.decoder(model.event_shape, model.likelihood.outputs)
    shape = (*model.event_shape, model.likelihood.outputs)
    raw = _as(network.apply({"params": params["decoder"]}, z), shape, "the decoder's output")
    return model.likelihood(params["likelihood"], raw)


def _as(out: Any, shape: tuple[int, ...], what: str) -> Array:
    """Return a network's output as `[B, *shape]`; modules that leave out axes of size 1 or flatten them are welcome."""
    if math.prod(out.shape[1:]) != math.prod(shape):
        raise InputError(what, got=f"{out.shape[1:]} numbers per example", expected=f"{math.prod(shape)}, as {shape}")
    array: Array = out.reshape(out.shape[0], *shape)
    return array
