"""What a latent model can make: samples, reconstructions, paths. Pure functions of (model, params, ...), to be jitted.

Functions without a key are deterministic: they use the means of q(z|x) and p(x|z). Those that encode take
`Conditioned` batches as well; the others, of a conditional model, take `model.given(condition)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from aevae_jax import conditions
from aevae_jax.conditions import Conditioned
from aevae_jax.discrete import Snapping
from aevae_jax.types import Distribution, InputError, Latent, LatentModel, Params, likelihood_of


@dataclass(frozen=True)
class Guided:
    """A conditional model that is led further towards its condition when it decodes. Ho & Salimans 2022, section 3.

    At the same code, p(x|z, c)^(1 + weight) / p(x|z)^weight, normalised: with a likelihood that is
    `conditions.Natural`, it is the likelihood at (1 + weight) times the decoder's outputs at c less weight times those
    without a condition. It is a way to draw; what it gives is no density of the model that was trained.

    Args:
      model: a model that was trained with `drop`.
      weight: 0 for the model as it is, -1 for that without a condition.

    Raises:
      InputError: a model that has not learned to do without a condition, or another likelihood.
    """

    model: Any
    weight: float

    def __post_init__(self) -> None:
        name, model = type(self.model).__name__, self.model
        if not isinstance(model, conditions.DropsConditions) or not model.drop > 0:
            expected = "a model that was trained without some of its conditions, ConditionalVAE(drop=0.1)"
            raise InputError("guidance", got=f"a {name}, which was not", expected=expected)
        if not isinstance(model, conditions.WithOutputs) or not _is_natural(model.likelihood):
            got = f"{type(likelihood_of(model)).__name__}, whose outputs are no natural parameters"
            raise InputError("likelihood for guidance", got=got, expected="one such as Bernoulli() or Normal()")

    def init(self, key: Array) -> Params:
        """Return fresh parameters of the model."""
        return self.model.init(key)

    def given(self, condition: Any) -> conditions.Given:
        """Return the model at a condition. Raises `InputError` as that of the model itself."""
        return conditions.Given(self, self.model.given(condition).condition)

    def encode(self, params: Params, x: Array, condition: Any = None) -> Distribution:
        """Return q(z|x, c)."""
        found: Distribution = self.model.encode(params, x, condition)
        return found

    def decode(self, params: Params, z: Latent, condition: Any = None) -> Distribution:
        """Return p(x|z, c) led away from p(x|z)."""
        at, without = (self.model.decoder_outputs(params, z, c) for c in (condition, None))
        found: Distribution = self.model.likelihood(params["likelihood"], at + self.weight * (at - without))
        return found

    def prior(self, params: Params, n: int, condition: Any = None) -> Distribution:
        """Return p(z|c), for a batch of `n`."""
        found: Distribution = self.model.prior(params, n, condition)
        return found


def _is_natural(likelihood: object) -> bool:
    return isinstance(likelihood, conditions.Natural) and likelihood.natural


def sample(model: LatentModel, params: Params, key: Array, num: int) -> Distribution:
    """Return p(x|z) for `num` codes z drawn from the prior; take its `mean()`, or `sample(key)` for data with its
    noise.
    """
    return model.decode(params, codes(model, params, key, num))


def codes(model: LatentModel, params: Params, key: Array, num: int) -> Latent:
    """Return `num` codes z drawn from the prior, `[num, *latent]`."""
    return model.prior(params, num).sample(key)


def reconstruct(model: LatentModel, params: Params, batch: Array | Conditioned) -> Array:
    """Return the mean of p(x|z) at the mean of q(z|x), `[B, *event]`."""
    own, x = conditions.bound_to(model, batch)
    return own.decode(params, own.encode(params, x).mean()).mean()


def means(model: LatentModel, params: Params, batch: Array | Conditioned) -> Latent:
    """Return the means of q(z|x), `[B, *latent]`."""
    own, x = conditions.bound_to(model, batch)
    return own.encode(params, x).mean()


def path(model: LatentModel, params: Params, start: Array | Conditioned, end: Array | Conditioned, num: int) -> Latent:
    """Return codes `[num, B, *latent]` on straight lines between the posterior means of two batches `[B, *event]`.

    Of a model that is `discrete.Snapping`, those nearest to the lines.
    """
    a, b = means(model, params, start), means(model, params, end)
    line = jax.vmap(lambda t: jax.tree.map(lambda a, b: (1 - t) * a + t * b, a, b))(jnp.linspace(0.0, 1.0, num))
    return jax.vmap(lambda z: model.nearest(params, z))(line) if isinstance(model, Snapping) else line


def interpolate(model: LatentModel, params: Params, start: Array, end: Array, num: int) -> Array:
    """Return decoded means along `path`, `[num, B, *event]`."""
    codes = path(model, params, start, end, num)
    # one large batch: a loop over steps would be slow on a CPU
    images = model.decode(params, jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), codes)).mean()
    return images.reshape(num, -1, *images.shape[1:])


def traverse(model: LatentModel, params: Params, z: Latent, dimension: int, values: Array) -> Array:
    """Return decoded means of one code `[*latent]` with one coordinate set to each of `values` `[num]`: `[num,
    *event]`.

    `dimension` counts all numbers of a code, also of one that is a pytree of arrays, in the order of its leaves.
    """
    flat, unravel = ravel_pytree(z)
    codes = jnp.broadcast_to(flat, (values.shape[0], *flat.shape)).at[:, dimension].set(values)
    return model.decode(params, jax.vmap(unravel)(codes)).mean()


PREVIEWED = 64
"""Draws of `preview`."""


@partial(jax.jit, static_argnums=0)
def preview(
    model: LatentModel, params: Params, batch: Array | Conditioned, key: Array, condition: Any = None
) -> tuple[Array, Array]:
    """Return the means of 64 draws from the prior, of a conditional model at `condition`, and the reconstructions of a
    batch, in one program that is compiled once.
    """
    drawn = sample(conditions.given(model, condition), params, key, PREVIEWED)
    return drawn.mean(), reconstruct(model, params, batch)
