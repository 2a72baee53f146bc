"""Posteriors q(z|x) as values: how many numbers an encoder gives, and which distribution they make.

`outputs(latent)` says how many numbers, or which shape for codes that are maps; calling a posterior on `raw`
`[B, *outputs]` gives the `Distribution` over `[B, *latent]`. `init(key, latent)` gives parameters of its own, which all
examples share, under `params["posterior"]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aevae_jax import distributions, limits
from aevae_jax.lazy import jax, jnp, modules, np
from aevae_jax.models import parts
from aevae_jax.models.parts import LatentShape
from aevae_jax.types import Distribution, InputError, Params

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax.distributions import bijections
    from aevae_jax.models import flow_networks
else:
    bijections = modules("aevae_jax.distributions", "bijections")
    flow_networks = modules("aevae_jax.models", "flow_networks")

Range = tuple[float, float]
"""Bounds of log standard deviations, those of the model."""


def _size(posterior: object, latent: LatentShape) -> int:
    """Return the number of dimensions; a map of codes has normals that do not see each other."""
    if isinstance(latent, tuple):
        expected = "a number, for codes that are vectors"
        name = type(posterior).__name__
        raise InputError(f"latent of posterior={name}()", got=latent, expected=expected, hint="leave posterior out")
    return latent


@dataclass(frozen=True)
class DiagonalNormal:
    """Independent normals, mean and scale of each dimension predicted. Kingma & Welling 2013."""

    def outputs(self, latent: LatentShape) -> LatentShape:
        return parts.times(2, latent)

    def init(self, key: Array, latent: LatentShape) -> Params:
        return {}

    def __call__(self, params: Params, raw: Array, log_scale_range: Range) -> Distribution:
        return parts.bounded_normal(raw, log_scale_range)


@dataclass(frozen=True)
class FullNormal:
    """A normal of full covariance L L^T, the lower triangle of L predicted. Kingma & Welling 2019, section 2.5.1.

    The diagonal of L is held in the model's range of scales, what stands below it is free. The rate from N(0, I) has a
    closed form.
    """

    def outputs(self, latent: LatentShape) -> int:
        latent = _size(self, latent)
        return 2 * latent + latent * (latent - 1) // 2

    def init(self, key: Array, latent: LatentShape) -> Params:
        return {}

    def __call__(self, params: Params, raw: Array, log_scale_range: Range) -> Distribution:
        latent = next(size for size in range(raw.shape[1] + 1) if self.outputs(size) == raw.shape[1])
        base = parts.bounded_normal(raw[:, : 2 * latent], log_scale_range)
        rows, columns = np.tril_indices(latent, -1)
        tril = jnp.exp(base.log_scale)[:, :, None] * jnp.eye(latent, dtype=raw.dtype)[None]
        return distributions.MultivariateNormal(base.loc, tril.at[:, rows, columns].set(raw[:, 2 * latent :]))


@dataclass(frozen=True)
class Householder:
    """A diagonal normal whose axes are rotated by reflections, all predicted. Tomczak & Welling 2016.

    Args:
      steps: how many reflections. As many as there are dimensions make any rotation; fewer make a part of them, with
        `latent` outputs each. The rate from N(0, I) has a closed form.
    """

    steps: int = 4

    def __post_init__(self) -> None:
        limits.check("steps", self.steps, 1, where="Householder")

    def outputs(self, latent: LatentShape) -> int:
        latent = _size(self, latent)
        return (2 + self.steps) * latent

    def init(self, key: Array, latent: LatentShape) -> Params:
        return {}

    def __call__(self, params: Params, raw: Array, log_scale_range: Range) -> Distribution:
        latent = raw.shape[1] // (2 + self.steps)
        base = parts.bounded_normal(raw[:, : 2 * latent], log_scale_range)
        vectors = raw[:, 2 * latent :].reshape(raw.shape[0], self.steps, latent)
        return distributions.Householder(base.loc, base.log_scale, vectors)


@dataclass(frozen=True)
class Planar:
    """A diagonal normal moved by planar maps, all predicted. Rezende & Mohamed 2015.

    Args:
      steps: how many maps, each with `2 latent + 1` outputs. One bends the density along one direction, so few
        dimensions need few and many need many.
    """

    steps: int = 4

    def __post_init__(self) -> None:
        limits.check("steps", self.steps, 1, where="Planar")

    def outputs(self, latent: LatentShape) -> int:
        latent = _size(self, latent)
        return 2 * latent + self.steps * (2 * latent + 1)

    def init(self, key: Array, latent: LatentShape) -> Params:
        return {}

    def __call__(self, params: Params, raw: Array, log_scale_range: Range) -> Distribution:
        latent = (raw.shape[1] - self.steps) // (2 + 2 * self.steps)
        steps = raw[:, 2 * latent :].reshape(raw.shape[0], self.steps, 2 * latent + 1)
        maps = [bijections.PlanarMap(s[:, :latent], s[:, latent:-1], s[:, -1]) for s in jnp.moveaxis(steps, 1, 0)]
        return distributions.Flow(parts.bounded_normal(raw[:, : 2 * latent], log_scale_range), tuple(maps))


_GATE = 2.0
"""What is added to the logit of a gate: a step begins by keeping sigmoid(2), nine tenths, of the code."""

_GATE_RANGE = (-8.0, 8.0)
"""Bounds of that logit: a gate that closes cannot be inverted."""


@dataclass(frozen=True)
class IAF:
    """A diagonal normal moved by gated autoregressive networks that see the example. Kingma et al. 2016, algorithm 1.

    z <- g z + (1 - g) m, gate g and m of the earlier elements of z and of a context, which the encoder predicts beside
    the base. The order of the elements is reversed from one step to the next. A draw and its density take one pass of
    each network; the density of any other code is found by inversion, which takes as many passes as there are
    dimensions.

    Args:
      steps: how many networks.
      hidden: sizes of the hidden layers of each, at least one; the context has the size of the first.
    """

    steps: int = 2
    hidden: tuple[int, ...] = (64,)

    def __post_init__(self) -> None:
        limits.check("steps", self.steps, 1, where="IAF")
        limits.check_sizes("hidden", self.hidden, where="IAF")
        if not self.hidden:
            raise InputError("hidden", got="()", expected="at least one hidden layer", where="IAF")

    def outputs(self, latent: LatentShape) -> int:
        latent = _size(self, latent)
        return 2 * latent + self.hidden[0]

    def init(self, key: Array, latent: LatentShape) -> Params:
        z, context = jnp.zeros((1, _size(self, latent))), jnp.zeros((1, self.hidden[0]))
        network = flow_networks.MADE(self.hidden)
        return {
            f"step_{number}": network.init(own, z, context)["params"]
            for number, own in enumerate(jax.random.split(key, self.steps))
        }

    def __call__(self, params: Params, raw: Array, log_scale_range: Range) -> Distribution:
        base, context = raw[:, : -self.hidden[0]], raw[:, -self.hidden[0] :]
        maps: list[bijections.Bijection] = []
        for number in range(self.steps):
            network = jax.tree_util.Partial(self._gated, params[f"step_{number}"], context)
            maps += [bijections.Autoregressive(network), bijections.Reverse()]
        return distributions.Flow(parts.bounded_normal(base, log_scale_range), tuple(maps[:-1]))

    def _gated(self, params: Params, context: Array, z: Array) -> tuple[Array, Array]:
        """Return what is added to z, and the logarithm of its gate, `[B, L]` each."""
        out: Any = flow_networks.MADE(self.hidden).apply({"params": params}, z, context)
        logit = distributions.bounded(out[:, 1] + _GATE, *_GATE_RANGE)
        return jax.nn.sigmoid(-logit) * out[:, 0], -jax.nn.softplus(-logit)


Posterior = DiagonalNormal | FullNormal | Householder | Planar | IAF
"""The posteriors a saved run may name. One of your own needs `outputs`, `init` and `__call__`."""
