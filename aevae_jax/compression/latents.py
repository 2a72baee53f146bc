"""Codes as integers: a latent dimension is one of 2^14 buckets that its prior makes equally likely.

z = m + s e, with m and s of the prior and e the middle of a bucket of the standard normal: so buckets cost 14 bits
each whatever the prior, and the posterior is a normal over buckets, as Townsend et al. 2019, section 2.5.1, have it for
one fixed prior. A mixture has the m and s of the normal of its mean and variance, and its component is chosen by bits
back as well, by its responsibility for z. Of two levels, the lower one has the prior that the upper one gives. Numbers
of networks are rounded before they are used, so z is the same float64 number everywhere.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from aevae_jax import codable
from aevae_jax.compression import elements, tables
from aevae_jax.compression.certified import Evaluation, Networks
from aevae_jax.compression.codecs import Codec, independent, sequence
from aevae_jax.compression.stack import Bits
from aevae_jax.types import InputError

CODED = 'train with --model "VAE(likelihood=DiscretizedLogistic())"'
"""A model that can be coded whatever images it has."""

Code: TypeAlias = "tuple[np.ndarray, ...]"

_LOC = 1 << 10  # means of priors, per unit
_LOWEST, _HIGHEST = -20 * tables.GRID, 20 * tables.GRID  # of log scales of priors


class Frame(NamedTuple):
    """Means and standard deviations of a prior, rounded: exact float64 numbers, `[B, d]`."""

    loc: np.ndarray
    log_scale: np.ndarray  # integers

    @property
    def scale(self) -> np.ndarray:
        return np.asarray(tables.scales(_LOWEST, _HIGHEST)[self.log_scale - _LOWEST])

    def codes(self, buckets: np.ndarray) -> np.ndarray:
        """Return what lies in the middle of buckets."""
        return np.asarray(self.loc + self.scale * (tables.tables().centres[buckets] / tables.UNIT))


def _frame(loc: np.ndarray, log_scale: np.ndarray) -> Frame:
    return Frame(loc / _LOC, np.clip(log_scale, _LOWEST, _HIGHEST))


# ------------------------------------------------------------------------------- what networks say, in units of grids


def _gaussian(distribution: Any, what: str) -> tuple[Any, Any]:
    if not isinstance(distribution, codable.Gaussian):
        got, expected = type(distribution).__name__, "independent normals, or mixtures of these"
        raise InputError(what, got=got, expected=expected, hint=CODED)
    loc, log_scale = distribution.gaussian()
    return loc.reshape(loc.shape[0], -1), log_scale.reshape(loc.shape[0], -1)


def decoded(model: Any, params: Any, z: Any) -> Any:
    """Return p(x|z) of codes `[B, L]`, whatever shape the model's codes have; of discrete ones z is their indices."""
    prior = model.prior(params, 1)
    if isinstance(prior, codable.OfIndices):
        index = z.astype(jnp.int32).reshape(z.shape[0], -1, prior.book.levels)
        return model.decode(params, prior.book.vectors(index).reshape(z.shape[0], *prior.shape))
    shape = jax.eval_shape(prior.mean).shape[1:]
    return model.decode(params, z.reshape(z.shape[0], *shape))


def level(distribution: Any, above: tuple[Any, ...]) -> Any:
    """Return the distribution of one level of codes, given the codes of those above it, the uppermost first."""
    chain = []
    while isinstance(distribution, codable.Levelled):
        chain.append(distribution)
        distribution = distribution.above
    return chain[-len(above)].below(jnp.concatenate(above[::-1], axis=-1)) if above else distribution


def _top_prior(model: Any, params: Any) -> dict[str, Any]:
    """Return the uppermost prior: the normal of the same mean and variance, and in its frame the C components.

    Each is `[C, ...]`; the frame is repeated.
    """
    prior = level(model.prior(params, 1), ())
    logits, components = None, prior
    if isinstance(prior, codable.Mixed):
        logits, components = prior.logits, prior.components
    loc, log_scale = _gaussian(components, "prior")
    log_weights = jax.nn.log_softmax(jnp.zeros_like(loc[:, 0]) if logits is None else logits.astype(loc.dtype))
    weights = jnp.exp(log_weights)[:, None]
    mean = (weights * loc).sum(0, keepdims=True)
    variance = (weights * ((loc - mean) ** 2 + jnp.exp(2 * log_scale))).sum(0, keepdims=True)
    log_deviation = 0.5 * jnp.log(variance)
    return {
        "weights": log_weights * tables.GRID,
        "loc": jnp.broadcast_to(mean, loc.shape) * _LOC,
        "log_scale": jnp.broadcast_to(log_deviation, loc.shape) * tables.GRID,
        "place": (loc - mean) * jnp.exp(-log_deviation) * elements.PLACE_GRID,
        "width": (log_scale - log_deviation) * tables.GRID,
    }


def _lower_prior(model: Any, params: Any, *above: Any) -> tuple[Any, Any]:
    loc, log_scale = _gaussian(level(model.prior(params, len(above[0])), above), "prior of a lower level")
    return loc * _LOC, log_scale * tables.GRID


def _encoded(model: Any, params: Any, x: Any) -> Any:
    """Return all that an encoder computes: the uppermost posterior, and the mean of all levels."""
    posterior = model.encode(params, x)
    return _gaussian(level(posterior, ()), "posterior"), posterior.mean()


def _stated(model: Any, params: Any) -> Any:
    """Return all that a prior computes: the uppermost one, and the mean of all levels."""
    return _top_prior(model, params), model.prior(params, 1).mean()


def _posterior(model: Any, params: Any, x: Any, loc: Any, log_scale: Any, *above: Any) -> tuple[Any, Any]:
    """Return the posterior of a level in the frame of its prior."""
    mean, log_deviation = _gaussian(level(model.encode(params, x), above), "posterior")
    place = (mean - loc) * jnp.exp(-log_scale / tables.GRID)
    return place * elements.PLACE_GRID, log_deviation * tables.GRID - log_scale


def _responsibilities(model: Any, params: Any, codes: Any, prior: Any) -> Any:
    """Return log w_c p(z|c), up to a constant, `[B, C]`, of codes in the frame of the prior.

    `prior` has log weights, means and log scales of the components side by side, `[C, 1 + 2 d]`.
    """
    loc, log_scale = jnp.split(prior[None, :, 1:], 2, axis=-1)
    distance = ((codes[:, None] - loc) * jnp.exp(-log_scale)) ** 2
    score = prior[None, :, 0] - (log_scale + 0.5 * distance).sum(-1)
    return jnp.maximum(score - score.max(-1, keepdims=True), -25.0) * tables.GRID


# --------------------------------------------------------------------------------------------------- codecs of codes


class Latents:
    """The codecs of q(z|x) and p(z) over buckets.

    A code is a tuple: the component of the uppermost prior `[B]`, and for each level, the uppermost first, its buckets
    `[B, d]`. `codes` makes the model's code z of it.

    Args:
      networks: of a model with a prior of normals, mixtures of these, or two levels.

    Raises:
      InputError: another prior or posterior.
    """

    def __init__(self, networks: Networks):
        made, sure = networks.rounded(_top_prior, certify=True)
        self.sure = bool(sure.all())
        """Whether the uppermost prior rounds alike everywhere, which who encodes must know."""
        self.width = networks.shapes(lambda model, params: model.prior(params, 1).mean()).size
        """How many numbers networks see of a code."""
        self._networks = networks
        self._frame = _frame(made["loc"][0], made["log_scale"][0])
        self._weights, self._place, self._width = made["weights"], made["place"], made["width"]
        shapes = networks.shapes(lambda model, params: model.prior(params, 1))
        self._lower = 0
        while isinstance(shapes, codable.Levelled):
            self._lower, shapes = self._lower + 1, shapes.above

    def check(self, event_shape: tuple[int, ...]) -> None:
        """Raise `InputError` where posterior or prior compute in float32, or have too many components."""
        self._networks.check(_encoded, (1, *event_shape))
        self._networks.check(_stated)
        elements.check_choices("components of the prior", len(self._weights))

    @property
    def seed(self) -> int:
        """Number of 32-bit words that the first code may pop."""
        return len(self._frame.loc) * (self._lower + 1) // 2 + 2

    def codes(self, evaluate: Evaluation, code: Code) -> np.ndarray:
        """Return z of a code, `[B, latent]`, lower levels first; the same float64 numbers everywhere."""
        return np.concatenate(self._levels(evaluate, code)[::-1], axis=-1)

    def prior(self, evaluate: Evaluation, rows: int) -> Codec:
        """Return p(z) of a batch."""

        def next_of(code: Code) -> Codec:
            if not code:
                return _table(np.broadcast_to(self._weights, (rows, len(self._weights))))
            if len(code) > 1:
                return _uniform(rows, self._below(evaluate, code).loc.shape[1])
            if len(self._weights) == 1:
                return _uniform(rows, len(self._frame.loc))
            return independent(elements.Gaussians(self._place[code[0]], self._width[code[0]], floor=1))

        return sequence(next_of, self._lower + 2)

    def posterior(self, evaluate: Evaluation, x: np.ndarray) -> Codec:
        """Return q(z|x) of x `[B, *event]`, float64. The component is popped last, given all others."""
        columns = self._weights[:, None] / tables.GRID, self._place / elements.PLACE_GRID, self._width / tables.GRID
        components = np.concatenate(columns, axis=-1)

        @cache
        def uppermost() -> Codec:
            frame = self._top(len(x))
            scale = np.asarray(frame.log_scale, np.float64)
            return independent(elements.Gaussians(*evaluate(_posterior, x, frame.loc, scale)))

        def next_of(code: Code) -> Codec:
            if not code:
                return uppermost()
            if len(code) <= self._lower:
                above = (np.zeros(len(x), np.int64), *code)  # z does not depend on the component
                frame, levels = self._below(evaluate, above), self._levels(evaluate, above)
                scale = np.asarray(frame.log_scale, np.float64)
                return independent(elements.Gaussians(*evaluate(_posterior, x, frame.loc, scale, *levels)))
            inside = tables.tables().centres[code[0]] / tables.UNIT
            return _table(evaluate(_responsibilities, inside, shared=(components,)), floor=0)

        inner = sequence(next_of, self._lower + 2)

        def push(bits: Bits, code: Code) -> None:
            inner.push(bits, (*code[1:], code[0]))

        def pop(bits: Bits) -> Code:
            *levels, component = inner.pop(bits)
            return (component, *levels)

        return Codec(push, pop)

    def _top(self, rows: int) -> Frame:
        """Return the frame of the uppermost level."""
        return Frame(*(np.broadcast_to(a, (rows, len(a))) for a in self._frame))

    def _below(self, evaluate: Evaluation, code: Code) -> Frame:
        """Return the prior of the level below those of a code."""
        return _frame(*evaluate(_lower_prior, *self._levels(evaluate, code)))

    def _levels(self, evaluate: Evaluation, code: Code) -> tuple[np.ndarray, ...]:
        """Return the z of each level of a code, the uppermost first."""
        frame = self._below(evaluate, code[:-1]) if len(code) > 2 else self._top(len(code[1]))
        above = self._levels(evaluate, code[:-1]) if len(code) > 2 else ()
        return (*above, frame.codes(code[-1]))


def _uniform(rows: int, width: int) -> Codec:
    return independent(elements.Uniform(tables.BUCKETS, (rows, width)))


def _table(logits: np.ndarray, floor: int = 1) -> Codec:
    return independent(elements.Table.of(logits, floor=floor))
