"""Priors p(z) made of networks, as values: flows, and a second VAE. Trained with the model or fitted to codes after it.

The flows are N(0, I) moved by invertible networks, and begin at it. Their last map shifts and scales each element, so
that codes of any size are soon met.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aevae_jax import distributions, limits
from aevae_jax.lazy import jax, jnp, modules
from aevae_jax.models import parts
from aevae_jax.types import Distribution, InputError, Params

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax.distributions import bijections
    from aevae_jax.models import flow_networks, networks
else:
    bijections = modules("aevae_jax.distributions", "bijections")
    flow_networks, networks = modules("aevae_jax.models", "flow_networks", "networks")

LOG_SCALE_RANGE = (-5.0, 5.0)
"""Bounds of the log scale that one layer gives an element."""


def _check(prior: Any) -> None:
    name = type(prior).__name__
    limits.check_sizes("hidden", prior.hidden, where=name)
    if not prior.hidden:
        raise InputError("hidden", got="()", expected="at least one hidden layer", where=name)


def _flow(model: Any, params: Params, n: int, maps: list[Any]) -> Distribution:
    """Return N(0, I) moved by the maps, and then shifted and scaled; of codes that are maps, all numbers of them."""
    own, shape = params["prior"], parts.code_shape(model.latent)
    zeros = jnp.zeros((n, math.prod(shape)))
    last = bijections.Affine(own["loc"][None], own["log_scale"][None])
    flow = distributions.Flow(distributions.Normal(zeros, zeros), (*maps, last))
    return flow if len(shape) == 1 else distributions.Reshaped(flow, shape)


@dataclass(frozen=True)
class RealNVP:
    """Affine couplings: one half of a code says how the other is shifted and scaled, in turn. Dinh et al. 2017.

    A draw and a density take one pass each. Of an odd number of dimensions, the halves differ by one.

    Args:
      layers: how many couplings; the half that stays alternates.
      hidden: sizes of the hidden layers of each.
    """

    layers: int = 6
    hidden: tuple[int, ...] = (64,)

    def __post_init__(self) -> None:
        limits.check("layers", self.layers, 1, where=type(self).__name__)
        _check(self)

    def init(self, key: Array, model: Any) -> Params:
        size = math.prod(parts.code_shape(model.latent))
        if size < 2:
            expected, hint = "at least 2: one half says how the other is moved", "type latent_prior=MAF()"
            raise InputError("latent size of a RealNVP", got=size, expected=expected, hint=hint)
        params = {"loc": jnp.zeros(size), "log_scale": jnp.zeros(size)}
        for number, own in enumerate(jax.random.split(key, self.layers)):
            kept = self._kept(number, size)
            network = flow_networks.Conditioner(self.hidden, size - kept)
            params[f"layer_{number}"] = network.init(own, jnp.zeros((1, kept)))["params"]
        return params

    def __call__(self, model: Any, params: Params, n: int) -> Distribution:
        size, maps = math.prod(parts.code_shape(model.latent)), []
        for number in range(self.layers):
            network = jax.tree_util.Partial(self._moves, params["prior"][f"layer_{number}"])
            maps += [bijections.Coupling(network, self._kept(number, size)), bijections.Reverse()]
        return _flow(model, params, n, maps)

    def _kept(self, number: int, size: int) -> int:
        """Return how many elements stay: as the order is reversed after each layer, those that the one before moved."""
        return size // 2 if number % 2 == 0 else size - size // 2

    def _moves(self, params: Params, a: Array) -> tuple[Array, Array]:
        network = flow_networks.Conditioner(self.hidden, params["out"]["bias"].shape[0] // 2)
        out: Any = network.apply({"params": params}, a)
        return out[:, 0], distributions.bounded(out[:, 1], *LOG_SCALE_RANGE)


@dataclass(frozen=True)
class MAF:
    """Autoregressive layers: each element is a normal given those before it. Papamakarios, Pavlakou & Murray 2017.

    A density takes one pass of each network, a draw as many as there are dimensions. The order of the elements is
    reversed from one layer to the next. One dimension is a normal, of learned mean and scale.

    Args:
      layers: how many networks.
      hidden: sizes of the hidden layers of each.
    """

    layers: int = 4
    hidden: tuple[int, ...] = (64,)

    def __post_init__(self) -> None:
        limits.check("layers", self.layers, 1, where=type(self).__name__)
        _check(self)

    def init(self, key: Array, model: Any) -> Params:
        size = math.prod(parts.code_shape(model.latent))
        network, z = flow_networks.MADE(self.hidden), jnp.zeros((1, size))
        layers = enumerate(jax.random.split(key, self.layers))
        own = {f"layer_{number}": network.init(each, z)["params"] for number, each in layers}
        return {"loc": jnp.zeros(size), "log_scale": jnp.zeros(size), **own}

    def __call__(self, model: Any, params: Params, n: int) -> Distribution:
        maps: list[Any] = []
        for number in range(self.layers):
            network = jax.tree_util.Partial(self._whitens, params["prior"][f"layer_{number}"])
            maps += [bijections.Inverse(bijections.Autoregressive(network)), bijections.Reverse()]
        return _flow(model, params, n, maps)

    def _whitens(self, params: Params, z: Array) -> tuple[Array, Array]:
        """Return how noise is made of z: (z - mean) / scale, as what is added to and multiplied with z."""
        out: Any = flow_networks.MADE(self.hidden).apply({"params": params}, z)
        log_scale = distributions.bounded(out[:, 1], *LOG_SCALE_RANGE)
        return -out[:, 0] * jnp.exp(-log_scale), -log_scale


@dataclass(frozen=True)
class TwoStage:
    """A second VAE of the codes: p(z) is the integral of p(u) p(z|u), u as large as z. Dai & Wipf 2019, section 4.

    The scale of p(z|u), one number, is learned. The density has no closed form: it is estimated by one draw of q(u|z).
    With that the ELBO and the importance-weighted bound are bounds as before, by as much worse as q(u|z) is away from
    p(u|z); what needs the density itself, such as annealing or the statistics of codes, is refused.

    Args:
      hidden: sizes of the hidden layers of both networks.
    """

    hidden: tuple[int, ...] = (256, 256)

    def __post_init__(self) -> None:
        _check(self)

    def init(self, key: Array, model: Any) -> Params:
        if isinstance(model.latent, tuple):
            expected = "a number, for codes that are vectors"
            raise InputError("latent of a TwoStage prior", got=model.latent, expected=expected)
        key_encoder, key_decoder = jax.random.split(key)
        z = jnp.zeros((1, model.latent))
        return {
            "encoder": networks.MLP(self.hidden, (2 * model.latent,)).init(key_encoder, z)["params"],
            "decoder": networks.MLP(self.hidden, (model.latent,)).init(key_decoder, z)["params"],
            "log_scale": jnp.zeros(()),
        }

    def __call__(self, model: Any, params: Params, n: int) -> Distribution:
        own, zeros = params["prior"], jnp.zeros((n, model.latent))
        visible = jax.tree_util.Partial(self._visible, own["decoder"], own["log_scale"])
        recognition = jax.tree_util.Partial(self._recognition, own["encoder"])
        return distributions.Marginal(distributions.Normal(zeros, zeros), visible, recognition)

    def _visible(self, params: Params, log_scale: Array, u: Array) -> Distribution:
        """Return p(z|u)."""
        loc: Any = networks.MLP(self.hidden, u.shape[1:]).apply({"params": params}, u)
        return distributions.Normal(loc, jnp.full_like(loc, distributions.bounded(log_scale, *_SCALES)))

    def _recognition(self, params: Params, z: Array) -> Distribution:
        """Return q(u|z)."""
        raw: Any = networks.MLP(self.hidden, (2 * z.shape[1],)).apply({"params": params}, z)
        return parts.bounded_normal(raw, _SCALES)


_SCALES = (-7.0, 3.0)
"""Bounds of the log scales of a second stage."""
